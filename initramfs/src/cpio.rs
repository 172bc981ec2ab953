//! A writer for the `newc` archive that the kernel unpacks as its initramfs.
//!
//! The same entries give the same bytes: entries are sorted by path, inode numbers count from 1,
//! owner is root, the one modification time is handed in. It never reads the file system.

use std::collections::BTreeMap;

/// Why an archive can't be written.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    #[error("writing initramfs entry {path}: {size} bytes are more than the archive format holds")]
    TooLarge { path: String, size: usize },
    #[error("writing initramfs entry {path}: the path must be relative, clean and not empty")]
    BadPath { path: String },
    #[error(
        "writing initramfs entry {path}: it is given twice, or once as a directory and once not"
    )]
    Twice { path: String },
}

/// What an entry is; permissions are the low twelve bits of the mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Symlink { target: String },
    CharDevice { mode: u32, major: u32, minor: u32 },
}

/// An archive being filled; missing parent directories come by themselves (mode 755).
#[derive(Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Adds one entry at a path such as `bin/busybox`.
    pub fn add(&mut self, path: &str, entry: Entry) -> Result<(), CpioError> {
        let clean = !path.is_empty()
            && !path.contains('\0')
            && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !clean {
            return Err(CpioError::BadPath {
                path: path.to_owned(),
            });
        }
        for (end, _) in path.match_indices('/') {
            let parent = path.get(..end).unwrap_or_default();
            let known = self
                .entries
                .entry(parent.to_owned())
                .or_insert(Entry::Directory { mode: 0o755 });
            if !matches!(known, Entry::Directory { .. }) {
                return Err(CpioError::Twice {
                    path: parent.to_owned(),
                });
            }
        }
        match (self.entries.get(path), &entry) {
            // A directory that came by itself may be given its own mode later.
            (None, _) | (Some(Entry::Directory { .. }), Entry::Directory { .. }) => {
                self.entries.insert(path.to_owned(), entry);
                Ok(())
            }
            _ => Err(CpioError::Twice {
                path: path.to_owned(),
            }),
        }
    }

    /// The archive's bytes, uncompressed, every entry dated `mtime`.
    pub fn write(&self, mtime: u32) -> Result<Vec<u8>, CpioError> {
        let content: usize = self.entries.values().map(|entry| body(entry).len()).sum();
        let mut bytes = Vec::with_capacity(content.saturating_add(self.entries.len() * 160));
        let mut inode = 0_u32;
        for (path, entry) in &self.entries {
            inode = inode.saturating_add(1);
            record(&mut bytes, inode, path, entry, mtime)?;
        }
        record(
            &mut bytes,
            0,
            "TRAILER!!!",
            &Entry::File {
                mode: 0,
                content: Vec::new(),
            },
            0,
        )?;
        Ok(bytes)
    }
}

fn body(entry: &Entry) -> &[u8] {
    match entry {
        Entry::File { content, .. } => content,
        Entry::Symlink { target } => target.as_bytes(),
        Entry::Directory { .. } | Entry::CharDevice { .. } => &[],
    }
}

fn record(
    bytes: &mut Vec<u8>,
    inode: u32,
    path: &str,
    entry: &Entry,
    mtime: u32,
) -> Result<(), CpioError> {
    let too_large = |size| CpioError::TooLarge {
        path: path.to_owned(),
        size,
    };
    let body = body(entry);
    let size = u32::try_from(body.len()).map_err(|_| too_large(body.len()))?;
    let name_size =
        u32::try_from(path.len().saturating_add(1)).map_err(|_| too_large(path.len()))?;
    let (mode, links, major, minor) = match entry {
        // The trailer is a file of mode 0 and must keep it.
        Entry::File { mode: 0, .. } => (0, 1, 0, 0),
        Entry::File { mode, .. } => (0o100_000 | mode, 1, 0, 0),
        Entry::Directory { mode } => (0o040_000 | mode, 2, 0, 0),
        Entry::Symlink { .. } => (0o120_777, 1, 0, 0),
        Entry::CharDevice { mode, major, minor } => (0o020_000 | mode, 1, *major, *minor),
    };
    // magic, then: inode mode uid gid links mtime size devmajor devminor rdevmajor rdevminor
    // namesize check
    bytes.extend_from_slice(b"070701");
    for field in [
        inode, mode, 0, 0, links, mtime, size, 0, 0, major, minor, name_size, 0,
    ] {
        bytes.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(body);
    pad(bytes);
    Ok(())
}

/// Names and contents start at multiples of four.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> Entry {
        Entry::File {
            mode: 0o644,
            content: content.to_vec(),
        }
    }

    #[test]
    fn order_of_adding_does_not_matter() {
        let mut one = Archive::default();
        one.add("b/x", file(b"1")).unwrap();
        one.add("a", file(b"2")).unwrap();
        let mut two = Archive::default();
        two.add("a", file(b"2")).unwrap();
        two.add("b", Entry::Directory { mode: 0o755 }).unwrap();
        two.add("b/x", file(b"1")).unwrap();
        assert_eq!(one.write(9).unwrap(), two.write(9).unwrap());
        assert_ne!(one.write(9).unwrap(), two.write(10).unwrap());
    }

    #[test]
    fn header_of_one_file_byte_by_byte() {
        let mut archive = Archive::default();
        archive.add("hi", file(b"abcde")).unwrap();
        let bytes = archive.write(0x1234).unwrap();
        let header = "070701\
             00000001000081A40000000000000000000000010000123400000005\
             00000000000000000000000000000000\
             0000000300000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..124], b"hi\0\0\0\0abcde\0\0\0");
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn refuses_paths_that_would_surprise() {
        let mut archive = Archive::default();
        for path in ["", "/a", "a/", "a//b", "../a", "a/./b", "a\0"] {
            assert!(
                matches!(archive.add(path, file(b"")), Err(CpioError::BadPath { .. })),
                "{path:?}"
            );
        }
        archive.add("a", file(b"")).unwrap();
        for entry in [Entry::Directory { mode: 0o755 }, file(b"")] {
            assert!(matches!(
                archive.add("a", entry),
                Err(CpioError::Twice { .. })
            ));
        }
        assert!(matches!(
            archive.add("a/below-a-file", file(b"")),
            Err(CpioError::Twice { .. })
        ));
    }
}
