//! What the kernel needs beside rules: switches below /proc/sys, the front's way back, and the queues of the outside
//! cards. A process with `CAP_NET_ADMIN` may write the switches of its network without being root.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::run::{RunError, run};
use crate::plan::{HostNeeds, Leaf, Shaping, Sysctl};

const DEADLINE: Duration = Duration::from_secs(10);

/// The switches that let packets through at all.
const FORWARDING: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("setting {} to {value}: {source}", path.display())]
    Switch {
        path: PathBuf,
        value: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Sets every switch that is not set already.
pub fn set(switches: &[Sysctl]) -> Result<(), HostError> {
    for switch in switches {
        let path = Path::new("/proc/sys").join(switch.path);
        if fs::read_to_string(&path).is_ok_and(|present| present.trim() == switch.value) {
            continue;
        }
        match fs::write(&path, switch.value) {
            Err(_) if switch.optional => {}
            Err(source) => {
                return Err(HostError::Switch {
                    path,
                    value: switch.value,
                    source,
                });
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Forwards nothing any more. A kernel without a family has no switch for it, and forwards none of it.
pub fn stop_forwarding() -> Result<(), HostError> {
    for switch in FORWARDING {
        let path = Path::new("/proc/sys").join(switch);
        match fs::write(&path, "0") {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(HostError::Switch {
                    path,
                    value: "0",
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The routes and rules of the front's transparent legs.
pub async fn routes(ip: &Path, needs: &HostNeeds) -> Result<(), HostError> {
    for route in needs.routes() {
        let arguments: Vec<&str> = route.arguments.split(' ').collect();
        let doing = format!("ip {}", route.arguments);
        match run(&doing, ip, &arguments, None, DEADLINE).await {
            Err(_) if route.may_fail => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// Brings the queues from `before` to `shaping`, with the best queue that this kernel has; which one is returned.
pub async fn shape(
    tc: &Path,
    shaping: &Shaping,
    before: Option<&Shaping>,
    leaf: Option<Leaf>,
) -> Result<Option<Leaf>, HostError> {
    // Only what was there before has a queue of a known kind; afresh, the best is sought.
    if let (Some(before), Some(leaf)) = (before, leaf)
        && batch(tc, &shaping.batch(Some(before), leaf)).await.is_ok()
    {
        return Ok(Some(leaf));
    }
    if before == Some(shaping) && leaf.is_none() {
        return Ok(None);
    }
    let mut last = None;
    for leaf in Leaf::PREFERRED {
        clear(tc, shaping, before).await;
        let lines = shaping.batch(None, leaf);
        if lines.is_empty() {
            return Ok(None);
        }
        match batch(tc, &lines).await {
            Ok(()) => return Ok(Some(leaf)),
            Err(error) => last = Some(error),
        }
    }
    clear(tc, shaping, before).await;
    match last {
        Some(error) => Err(error),
        None => Ok(None),
    }
}

/// Takes away what may be there.
pub async fn clear(tc: &Path, shaping: &Shaping, before: Option<&Shaping>) {
    let both = [Some(shaping), before];
    let mut lines: Vec<String> = both
        .into_iter()
        .flatten()
        .flat_map(Shaping::clear)
        .collect();
    lines.sort();
    lines.dedup();
    for line in lines {
        let arguments: Vec<&str> = line.split(' ').collect();
        // A card without a queue of ours has none to take away.
        let _ = run("clearing a queue", tc, &arguments, None, DEADLINE).await;
    }
}

async fn batch(tc: &Path, lines: &str) -> Result<(), HostError> {
    if lines.is_empty() {
        return Ok(());
    }
    run("shaping", tc, &["-batch", "-"], Some(lines), DEADLINE).await?;
    Ok(())
}
