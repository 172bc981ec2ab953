//! Files that are whole or absent, and that are there after a power cut once they were reported as written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}", path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    fn of(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            doing,
            path,
            source,
        }
    }
}

/// Replaces the file for its owner alone; a reader sees the old content or the new.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!(".{name}.new"));
    let written = (|| {
        // What a crash left behind may have another mode.
        if aside.exists() {
            fs::remove_file(&aside).map_err(FileError::of("removing", &aside))?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)
            .map_err(FileError::of("creating", &aside))?;
        file.write_all(content)
            .and_then(|()| file.sync_all())
            .map_err(FileError::of("writing", &aside))?;
        fs::rename(&aside, path).map_err(FileError::of("replacing", path))
    })();
    if written.is_err() {
        // Whatever is left there is replaced the next time.
        let _ = fs::remove_file(&aside);
        return written;
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(FileError::of("syncing", directory))
}

/// None: it is not there. A file of more than `most` bytes is an error.
pub fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, FileError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(FileError::of("opening", path))?,
    };
    let mut content = Vec::new();
    file.take(most.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(FileError::of("reading", path))?;
    if content.len() as u64 > most {
        let error = io::Error::other(format!("it is larger than {most} bytes"));
        return Err(FileError::of("reading", path)(error));
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_its_owners() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(read(&path, 3).unwrap(), None);
        fs::write(
            directory.path().join(".key.new"),
            "half of what a crash left",
        )
        .unwrap();
        for content in [b"old", b"new"] {
            replace(&path, content).unwrap();
            assert_eq!(read(&path, 3).unwrap().unwrap(), content);
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let error = read(&path, 2).unwrap_err().to_string();
        assert!(error.contains("larger than 2 bytes"), "{error}");
        let error = replace(&directory.path().join("no/key"), b"")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("creating "), "{error}");
    }
}
