//! The boot configuration: where it comes from, and what it makes of the network.
//!
//! The committed one on this machine counts; a volume only while there is none. Neither is ever
//! written to; what a boot has taken is noted under /run, for the rest of that boot.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clawgress_config::{Document, MAX_BYTES, System};

use crate::network::Plan;
use crate::paths::Paths;
use crate::{
    accounts,
    atomic::{self, read_bounded},
    volume,
};

/// How long device discovery may still take before a boot without a volume goes on.
const DISCOVERY: Duration = Duration::from_secs(3);

/// How long reading devices may take.
const DEVICES: Duration = Duration::from_secs(20);

/// What the boot goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootConfig {
    pub(crate) plan: Plan,
    pub(crate) system: System,
    /// Where it was found, for people.
    pub(crate) source: String,
    pub(crate) warnings: Vec<String>,
    /// Everything that is wrong with it, one line each; the box then stays sealed.
    pub(crate) error: Option<String>,
    /// A volume that turns up later would have been read.
    pub(crate) volume_missed: bool,
}

/// Finds and judges the boot configuration.
pub(crate) async fn read(paths: &Paths) -> BootConfig {
    match find(paths).await {
        Ok(Some((source, bytes))) => judge(source, &bytes),
        Ok(None) => without(),
        Err(error) => unreadable(&format!("{error:#}")),
    }
}

/// What this boot has taken once, it keeps: a restart of this program must not meet another volume, or none.
async fn find(paths: &Paths) -> Result<Option<(String, Vec<u8>)>> {
    let kept = paths.taken_config();
    if kept.exists() {
        let text = std::fs::read(&kept).with_context(|| format!("reading {}", kept.display()))?;
        let end = text.iter().position(|byte| *byte == b'\n');
        return Ok(end.map(|end| {
            let source = String::from_utf8_lossy(&text[..end]).into_owned();
            (source, text[end + 1..].to_vec())
        }));
    }
    let found = seek(paths).await?;
    let text = found.as_ref().map_or_else(Vec::new, |(source, bytes)| {
        [source.as_bytes(), b"\n", bytes].concat()
    });
    // A full /run is no reason to be without network; a restart would then look again.
    let noted = std::fs::create_dir_all(paths.run())
        .map_err(anyhow::Error::from)
        .and_then(|()| atomic::write(&kept, &text, 0o640, accounts::group(paths, "clawgress")));
    if let Err(error) = noted {
        eprintln!(
            "noting the boot configuration in {}: {error:#}",
            kept.display()
        );
    }
    Ok(found)
}

