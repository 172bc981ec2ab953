//! The live flows of the front: noted as haproxy tells of them, judged again each second by name, and ended where they
//! may not go on. The kernel judges the same flows by address; this tells apart what shares one.
//!
//! A flow that nobody here knows, because it was opened before this process, is ended at the first change after it:
//! until then the judgement under which it was opened still holds.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::{MissedTickBehavior, interval};

use super::observe::front_event;
use super::shared::{CapKey, InForce, Shared};
use crate::apply::files;
use crate::apply::haproxy;
use crate::front::live::End;
use crate::front::log::{Event, LONGEST_LINE, Path as Wire};
use crate::kernel::diag::{self, Ended};
use crate::kernel::{KernelError, Socket};
use crate::plan::layout::port;

const LOOK: Duration = Duration::from_millis(500);

/// Opens the socket that haproxy logs to, in place of what a dead process left there.
pub(super) fn open(path: &str, group: Option<u32>) -> Result<UnixDatagram, String> {
    let failed = |error: &dyn std::fmt::Display| format!("listening on {path}: {error}");
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
        _ => {}
    }
    let socket = UnixDatagram::bind(path).map_err(|error| failed(&error))?;
    files::admit(Path::new(path), 0o660, group).map_err(|error| failed(&error))?;
    Ok(socket)
}

fn listens(wire: Wire) -> u16 {
    match wire {
        Wire::Sni => port::SNI,
        Wire::Host => port::HOST,
    }
}

struct Flows {
    shared: Arc<Shared>,
    diag: Socket,
    /// By the front's port: flows that were there before this process.
    strangers: HashMap<u16, HashSet<SocketAddr>>,
    /// By what everything was judged last.
    judged: Option<(u32, BTreeSet<CapKey>)>,
    /// The kernel can't end connections; haproxy has to.
    unsupported: bool,
}

/// Takes haproxy's word and judges, for ever.
pub(super) async fn keep(shared: Arc<Shared>, log: UnixDatagram, mut diag: Socket) {
    let mut strangers = HashMap::new();
    for port in [port::SNI, port::HOST] {
        match diag::peers(&mut diag, port) {
            Ok(peers) => drop(strangers.insert(port, peers)),
            Err(error) => tracing::error!("{error}"),
        }
    }
    let mut flows = Flows {
        shared,
        diag,
        strangers,
        judged: None,
        unsupported: false,
    };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; 2 * LONGEST_LINE];
    loop {
        tokio::select! {
            received = log.recv(&mut buffer) => match received {
                Ok(length) => flows.heard(buffer.get(..length).unwrap_or_default()).await,
                Err(error) => {
                    tracing::error!("reading what the front logs: {error}");
                    tokio::time::sleep(LOOK).await;
                }
            },
            _ = look.tick() => flows.judge().await,
        }
    }
}

impl Flows {
    async fn heard(&mut self, datagram: &[u8]) {
        let in_force = self.shared.in_force();
        match Event::read(datagram) {
            Ok(event) => {
                front_event(&self.shared, in_force.as_deref(), &event);
                if self.shared.live().note(&event).is_err() {
                    let end = End {
                        source: event.source,
                        path: event.path,
                    };
                    tracing::warn!("too many flows at once: {} is ended", event.source);
                    self.end(&[end]).await;
                }
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }

    async fn judge(&mut self) {
        let Some(in_force) = self.shared.in_force() else {
            // Sealed: the kernel lets nothing through.
            return;
        };
        let over_cap = self.shared.over_cap().clone();
        self.end_strangers(&in_force, &over_cap).await;
        let forbidden = self
            .shared
            .live()
            .forbidden(&in_force.index, in_force.moment, &over_cap);
        if forbidden.is_empty() {
            return;
        }
        for (end, reason) in &forbidden {
            tracing::info!("ending the flow of {}: {reason}", end.source);
        }
        let ends: Vec<End> = forbidden.into_iter().map(|(end, _)| end).collect();
        self.end(&ends).await;
    }

    async fn end_strangers(&mut self, in_force: &InForce, over_cap: &BTreeSet<CapKey>) {
        let now = (in_force.plan.generation, over_cap.clone());
        let before = self.judged.replace(now.clone());
        if before.is_none_or(|before| before == now) || self.strangers.is_empty() {
            return;
        }
        for (port, peers) in std::mem::take(&mut self.strangers) {
            self.end_at(port, peers).await;
        }
    }

    async fn end(&mut self, ends: &[End]) {
        for wire in [Wire::Sni, Wire::Host] {
            let of_path = ends.iter().filter(|end| end.path == wire);
            let peers: HashSet<SocketAddr> = of_path.map(|end| end.source).collect();
            if !peers.is_empty() {
                self.end_at(listens(wire), peers).await;
            }
        }
    }

    async fn end_at(&mut self, port: u16, peers: HashSet<SocketAddr>) {
        if !self.unsupported {
            match self.destroy(port, &peers) {
                Ok(Ended::Count(_)) => return,
                Ok(Ended::Unsupported) => {
                    tracing::warn!("this kernel can't end connections; haproxy is asked to");
                    self.unsupported = true;
                }
                Err(error) => tracing::error!("{error}; haproxy is asked to"),
            }
        }
        if let Err(error) = shut_down(&self.shared.config.places().runtime, port, &peers).await {
            tracing::error!("ending flows of the front: {error}");
        }
    }

    fn destroy(&mut self, port: u16, peers: &HashSet<SocketAddr>) -> Result<Ended, KernelError> {
        tokio::task::block_in_place(|| diag::end(&mut self.diag, port, peers))
    }
}

/// Has haproxy end the sessions of these ends.
async fn shut_down(
    runtime: &str,
    port: u16,
    peers: &HashSet<SocketAddr>,
) -> Result<(), haproxy::FrontError> {
    let frontend = if port == port::SNI { "sni" } else { "host" };
    let sessions = haproxy::ask(runtime, "show sess\n").await?;
    for line in sessions.lines() {
        if let Some((session, source)) = session(line, frontend)
            && peers.contains(&source)
        {
            haproxy::ask(runtime, &format!("shutdown session {session}\n")).await?;
        }
    }
    Ok(())
}

/// `0x55d0c8: proto=tcpv4 src=192.168.10.10:40112 fe=sni be=…`
fn session<'l>(line: &'l str, frontend: &str) -> Option<(&'l str, SocketAddr)> {
    let (session, rest) = line.split_once(':')?;
    let field = |key: &str| {
        rest.split(' ')
            .find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
    };
    if !session.starts_with("0x") || field("fe")? != frontend {
        return None;
    }
    let (address, port) = field("src")?.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Some((
        session,
        SocketAddr::new(address.parse().ok()?, port.parse().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_by_its_source() {
        let line = "0x56c: proto=tcpv4 src=192.168.10.10:40112 fe=sni be=sni4 srv=site ts=00 age=1s calls=2";
        let source = "192.168.10.10:40112".parse().unwrap();
        assert_eq!(session(line, "sni"), Some(("0x56c", source)));
        assert_eq!(session(line, "host"), None);
        let line = "0x57: proto=tcpv6 src=2001:db8::7:40112 fe=host be=host6 srv=site";
        assert_eq!(
            session(line, "host").unwrap().1,
            "[2001:db8::7]:40112".parse().unwrap()
        );
        for broken in [
            "",
            "0x1",
            "x: src=a",
            "0x1: proto=unix_stream src=unix:1 fe=GLOBAL",
        ] {
            assert_eq!(session(broken, "sni"), None);
        }
    }
}
