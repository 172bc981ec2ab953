//! Writes files so that a reader sees the old text or the new, never half of one.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result};

/// Replaces the file. `group` owns it beside root where it is given.
pub(crate) fn write(path: &Path, text: &[u8], mode: u32, group: Option<u32>) -> Result<()> {
    let name = path.file_name().context("a file to write needs a name")?;
    // The suffix comes last: networkd and chrony read every file of a directory that ends as theirs do.
    let temporary = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
    let written = place(&temporary, path, text, mode, group);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn place(temporary: &Path, path: &Path, text: &[u8], mode: u32, group: Option<u32>) -> Result<()> {
    let _ = fs::remove_file(temporary);
    // Created closed and opened up only when the owner is right.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .with_context(|| format!("creating {}", temporary.display()))?;
    file.write_all(text)
        .with_context(|| format!("writing {} (is the file system full?)", temporary.display()))?;
    if let Some(group) = group {
        chown(temporary, None, Some(group))
            .with_context(|| format!("giving {} to group {group}", temporary.display()))?;
    }
    fs::set_permissions(
        temporary,
        std::os::unix::fs::PermissionsExt::from_mode(mode),
    )
    .with_context(|| format!("setting the mode of {}", temporary.display()))?;
    fs::rename(temporary, path)
        .with_context(|| format!("renaming {} to {}", temporary.display(), path.display()))
}

/// Reads at most `most` bytes; a larger file is an error, not a cut-off text.
pub(crate) fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    // Not blocking: the path may turn out to be a pipe that somebody put there.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    let kind = file
        .metadata()
        .with_context(|| format!("looking at {}", path.display()))?;
    anyhow::ensure!(
        kind.is_file(),
        "reading {}: it is not a file",
        path.display()
    );
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(
        bytes.len() as u64 <= most,
        "reading {}: it is larger than {most} bytes",
        path.display()
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sources");
        write(&path, b"one", 0o640, None).unwrap();
        write(&path, b"two", 0o644, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o644
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn says_which_path_failed() {
        let error = write(Path::new("/nonexistent/a"), b"", 0o644, None).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/.a.new"), "{error}");
    }

    #[test]
    fn reading_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        assert!(
            read_bounded(&path, 4)
                .unwrap_err()
                .to_string()
                .contains("larger than 4")
        );
        assert!(
            read_bounded(dir.path(), 4)
                .unwrap_err()
                .to_string()
                .contains("not a file")
        );
    }
}
