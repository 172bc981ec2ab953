//! Puts the rendered texts where networkd and chrony read them, and names the machine.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result};
use clawgress_config::System;

use super::Plan;
use super::render::{PREFIX, describe, files};
use crate::{atomic, paths::Paths};

/// By the custom of Debian, where a machine's own name is.
const OWN_ADDRESS: &str = "127.0.1.1";

/// Writes the files of the plan and removes those of an earlier one. Says what was planned.
pub(crate) fn apply(paths: &Paths, plan: &Plan) -> Result<String> {
    let directory = paths.network_files();
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let files = files(plan);
    let known =
        fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))?;
    for entry in known.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && !files.contains_key(&name) {
            fs::remove_file(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    for (name, text) in &files {
        // networkd is not root: it has to be able to read them.
        atomic::write(&directory.join(name), text.as_bytes(), 0o644, None)?;
    }
    Ok(describe(plan))
}

/// Host name, time zone and time servers. What fails here leaves the box as safe as before: warnings, no errors.
pub(crate) fn apply_system(paths: &Paths, system: &System) -> Vec<String> {
    [
        host_name(paths, &system.host_name),
        time_zone(paths, &system.time_zone),
        time_servers(paths, &system.ntp_servers),
    ]
    .into_iter()
    .filter_map(Result::err)
    .map(|error| format!("{error:#}"))
    .collect()
}

fn host_name(paths: &Paths, name: &str) -> Result<()> {
    fs::write(paths.kernel_host_name(), name)
        .with_context(|| format!("naming this machine {name}"))?;
    atomic::write(
        &paths.host_name(),
        format!("{name}\n").as_bytes(),
        0o644,
        None,
    )?;
    // The resolver denies every name, this machine's own included: programs find it here.
    let known = fs::read_to_string(paths.hosts()).unwrap_or_default();
    let others = known.lines().filter(|line| !line.starts_with(OWN_ADDRESS));
    let lines: Vec<String> = others
        .map(str::to_owned)
        .chain([format!("{OWN_ADDRESS}\t{name}")])
        .collect();
    atomic::write(
        &paths.hosts(),
        (lines.join("\n") + "\n").as_bytes(),
        0o644,
        None,
    )
}

fn time_zone(paths: &Paths, zone: &str) -> Result<()> {
    let known = paths.zones().join(zone);
    if !known.exists() {
        // Without any zones in the image everything is UTC already.
        anyhow::ensure!(
            zone == "UTC",
            "setting time zone {zone}: this image has no {}",
            known.display()
        );
        return Ok(());
    }
    let link = paths.local_time();
    let temporary = link.with_extension("new");
    let _ = fs::remove_file(&temporary);
    symlink(format!("/usr/share/zoneinfo/{zone}"), &temporary)
        .and_then(|()| fs::rename(&temporary, &link))
        .with_context(|| format!("setting time zone {zone} in {}", link.display()))
}

fn time_servers(paths: &Paths, servers: &[String]) -> Result<()> {
    let file = paths.chrony_sources();
    let directory = file
        .parent()
        .context("the file of time servers has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let text: String = servers
        .iter()
        .flat_map(|server| ["server ", server.as_str(), " iburst\n"])
        .collect();
    atomic::write(&file, text.as_bytes(), 0o644, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_files_go_and_foreign_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        apply(&paths, &Plan::without_config()).unwrap();
        fs::write(paths.network_files().join("50-other.network"), "").unwrap();
        apply(&paths, &Plan::default()).unwrap();
        let mut names: Vec<_> = fs::read_dir(paths.network_files())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["10-clawgress-unlisted.network", "50-other.network"]);
    }

    #[test]
    fn the_system_gets_its_name_zone_and_servers() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        for directory in [
            "proc/sys/kernel",
            "etc",
            "run/clawgress",
            "usr/share/zoneinfo/Europe",
        ] {
            fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        fs::write(paths.zones().join("Europe/Berlin"), "").unwrap();
        fs::write(
            paths.hosts(),
            "127.0.0.1\tlocalhost\n127.0.1.1\tclawgress\n",
        )
        .unwrap();
        let mut system = clawgress_config::load(
            b"set system host-name gw1\nset system time-zone Europe/Berlin\nset system ntp server 192.0.2.1\n\
              set system ntp server 192.0.2.2",
        )
        .unwrap()
        .document
        .system;
        assert_eq!(apply_system(&paths, &system), Vec::<String>::new());
        assert_eq!(fs::read_to_string(paths.kernel_host_name()).unwrap(), "gw1");
        assert_eq!(fs::read_to_string(paths.host_name()).unwrap(), "gw1\n");
        assert_eq!(
            fs::read_to_string(paths.hosts()).unwrap(),
            "127.0.0.1\tlocalhost\n127.0.1.1\tgw1\n"
        );
        assert_eq!(
            fs::read_link(paths.local_time()).unwrap().to_str(),
            Some("/usr/share/zoneinfo/Europe/Berlin")
        );
        assert_eq!(
            fs::read_to_string(paths.chrony_sources()).unwrap(),
            "server 192.0.2.1 iburst\nserver 192.0.2.2 iburst\n"
        );
        system.time_zone = "Asia/Tokyo".into();
        let warnings = apply_system(&paths, &system);
        assert!(
            warnings.len() == 1
                && warnings[0].contains("no ")
                && warnings[0].contains("Asia/Tokyo")
        );
    }
}
