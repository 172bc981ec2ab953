//! A real directory. Only one process at a time may have it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};

use super::{Disk, DiskError, Sheet};

const LOCK: &str = "lock";

#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: File,
    // Held until the process ends, however it ends.
    _lock: Flock<File>,
}

impl Directory {
    /// Makes the directory if need be; an error of kind `WouldBlock` says that somebody else has it.
    pub fn lock(path: &Path) -> Result<Self, DiskError> {
        let error = |doing| DiskError::of(doing, path.to_owned());
        match fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(path)
        {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error("making the directory")(source));
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(error("opening the lock in"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| error("locking")(errno.into()))?;
        let handle = File::open(path).map_err(error("opening"))?;
        Ok(Self {
            path: path.to_owned(),
            handle,
            _lock: lock,
        })
    }
}

impl Disk for Directory {
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn Sheet>> {
        let path = self.path.join(name);
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        if size > 0 {
            match fallocate(&file, FallocateFlags::empty(), 0, size) {
                // Not every file system can set space aside; there a full disk shows at the write.
                Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                Err(errno) => {
                    // What is left of it is empty, and recovery removes empty files.
                    let _ = fs::remove_file(&path);
                    return Err(errno.into());
                }
            }
        }
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Sheet>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != LOCK {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn place(&self) -> &Path {
        &self.path
    }
}

impl Sheet for File {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
