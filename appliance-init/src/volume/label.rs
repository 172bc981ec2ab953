//! Labels of file systems, from the first bytes of a device. Pure: takes a reader, returns what it says.
//!
//! Udev's links are not asked: at this time of the boot they may not be there yet.

use std::io::{Read, Result, Seek, SeekFrom};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labelled {
    /// As the kernel names the file system.
    pub(super) kind: &'static str,
    pub(super) label: String,
}

fn at<R: Read + Seek>(device: &mut R, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    device.seek(SeekFrom::Start(offset))?;
    device.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
}

/// File system and label, if the device holds one of those that a configuration volume may have.
pub(super) fn label<R: Read + Seek>(device: &mut R) -> Option<Labelled> {
    ext(device)
        .or_else(|| iso9660(device))
        .or_else(|| fat(device))
}

fn ext<R: Read + Seek>(device: &mut R) -> Option<Labelled> {
    let superblock = at(device, 1024, 264).ok()?;
    // The ext4 driver mounts its ancestors too.
    (superblock[56..58] == [0x53, 0xef]).then(|| Labelled {
        kind: "ext4",
        label: text(&superblock[120..136]),
    })
}

fn iso9660<R: Read + Seek>(device: &mut R) -> Option<Labelled> {
    let descriptor = at(device, 32_768, 72).ok()?;
    (descriptor[..6] == *b"\x01CD001").then(|| Labelled {
        kind: "iso9660",
        label: text(&descriptor[40..72]),
    })
}

fn fat<R: Read + Seek>(device: &mut R) -> Option<Labelled> {
    let boot = at(device, 0, 512).ok()?;
    let is_32 = boot[82..87] == *b"FAT32";
    let is_16 = boot[54..57] == *b"FAT";
    if boot[510..] != [0x55, 0xaa] || !(is_32 || is_16) {
        return None;
    }
    let in_boot_sector = if is_32 { &boot[71..82] } else { &boot[43..54] };
    // Some systems write the label into the root directory alone; it is the one that people see.
    let label = root_label(device, &boot, is_32).unwrap_or_else(|| text(in_boot_sector));
    Some(Labelled {
        kind: "vfat",
        label,
    })
}

/// The label entry of a FAT root directory, looked for in its first 16 KiB.
fn root_label<R: Read + Seek>(device: &mut R, boot: &[u8], is_32: bool) -> Option<String> {
    let two = |offset: usize| u64::from(u16::from_le_bytes([boot[offset], boot[offset + 1]]));
    let four = |offset: usize| two(offset) | two(offset + 2) << 16;
    let (sector, reserved, fats) = (two(11), two(14), u64::from(boot[16]));
    let fat_size = if is_32 { four(36) } else { two(22) };
    let after_fats = reserved + fats * fat_size;
    let first = if is_32 {
        after_fats + four(44).checked_sub(2)? * u64::from(boot[13])
    } else {
        after_fats
    };
    let entries = if is_32 {
        u64::from(boot[13]) * sector / 32
    } else {
        two(17)
    };
    let length = usize::try_from((entries * 32).min(16 * 1024)).ok()?;
    let directory = at(device, first * sector, length).ok()?;
    directory
        .chunks_exact(32)
        .take_while(|entry| entry[0] != 0)
        // A label has its own attribute; parts of long names carry it among others.
        .find(|entry| entry[0] != 0xe5 && entry[11] & 0x3f == 0x08)
        .map(|entry| text(&entry[..11]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn device(parts: &[(usize, &[u8])]) -> Cursor<Vec<u8>> {
        let mut bytes = vec![0; 64 * 1024];
        for (offset, part) in parts {
            bytes[*offset..offset + part.len()].copy_from_slice(part);
        }
        Cursor::new(bytes)
    }

    fn found(parts: &[(usize, &[u8])]) -> Option<(&'static str, String)> {
        label(&mut device(parts)).map(|found| (found.kind, found.label))
    }

    #[test]
    fn each_kind_is_known() {
        let ext = found(&[(1024 + 56, &[0x53, 0xef]), (1024 + 120, b"CLAWGRESS-CFG")]);
        assert_eq!(ext, Some(("ext4", "CLAWGRESS-CFG".into())));
        let iso = found(&[
            (32_768, b"\x01CD001\x01"),
            (32_808, b"CLAWGRESS-CFG                   "),
        ]);
        assert_eq!(iso, Some(("iso9660", "CLAWGRESS-CFG".into())));
        let fat = found(&[
            (43, b"CLAWGRESS-C"),
            (54, b"FAT16   "),
            (510, &[0x55, 0xaa]),
        ]);
        assert_eq!(fat, Some(("vfat", "CLAWGRESS-C".into())));
        let fat = found(&[
            (71, b"CLAWGRESS-C"),
            (82, b"FAT32   "),
            (510, &[0x55, 0xaa]),
        ]);
        assert_eq!(fat, Some(("vfat", "CLAWGRESS-C".into())));
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn the_label_of_a_fat_root_directory_wins() {
        // 512-byte sectors, 1 reserved, 2 FATs of 8 sectors, 16 root entries.
        let mut boot = vec![0_u8; 512];
        boot[11..13].copy_from_slice(&512_u16.to_le_bytes());
        boot[14] = 1;
        boot[16] = 2;
        boot[17] = 16;
        boot[22] = 8;
        boot[43..54].copy_from_slice(b"NO NAME    ");
        boot[54..59].copy_from_slice(b"FAT12");
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        let mut entries = b"BOOT    CFG\x20".to_vec();
        entries.resize(32, 0);
        entries.extend(b"CLAWGRESS-C\x08");
        let fat = found(&[(0, &boot), (17 * 512, &entries)]);
        assert_eq!(fat, Some(("vfat", "CLAWGRESS-C".into())));
    }

    #[test]
    fn short_devices_have_no_label() {
        assert_eq!(label(&mut Cursor::new(vec![0; 100])), None);
        assert_eq!(label(&mut Cursor::new(Vec::new())), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(head in prop::collection::vec(any::<u8>(), 512..2048)) {
            let mut bytes = head;
            bytes[510] = 0x55;
            bytes[511] = 0xaa;
            for magic in [(54, b"FAT16"), (82, b"FAT32")] {
                bytes[magic.0..magic.0 + 5].copy_from_slice(magic.1);
                let _ = label(&mut Cursor::new(bytes.clone()));
            }
        }
    }
}
