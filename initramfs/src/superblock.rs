//! What a block device holds, judged by its first bytes alone.
//!
//! Knowing before mounting keeps the kernel from complaining about every device that is not ours.
//! It never mounts and never writes.

use std::fmt;

/// How much of a device must be read to judge it: ISO 9660 starts at 32 KiB.
pub(crate) const NEEDED: usize = 36 * 1024;

/// A file system that the medium may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    Iso9660,
    Vfat,
    Ext4,
}

impl FileSystem {
    /// The kernel's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Iso9660 => "iso9660",
            Self::Vfat => "vfat",
            Self::Ext4 => "ext4",
        }
    }

    /// Modules that mounting it may need.
    pub(crate) fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Iso9660 => &["isofs"],
            Self::Vfat => &["nls_cp437", "nls_ascii", "nls_iso8859-1", "vfat"],
            Self::Ext4 => &["ext4"],
        }
    }

    /// Mount options: a journal must not be replayed on a disk that is only being looked at, and its superblock must
    /// not decide that an error in it is this machine's panic.
    pub(crate) fn options(self) -> Option<&'static str> {
        match self {
            Self::Ext4 => Some("noload,errors=continue"),
            Self::Iso9660 | Self::Vfat => None,
        }
    }
}

/// The verdict on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Known(FileSystem),
    /// Recognised, but nothing a medium of ours could be.
    Other(&'static str),
    Unknown,
    /// Not one byte but zeros.
    Blank,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(known) => f.write_str(known.name()),
            Self::Other(name) => f.write_str(name),
            Self::Unknown => f.write_str("unknown content"),
            Self::Blank => f.write_str("blank"),
        }
    }
}

/// Judges the first [`NEEDED`] bytes of a device, or all it has if it is smaller.
pub(crate) fn detect(head: &[u8]) -> Content {
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    // A hybrid ISO also carries a partition table, so ISO 9660 is asked first.
    if at(32769, b"CD001") {
        Content::Known(FileSystem::Iso9660)
    } else if at(1080, &[0x53, 0xef]) {
        Content::Known(FileSystem::Ext4)
    } else if at(0, b"hsqs") {
        Content::Other("a bare squashfs")
    } else if at(0, b"LUKS\xba\xbe") {
        Content::Other("encrypted (LUKS)")
    } else if at(0, b"XFSB") {
        Content::Other("xfs")
    } else if at(3, b"NTFS    ") {
        Content::Other("ntfs")
    } else if at(3, b"EXFAT   ") {
        Content::Other("exfat")
    } else if at(4086, b"SWAPSPACE2") {
        Content::Other("swap space")
    } else if at(536, b"LVM2 001") {
        Content::Other("an LVM volume")
    } else if at(510, &[0x55, 0xaa]) && (at(82, b"FAT32   ") || at(54, b"FAT1")) {
        Content::Known(FileSystem::Vfat)
    } else if at(512, b"EFI PART") || at(510, &[0x55, 0xaa]) {
        Content::Other("a partition table")
    } else if head.iter().all(|byte| *byte == 0) {
        Content::Blank
    } else {
        Content::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(marks: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; NEEDED];
        for (offset, magic) in marks {
            head[*offset..*offset + magic.len()].copy_from_slice(magic);
        }
        head
    }

    const BOOTABLE: (usize, &[u8]) = (510, &[0x55, 0xaa]);

    #[test]
    fn each_file_system_by_its_mark() {
        for (marks, expected) in [
            (vec![(32769, &b"CD001"[..])], "iso9660"),
            (vec![BOOTABLE, (32769, b"CD001")], "iso9660"),
            (vec![BOOTABLE, (82, b"FAT32   ")], "vfat"),
            (vec![BOOTABLE, (54, b"FAT16   ")], "vfat"),
            (vec![(82, b"FAT32   ")], "unknown content"),
            (vec![(1080, &[0x53, 0xef])], "ext4"),
            (vec![BOOTABLE], "a partition table"),
            (vec![BOOTABLE, (3, b"NTFS    ")], "ntfs"),
            (vec![(0, b"hsqs")], "a bare squashfs"),
            (vec![(4086, b"SWAPSPACE2")], "swap space"),
            (vec![(7, b"x")], "unknown content"),
            (vec![], "blank"),
        ] {
            assert_eq!(detect(&with(&marks)).to_string(), expected, "{marks:?}");
        }
    }

    #[test]
    fn real_file_systems_made_by_their_own_tools() {
        let directory = tempfile::tempdir().unwrap();
        for (tool, arguments, expected) in [
            ("mkfs.ext4", &["-q", "-F"][..], FileSystem::Ext4),
            ("mkfs.vfat", &["-F", "16"], FileSystem::Vfat),
            ("mkfs.vfat", &["-F", "32"], FileSystem::Vfat),
        ] {
            let image = directory.path().join("image");
            let file = std::fs::File::create(&image).unwrap();
            file.set_len(64 << 20).unwrap();
            let status = std::process::Command::new(tool)
                .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
                .args(arguments)
                .arg(&image)
                .output()
                .unwrap_or_else(|error| {
                    panic!("{tool}: {error}; install e2fsprogs and dosfstools")
                });
            assert!(status.status.success(), "{tool}: {status:?}");
            let head = std::fs::read(&image).unwrap();
            assert_eq!(detect(&head[..NEEDED]), Content::Known(expected), "{tool}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics_on_short_devices(length in 0_usize..NEEDED) {
            assert_eq!(detect(&vec![0; length]), Content::Blank);
        }
    }
}
