//! The little that queue and store ask of a disk, so that tests can put one there that loses power at every step.
//!
//! A name is durable only after [`Disk::sync_names`], bytes only after [`Sheet::sync`]; whatever is not, may be there
//! after a power cut in any part.

mod real;
#[cfg(test)]
pub(crate) mod simulated;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use real::Directory;

/// One flat directory.
pub trait Disk: Send + Sync + 'static {
    /// Makes an empty file with room for `size` bytes set aside, so that writing them can't fail for lack of space.
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn Sheet>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn Sheet>>;
    fn names(&self) -> io::Result<Vec<String>>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn sync_names(&self) -> io::Result<()>;
    /// For messages.
    fn place(&self) -> &Path;
}

/// One file.
pub trait Sheet: Send + Sync + 'static {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Fills `bytes` as far as the file reaches and tells how far that was.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn truncate(&self, size: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}{}", path.display(), hint(source))]
pub struct DiskError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl DiskError {
    pub fn of(doing: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            doing,
            path,
            source,
        }
    }

    /// Somebody else has the lock.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::WouldBlock
    }

    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free space there",
        io::ErrorKind::PermissionDenied => "; it must belong to the user of this service",
        io::ErrorKind::WouldBlock => "; another process has it, and two must not write there",
        _ => "",
    }
}

pub(crate) fn read_all(sheet: &dyn Sheet) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(sheet.len()?).unwrap_or(usize::MAX)];
    let filled = sheet.read_at(0, &mut bytes)?;
    bytes.truncate(filled);
    Ok(bytes)
}
