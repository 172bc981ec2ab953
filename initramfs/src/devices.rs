//! What sysfs says about the machine: device strings, block devices, controllers without driver.
//!
//! Reads only; what can't be read is left out.

use std::fs;
use std::path::{Path, PathBuf};

/// Buses on which media are found come first, so that their drivers load first.
const MEDIA_BUSES: [&str; 6] = ["pci", "virtio", "vmbus", "xen", "usb", "scsi"];

/// The `modalias` of every device present, media buses first.
pub(crate) fn modaliases() -> Vec<String> {
    let mut buses: Vec<PathBuf> = MEDIA_BUSES
        .iter()
        .map(|bus| Path::new("/sys/bus").join(bus))
        .collect();
    for bus in children(Path::new("/sys/bus")) {
        if !buses.contains(&bus) {
            buses.push(bus);
        }
    }
    buses
        .iter()
        .flat_map(|bus| children(&bus.join("devices")))
        .filter_map(|device| fs::read_to_string(device.join("modalias")).ok())
        .map(|modalias| modalias.trim_end().to_owned())
        .filter(|modalias| !modalias.is_empty())
        .collect()
}

/// The names of all block devices that could be the medium.
pub(crate) fn block_devices() -> Vec<String> {
    children(Path::new("/sys/class/block"))
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .filter(|name| may_be_medium(name))
        .map(str::to_owned)
        .collect()
}

/// Whether a block device is one that a person can attach. Memory is not; a floppy drive is left
/// alone, because looking into an empty one takes seconds.
pub(crate) fn may_be_medium(name: &str) -> bool {
    let letters = name.trim_end_matches(|c: char| c.is_ascii_digit());
    !matches!(letters, "ram" | "zram" | "loop" | "fd" | "nbd")
        && !name.starts_with("nbd")
        && !name.starts_with("loop")
}

/// The whole disk that a partition belongs to; `None` for anything but a partition.
pub(crate) fn disk_of(name: &str) -> Option<String> {
    let device = fs::canonicalize(Path::new("/sys/class/block").join(name)).ok()?;
    if !device.join("partition").exists() {
        return None;
    }
    Some(device.parent()?.file_name()?.to_str()?.to_owned())
}

/// The device node of a block device; sysfs writes `!` for `/`.
pub(crate) fn node(name: &str) -> String {
    format!("/dev/{}", name.replace('!', "/"))
}

/// Controllers of disks or USB that no driver has taken, in words.
pub(crate) fn controllers_without_driver() -> Vec<String> {
    children(Path::new("/sys/bus/pci/devices"))
        .iter()
        .filter_map(|device| {
            let read = |file: &str| {
                fs::read_to_string(device.join(file)).map(|text| text.trim().to_owned())
            };
            let kind = controller(&read("class").ok()?)?;
            if device.join("driver").exists() {
                return None;
            }
            Some(format!(
                "PCI {}: {kind} {}:{} without a driver in this image",
                device.file_name()?.to_str()?,
                read("vendor").ok()?.trim_start_matches("0x"),
                read("device").ok()?.trim_start_matches("0x"),
            ))
        })
        .collect()
}

/// Class 01 is mass storage, 0c03 USB.
fn controller(class: &str) -> Option<&'static str> {
    if class.starts_with("0x01") {
        Some("storage controller")
    } else if class.starts_with("0x0c03") {
        Some("USB controller")
    } else {
        None
    }
}

/// Sorted, so that the same machine is always looked at in the same order.
fn children(directory: &Path) -> Vec<PathBuf> {
    let mut children: Vec<PathBuf> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    children.sort();
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_no_medium() {
        for name in ["ram0", "zram1", "loop7", "loop0p1", "fd0", "nbd0", "nbd0p1"] {
            assert!(!may_be_medium(name), "{name}");
        }
        for name in [
            "sda",
            "sda1",
            "sr0",
            "vda",
            "nvme0n1",
            "nvme0n1p2",
            "mmcblk0p1",
            "xvda",
        ] {
            assert!(may_be_medium(name), "{name}");
        }
    }

    #[test]
    fn nodes_and_classes() {
        assert_eq!(node("cciss!c0d0"), "/dev/cciss/c0d0");
        assert_eq!(controller("0x010601"), Some("storage controller"));
        assert_eq!(controller("0x0c0330"), Some("USB controller"));
        assert_eq!(controller("0x020000"), None);
    }
}
