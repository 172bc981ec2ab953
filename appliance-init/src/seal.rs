//! The seal: the ruleset that drops everything, and a kernel that forwards nothing.
//!
//! This module only ever closes. Nothing in this program switches forwarding on or removes a ruleset.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clawgress_link::ruleset;
use clawgress_link::seal::Forwarding;

use crate::paths::Paths;

/// Far above what nft needs even under emulation.
const DEADLINE: Duration = Duration::from_secs(20);

/// Loads the ruleset, with one retry, and switches forwarding off whatever became of it.
pub(crate) async fn close(paths: &Paths) -> Result<String> {
    let forwarding = switch_off(paths);
    let loaded = match load(paths).await {
        // A module still being loaded or an interrupted netlink dump passes; anything else fails again.
        Err(_) => load(paths).await,
        loaded => loaded,
    };
    loaded?;
    forwarding?;
    Ok("all chains drop, forwarding is off".to_owned())
}

/// At the start of this program. A second run in one boot meets a box that may be enforcing a committed revision; what is
/// then in the kernel stays there.
pub(crate) async fn close_unless_enforcing(paths: &Paths, again: bool) -> Result<String> {
    if again {
        let now = ruleset::measure().await;
        if now.loaded && now.generation != ruleset::SEALED {
            return Ok(format!(
                "generation {} is in force and stays",
                now.generation
            ));
        }
    }
    close(paths).await
}

/// Loads the sealed ruleset, in one transaction of nft.
pub(crate) async fn load(paths: &Paths) -> Result<()> {
    let rules = paths.sealed_ruleset();
    let running = tokio::process::Command::new(paths.nft())
        .arg("-f")
        .arg(&rules)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, running)
        .await
        .with_context(|| {
            format!(
                "loading {}: nft did not end within {DEADLINE:?}",
                rules.display()
            )
        })?
        .with_context(|| format!("running {}", paths.nft().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("without a word");
    bail!(
        "loading {}: nft ended with {}: {}",
        rules.display(),
        output.status,
        said.trim()
    );
}

/// Every switch of one address family, the global one first: it sets the others.
fn switches(paths: &Paths) -> Vec<(bool, PathBuf)> {
    let per_card = |directory: PathBuf| -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(directory.join("conf")) else {
            return Vec::new();
        };
        entries
            .filter_map(Result::ok)
            .map(|entry| entry.path().join("forwarding"))
            .collect()
    };
    let mut all = vec![
        (true, paths.sysctl_ipv4().join("ip_forward")),
        (false, paths.sysctl_ipv6().join("conf/all/forwarding")),
    ];
    all.extend(
        per_card(paths.sysctl_ipv4())
            .into_iter()
            .map(|path| (true, path)),
    );
    all.extend(
        per_card(paths.sysctl_ipv6())
            .into_iter()
            .map(|path| (false, path)),
    );
    all
}

/// A switch that is not there (a kernel without IPv6) forwards nothing; one that cannot be read counts as on.
fn is_on(path: &Path) -> bool {
    match fs::read_to_string(path) {
        Ok(text) => text.trim() != "0",
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// What the kernel does right now, on any card.
pub(crate) fn forwarding(paths: &Paths) -> Forwarding {
    let mut measured = Forwarding {
        ipv4: false,
        ipv6: false,
    };
    for (is_v4, path) in switches(paths) {
        if is_on(&path) {
            *(if is_v4 {
                &mut measured.ipv4
            } else {
                &mut measured.ipv6
            }) = true;
        }
    }
    measured
}

/// Switches forwarding off everywhere and checks that it is.
pub(crate) fn switch_off(paths: &Paths) -> Result<()> {
    for (_, path) in switches(paths) {
        if is_on(&path) {
            fs::write(&path, "0")
                .with_context(|| format!("switching forwarding off in {}", path.display()))?;
        }
    }
    let now = forwarding(paths);
    if now.ipv4 || now.ipv6 {
        bail!(
            "forwarding is still on after it was switched off (IPv4 {}, IPv6 {})",
            now.ipv4,
            now.ipv6
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn root() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        for (file, text) in [
            ("proc/sys/net/ipv4/ip_forward", "1\n"),
            ("proc/sys/net/ipv4/conf/eth1/forwarding", "1\n"),
            ("proc/sys/net/ipv6/conf/all/forwarding", "0\n"),
            ("proc/sys/net/ipv6/conf/eth1/forwarding", "0\n"),
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (dir, paths)
    }

    fn fake_nft(paths: &Paths, script: &str) {
        fs::create_dir_all(paths.nft().parent().unwrap()).unwrap();
        fs::write(paths.nft(), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(paths.nft(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn forwarding_on_one_card_is_seen_and_switched_off() {
        let (_dir, paths) = root();
        assert_eq!(
            forwarding(&paths),
            Forwarding {
                ipv4: true,
                ipv6: false
            }
        );
        switch_off(&paths).unwrap();
        assert_eq!(
            forwarding(&paths),
            Forwarding {
                ipv4: false,
                ipv6: false
            }
        );
    }

    #[test]
    fn a_kernel_without_ipv6_forwards_none() {
        let dir = tempfile::tempdir().unwrap();
        switch_off(&Paths::below(dir.path())).unwrap();
    }

    #[tokio::test]
    async fn the_second_attempt_counts() {
        let (dir, paths) = root();
        let mark = dir.path().join("mark");
        fake_nft(
            &paths,
            &format!("[ -e {0} ] && exit 0; : > {0}; exit 1", mark.display()),
        );
        close(&paths).await.unwrap();
    }

    #[tokio::test]
    async fn a_ruleset_that_does_not_load_is_an_error_and_forwarding_is_off_all_the_same() {
        let (_dir, paths) = root();
        fake_nft(
            &paths,
            "echo 'sealed.nft:3:1: Error: no such table' >&2; exit 1",
        );
        let error = close(&paths).await.unwrap_err().to_string();
        assert!(
            error.contains("sealed.nft") && error.contains("no such table"),
            "{error}"
        );
        assert!(!forwarding(&paths).ipv4);
    }
}