async fn seek(paths: &Paths) -> Result<Option<(String, Vec<u8>)>> {
    let committed = paths.boot_config();
    // A link without a target is a broken configuration, not an absent one.
    match committed.symlink_metadata() {
        Ok(_) => {
            let bytes = read_bounded(&committed, MAX_BYTES as u64)?;
            return Ok(Some((committed.display().to_string(), bytes)));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        // A disk that cannot be read may hold a configuration: a volume must not take its place.
        Err(error) => {
            return Err(error).with_context(|| format!("looking for {}", committed.display()));
        }
    }
    let Some(found) = wait_for_volume(paths).await? else {
        return Ok(None);
    };
    let source = format!("volume {}", found.device.display());
    let at = paths.clone();
    let bytes = blocking(&source, move || {
        volume::read_config(&at, &found, MAX_BYTES as u64)
    })
    .await?;
    match bytes {
        Some(bytes) => Ok(Some((source, bytes))),
        None => anyhow::bail!("{source} holds no config.boot; write one there, or detach it"),
    }
}

/// Looks until a volume is there or the machine has named all its devices.
async fn wait_for_volume(paths: &Paths) -> Result<Option<volume::Found>> {
    let start = Instant::now();
    loop {
        let at = paths.clone();
        let found = blocking("the disks of this machine", move || volume::find(&at)).await?;
        let discovering = paths.udev_control().exists() && paths.udev_queue().exists();
        if found.is_some() || !discovering || start.elapsed() > DISCOVERY {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// True if a volume is there by now.
pub(crate) async fn volume_appeared(paths: &Paths) -> bool {
    let at = paths.clone();
    let found = blocking("the disks of this machine", move || volume::find(&at)).await;
    matches!(found, Ok(Some(_)))
}

/// Runs what may hang on a dying device, and gives it up after a while.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::time::timeout(DEVICES, tokio::task::spawn_blocking(work)).await {
        Ok(done) => done.with_context(|| format!("reading {what}"))?,
        Err(_) => {
            anyhow::bail!("reading {what}: no end within {DEVICES:?}; detach the device that hangs")
        }
    }
}

fn without() -> BootConfig {
    BootConfig {
        plan: Plan::without_config(),
        system: Document::default().system,
        source: "no boot config".to_owned(),
        warnings: Vec::new(),
        error: None,
        volume_missed: true,
    }
}

/// Somebody meant to configure this box and it cannot be known what: no card at all comes up.
fn unreadable(error: &str) -> BootConfig {
    BootConfig {
        plan: Plan::default(),
        error: Some(error.to_owned()),
        volume_missed: false,
        ..without()
    }
}

fn judge(source: String, bytes: &[u8]) -> BootConfig {
    let base = BootConfig {
        source,
        volume_missed: false,
        ..without()
    };
    match clawgress_config::load(bytes) {
        Ok(loaded) => BootConfig {
            plan: Plan::of(&loaded.document),
            system: loaded.document.system,
            warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
            ..base
        },
        Err(invalid) => BootConfig {
            plan: Plan::management_only(invalid.management()),
            error: Some(format!("{}:\n{invalid}", base.source)),
            ..base
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn with(text: &str) -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        fs::create_dir_all(paths.config()).unwrap();
        fs::write(paths.boot_config(), text).unwrap();
        (dir, paths)
    }

    #[tokio::test]
    async fn none_at_all_means_the_first_card() {
        let dir = tempfile::tempdir().unwrap();
        let config = read(&Paths::below(dir.path())).await;
        assert_eq!(config.plan, Plan::without_config());
        assert_eq!(config.error, None);
        assert!(config.volume_missed);
    }

    #[tokio::test]
    async fn a_valid_one_is_taken() {
        let (_dir, paths) =
            with("system { host-name gw1 }\ninterfaces { ethernet eth0 { role wan } }");
        let config = read(&paths).await;
        assert_eq!(config.system.host_name, "gw1");
        assert_eq!(config.plan.cards.len(), 1);
        assert!(
            config.warnings[0].contains("no address"),
            "{:?}",
            config.warnings
        );
    }

    #[tokio::test]
    async fn a_boot_keeps_the_one_it_took() {
        let (_dir, paths) = with("system { host-name gw1 }");
        assert_eq!(read(&paths).await.system.host_name, "gw1");
        std::fs::write(paths.boot_config(), "system { host-name other }").unwrap();
        assert_eq!(read(&paths).await.system.host_name, "gw1");
    }

    #[tokio::test]
    async fn an_invalid_one_leaves_management_alone() {
        let (_dir, paths) = with(
            "interfaces {\n ethernet eth0 { address dhcp role wna }\n\
             ethernet eth2 { address 10.9.0.1/24 role management }\n}",
        );
        let config = read(&paths).await;
        let names: Vec<_> = config
            .plan
            .cards
            .iter()
            .map(|card| card.name.as_str())
            .collect();
        assert_eq!(names, ["eth2"]);
        let error = config.error.unwrap();
        assert!(
            error.contains("config.boot:\nline 2") && error.contains("did you mean wan?"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_unreadable_one_brings_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        fs::create_dir_all(paths.boot_config()).unwrap();
        let config = read(&paths).await;
        assert_eq!(config.plan, Plan::default());
        assert!(config.error.unwrap().contains("not a file"));
    }

    #[tokio::test]
    async fn a_config_of_any_size_is_bounded() {
        let (_dir, paths) = with(&"#".repeat(MAX_BYTES + 1));
        assert!(read(&paths).await.error.unwrap().contains("larger than"));
    }
}
