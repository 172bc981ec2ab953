//! What this machine is: processors, memory, disk, cards and their addresses, live or installed.
//!
//! Only looks. Every figure that cannot be read is left out, never guessed.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};

use crate::paths::Paths;

const PROCESSORS: u64 = 4;
/// 8 GB of RAM show as less: the kernel keeps some for itself.
const MEMORY: u64 = 7_500_000_000;
/// 80 GB, as disks are sold, with room for the partition table.
const DISK: u64 = 79_000_000_000;

/// The figures that the requirements speak of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    processors: Option<u64>,
    memory: Option<u64>,
    largest_disk: Option<u64>,
}

impl Machine {
    pub(crate) fn measure(paths: &Paths) -> Self {
        Self {
            processors: std::thread::available_parallelism()
                .ok()
                .map(|count| count.get() as u64),
            memory: fs::read_to_string(paths.memory())
                .ok()
                .and_then(|text| memory(&text)),
            largest_disk: largest_disk(paths),
        }
    }

    /// What is below the requirements, one line each.
    pub(crate) fn warnings(self) -> Vec<String> {
        let low = |have: Option<u64>, least: u64, text: &dyn Fn(u64) -> String| {
            have.filter(|&have| have < least).map(text)
        };
        [
            low(self.processors, PROCESSORS, &|have| {
                let noun = if have == 1 { "CPU" } else { "CPUs" };
                format!("{have} {noun}: at least 4 are needed")
            }),
            low(self.memory, MEMORY, &|have| {
                format!(
                    "{}.{} GB of RAM: at least 8 are needed",
                    have / 1_000_000_000,
                    have / 100_000_000 % 10
                )
            }),
            low(
                self.largest_disk,
                DISK,
                &|have| match have / 1_000_000_000 {
                    0 => "no disk: one of at least 80 GB is needed".to_owned(),
                    have => format!("largest disk has {have} GB: at least 80 are needed"),
                },
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn memory(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Size of the largest disk that could be installed to; removable ones and memory do not count.
fn largest_disk(paths: &Paths) -> Option<u64> {
    let entries = fs::read_dir(paths.block_devices()).ok()?;
    let sizes = entries.filter_map(Result::ok).filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["loop", "ram", "zram", "sr", "fd", "dm-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            return None;
        }
        let number = |file: &str| {
            fs::read_to_string(entry.path().join(file))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        };
        // The kernel counts in sectors of 512 bytes, whatever the disk's own are.
        (number("removable") == Some(0))
            .then(|| number("size"))
            .flatten()
            .map(|sectors| sectors * 512)
    });
    Some(sizes.max().unwrap_or(0))
}

/// True if what is committed does not survive a reboot.
pub(crate) fn is_live(paths: &Paths) -> bool {
    statfs(&paths.config()).is_ok_and(|at| {
        let kind = at.filesystem_type();
        kind == TMPFS_MAGIC || kind == OVERLAYFS_SUPER_MAGIC
    })
}

/// Addresses of each card in the form address/length, loopback and link-local ones left out.
pub(crate) fn addresses() -> BTreeMap<String, Vec<String>> {
    let mut cards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Ok(known) = getifaddrs() else {
        return cards;
    };
    for entry in known {
        let (Some(address), Some(mask)) = (entry.address, entry.netmask) else {
            continue;
        };
        let address: Option<(IpAddr, u32)> = if let Some(v4) = address.as_sockaddr_in() {
            let ones = mask
                .as_sockaddr_in()
                .map_or(32, |mask| u32::from(mask.ip()).count_ones());
            Some((v4.ip().into(), ones))
        } else if let Some(v6) = address
            .as_sockaddr_in6()
            .filter(|v6| !v6.ip().is_unicast_link_local())
        {
            let ones = mask
                .as_sockaddr_in6()
                .map_or(128, |mask| u128::from(mask.ip()).count_ones());
            Some((v6.ip().into(), ones))
        } else {
            None
        };
        if let Some((address, length)) = address.filter(|(address, _)| !address.is_loopback()) {
            cards
                .entry(entry.interface_name)
                .or_default()
                .push(format!("{address}/{length}"));
        }
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_large_enough_is_not_warned_of() {
        // 8 GiB as a virtual machine shows them.
        let enough = memory("MemTotal:        8132180 kB\nMemFree: 1 kB\n");
        let machine = Machine {
            processors: Some(4),
            memory: enough,
            largest_disk: Some(80_000_000_000),
        };
        assert_eq!(machine.warnings(), Vec::<String>::new());
        assert_eq!(Machine::default().warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_small_machine_is_told_what_it_lacks() {
        let machine = Machine {
            processors: Some(2),
            memory: Some(768 << 20),
            largest_disk: Some(0),
        };
        assert_eq!(
            machine.warnings(),
            [
                "2 CPUs: at least 4 are needed",
                "0.8 GB of RAM: at least 8 are needed",
                "no disk: one of at least 80 GB is needed"
            ]
        );
    }

    #[test]
    fn removable_disks_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        for (name, removable, sectors) in [
            ("sda", 0, 1000),
            ("sdb", 1, 9000),
            ("loop0", 0, 9000),
            ("sda1", 2, 1),
        ] {
            let about = dir.path().join("sys/class/block").join(name);
            fs::create_dir_all(&about).unwrap();
            fs::write(about.join("size"), format!("{sectors}\n")).unwrap();
            fs::write(about.join("removable"), format!("{removable}\n")).unwrap();
        }
        assert_eq!(largest_disk(&Paths::below(dir.path())), Some(512_000));
    }
}
