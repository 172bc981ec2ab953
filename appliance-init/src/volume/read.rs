//! Looks through the block devices, mounts the one with our label for a moment, and reads its configuration.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::label::label;
use crate::{atomic::read_bounded, paths::Paths};

pub(crate) const LABEL: &str = "CLAWGRESS-CFG";
/// FAT has room for eleven characters; a partition's own name (GPT) can be written in full.
const FAT_LABEL: &str = "CLAWGRESS-C";
const FILE: &str = "config.boot";

/// A device with our label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) device: PathBuf,
    kind: &'static str,
}

/// Devices that are never a configuration volume, or that take seconds to say so.
fn skipped(name: &str) -> bool {
    ["loop", "ram", "zram", "fd", "dm-", "md", "mtd", "nbd"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// The one device with our label, if there is one; two of them are an error, for nobody could tell which counts.
pub(crate) fn find(paths: &Paths) -> Result<Option<Found>> {
    let mut found: Vec<Found> = Vec::new();
    // A machine without block devices has none with our label.
    let Ok(entries) = fs::read_dir(paths.block_devices()) else {
        return Ok(None);
    };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in names.iter().filter(|name| !skipped(name)) {
        if let Some(kind) = ours(paths, name) {
            found.push(Found {
                device: paths.devices().join(name),
                kind,
            });
        }
    }
    if found.len() > 1 {
        let devices: Vec<_> = found
            .iter()
            .map(|found| found.device.display().to_string())
            .collect();
        bail!(
            "{} volumes are labelled {LABEL}: {}; detach all but one",
            found.len(),
            devices.join(", ")
        );
    }
    Ok(found.pop())
}

fn ours(paths: &Paths, name: &str) -> Option<&'static str> {
    let about = paths.block_devices().join(name);
    // No medium in the drive: opening it would only wait.
    if fs::read_to_string(about.join("size")).is_ok_and(|size| size.trim() == "0") {
        return None;
    }
    let mut device = open(&paths.devices().join(name)).ok()?;
    let labelled = label(&mut device)?;
    let partition = fs::read_to_string(about.join("uevent")).unwrap_or_default();
    let named = partition
        .lines()
        .any(|line| line == format!("PARTNAME={LABEL}"));
    let full = labelled.label.eq_ignore_ascii_case(LABEL);
    let cut = labelled.kind == "vfat" && labelled.label.eq_ignore_ascii_case(FAT_LABEL);
    (full || cut || named).then_some(labelled.kind)
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
}

/// Reads the configuration of a volume. `None` if the volume holds none.
pub(crate) fn read_config(paths: &Paths, found: &Found, most: u64) -> Result<Option<Vec<u8>>> {
    let target = paths.volume_mount();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&target)
        .with_context(|| format!("creating {}", target.display()))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    // A journal that was not replayed stays so: replaying would write. And an error in a stranger's file system is no
    // reason to panic, whatever its superblock says.
    let options = (found.kind == "ext4").then_some("noload,errors=continue");
    mount(
        Some(&found.device),
        &target,
        Some(found.kind),
        flags,
        options,
    )
    .with_context(|| {
        format!(
            "mounting {} ({}) to read {FILE}",
            found.device.display(),
            found.kind
        )
    })?;
    let read = read(&target, most);
    // Detached, so that a hanging device cannot hold up the boot.
    let released = umount2(&target, MntFlags::MNT_DETACH)
        .with_context(|| format!("unmounting {}", found.device.display()));
    let _ = fs::remove_dir(&target);
    let bytes = read?;
    released?;
    Ok(bytes)
}

fn read(target: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let file = target.join(FILE);
    // A link could lead off the volume, to whatever root may read.
    match fs::symlink_metadata(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("looking for {FILE} on the volume"));
        }
        Ok(found) if !found.is_file() => {
            bail!("{FILE} on the volume is not a plain file; write one there")
        }
        Ok(_) => {}
    }
    read_bounded(&file, most).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ext4(label: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
        bytes[1144..1144 + label.len()].copy_from_slice(label);
        bytes
    }

    fn device(dir: &Path, name: &str, bytes: &[u8], uevent: &str) {
        let about = dir.join("sys/class/block").join(name);
        fs::create_dir_all(&about).unwrap();
        fs::write(about.join("size"), "16\n").unwrap();
        fs::write(about.join("uevent"), uevent).unwrap();
        fs::create_dir_all(dir.join("dev")).unwrap();
        fs::write(dir.join("dev").join(name), bytes).unwrap();
    }

    #[test]
    fn the_device_with_our_label_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        assert_eq!(find(&paths).unwrap(), None);
        device(dir.path(), "sda", &[0; 4096], "");
        device(dir.path(), "sdb1", &ext4(b"OTHER"), "");
        device(dir.path(), "loop0", &ext4(b"CLAWGRESS-CFG"), "");
        assert_eq!(find(&paths).unwrap(), None);
        device(dir.path(), "vdb", &ext4(b"CLAWGRESS-CFG"), "");
        assert_eq!(
            find(&paths).unwrap().unwrap().device,
            dir.path().join("dev/vdb")
        );
    }

    #[test]
    fn a_partition_name_does_as_well() {
        let dir = tempfile::tempdir().unwrap();
        device(
            dir.path(),
            "sdb1",
            &ext4(b""),
            "DEVTYPE=partition\nPARTNAME=CLAWGRESS-CFG\n",
        );
        assert!(find(&Paths::below(dir.path())).unwrap().is_some());
    }

    #[test]
    fn two_volumes_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        device(dir.path(), "sda", &ext4(b"CLAWGRESS-CFG"), "");
        device(dir.path(), "sdb", &ext4(b"clawgress-cfg"), "");
        let error = find(&Paths::below(dir.path())).unwrap_err().to_string();
        assert!(
            error.contains("sda") && error.contains("detach all but one"),
            "{error}"
        );
    }

    #[test]
    fn only_a_plain_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), 10).unwrap(), None);
        std::os::unix::fs::symlink("/etc/shadow", dir.path().join(FILE)).unwrap();
        assert!(
            read(dir.path(), 10)
                .unwrap_err()
                .to_string()
                .contains("plain file")
        );
        fs::remove_file(dir.path().join(FILE)).unwrap();
        fs::write(dir.path().join(FILE), "system { }").unwrap();
        assert_eq!(
            read(dir.path(), 10).unwrap().as_deref(),
            Some(b"system { }".as_slice())
        );
    }
}
