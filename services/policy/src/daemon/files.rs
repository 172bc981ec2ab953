//! Writes files so that a reader sees the old text or the new, never half of one, and so that what was reported as
//! written is there after a power cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}{}", path.display(), hint(source))]
pub(crate) struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(crate) fn of(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            doing,
            path,
            source,
        }
    }

    pub(crate) fn is_absence(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free space there, nothing was changed",
        io::ErrorKind::PermissionDenied => "; it must be open to the user clawgress-policy",
        _ => "",
    }
}

/// Text that lies ready beside its file. Dropped without `place`, it is gone.
#[derive(Debug)]
pub(crate) struct Staged {
    temporary: PathBuf,
    path: PathBuf,
    placed: bool,
}

impl Staged {
    /// Writes and syncs everything that can fail for lack of space.
    pub(crate) fn write(path: &Path, text: &[u8], mode: u32) -> Result<Self, FileError> {
        let staged = Self {
            temporary: beside(path),
            path: path.to_owned(),
            placed: false,
        };
        let temporary = &staged.temporary;
        remove(temporary)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)
            .map_err(FileError::of("creating", temporary))?;
        file.write_all(text)
            .map_err(FileError::of("writing", temporary))?;
        file.set_permissions(fs::Permissions::from_mode(mode))
            .map_err(FileError::of("setting the mode of", temporary))?;
        file.sync_all()
            .map_err(FileError::of("syncing", temporary))?;
        Ok(staged)
    }

    /// Makes it the file; on disk when this returns.
    pub(crate) fn place(mut self) -> Result<(), FileError> {
        fs::rename(&self.temporary, &self.path).map_err(FileError::of("replacing", &self.path))?;
        self.placed = true;
        sync_directory_of(&self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            // What stays behind is replaced by the next that is staged.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

pub(crate) fn write(path: &Path, text: &[u8], mode: u32) -> Result<(), FileError> {
    Staged::write(path, text, mode)?.place()
}

/// Replaces the link at `path` by one to `target`; on disk when this returns.
pub(crate) fn link(target: &Path, path: &Path) -> Result<(), FileError> {
    let temporary = beside(path);
    remove(&temporary)?;
    std::os::unix::fs::symlink(target, &temporary)
        .map_err(FileError::of("creating the link", &temporary))?;
    fs::rename(&temporary, path).map_err(FileError::of("replacing", path))?;
    sync_directory_of(path)
}

/// Absence is what was wanted.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::of("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Reads at most `most` bytes; a larger file is an error, not a text cut off.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(FileError::of("opening", path))?;
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(FileError::of("reading", path))?;
    if bytes.len() as u64 > most {
        let error = io::Error::other(format!("it is larger than {most} bytes"));
        return Err(FileError::of("reading", path)(error));
    }
    Ok(bytes)
}

/// Like `read`, but a file that is not there is `None`.
pub(crate) fn read_if_there(path: &Path, most: u64) -> Result<Option<Vec<u8>>, FileError> {
    match read(path, most) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}

fn beside(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    path.with_file_name(format!(".{name}.new"))
}

fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(FileError::of("syncing", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_staged_and_not_placed_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.json");
        write(&path, b"old", 0o640).unwrap();
        drop(Staged::write(&path, b"new", 0o640).unwrap());
        assert_eq!(read(&path, 10).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_remainder_of_a_crash_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n");
        fs::write(directory.path().join(".n.new"), "half").unwrap();
        write(&path, b"whole", 0o600).unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"whole");
        link(Path::new("7.json"), &directory.path().join("boot.json")).unwrap();
        link(Path::new("8.json"), &directory.path().join("boot.json")).unwrap();
        let target = fs::read_link(directory.path().join("boot.json")).unwrap();
        assert_eq!(target, Path::new("8.json"));
    }

    #[test]
    fn size_and_absence_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n");
        assert!(read_if_there(&path, 3).unwrap().is_none());
        write(&path, b"four", 0o600).unwrap();
        assert!(
            read(&path, 3)
                .unwrap_err()
                .to_string()
                .contains("larger than 3 bytes")
        );
    }
}
