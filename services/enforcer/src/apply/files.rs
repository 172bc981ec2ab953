//! The generated files: written aside first, where they are checked; then only those that differ are put in place,
//! each in one step.
//!
//! Owns everything below its two directories and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Readable by the daemons through their group.
const FILE: u32 = 0o640;
const DIRECTORY: u32 = 0o750;

#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}", path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError {
        doing,
        path,
        source,
    }
}

/// Files by their path below a directory.
pub type Tree = BTreeMap<String, String>;

/// Writes a whole tree into a directory, in place of whatever it held.
pub fn write_fresh(directory: &Path, tree: &Tree, group: Option<u32>) -> Result<(), FileError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("emptying", directory)(error));
        }
        _ => {}
    }
    make_directory(directory, group)?;
    for (name, text) in tree {
        let path = directory.join(name);
        make_parents(directory, &path, group)?;
        write(&path, text, group)?;
    }
    Ok(())
}

/// Puts every file in place that is not there already with this text; the names of those are returned. What is there
/// beside them is left alone.
pub fn place(directory: &Path, tree: &Tree, group: Option<u32>) -> Result<Vec<String>, FileError> {
    make_directory(directory, group)?;
    let mut changed = Vec::new();
    for (name, text) in tree {
        let path = directory.join(name);
        if fs::read(&path).is_ok_and(|present| present == text.as_bytes()) {
            continue;
        }
        make_parents(directory, &path, group)?;
        // Beside it, so that the rename stays within one file system.
        let aside = path.with_extension("new");
        write(&aside, text, group)?;
        fs::rename(&aside, &path).map_err(failed("putting in place", &path))?;
        changed.push(name.clone());
    }
    Ok(changed)
}

/// Removes the files of a directory that are not named.
pub fn keep_only(directory: &Path, names: &[&str]) -> Result<(), FileError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("listing", directory)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed("listing", directory))?;
        if !names.iter().any(|name| entry.file_name() == *name) {
            fs::remove_file(entry.path()).map_err(failed("removing", &entry.path()))?;
        }
    }
    Ok(())
}

fn make_parents(directory: &Path, path: &Path, group: Option<u32>) -> Result<(), FileError> {
    match path.parent() {
        Some(parent) if parent != directory && !parent.exists() => make_directory(parent, group),
        _ => Ok(()),
    }
}

fn make_directory(path: &Path, group: Option<u32>) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(failed("making", path))?;
    admit(path, DIRECTORY, group)
}

fn write(path: &Path, text: &str, group: Option<u32>) -> Result<(), FileError> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(failed("writing", path))?;
    file.write_all(text.as_bytes())
        .map_err(failed("writing (is the file system full?)", path))?;
    admit(path, FILE, group)
}

/// Lets the daemons' group in; the mode comes last, when the group is right.
pub fn admit(path: &Path, mode: u32, group: Option<u32>) -> Result<(), FileError> {
    if let Some(group) = group {
        chown(path, None, Some(group)).map_err(failed("giving to the daemons' group", path))?;
    }
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, mode).map_err(failed("setting the mode of", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        files.iter().map(owned).collect()
    }

    #[test]
    fn only_what_differs_is_put_in_place() {
        let scratch = tempfile::tempdir().unwrap();
        let at = scratch.path().join("run");
        let first = tree(&[("named.conf", "a"), ("zones/rpz1.zone", "b")]);
        let all = place(&at, &first, None).unwrap();
        assert_eq!(all, ["named.conf", "zones/rpz1.zone"]);
        let inode = fs::metadata(at.join("named.conf")).unwrap().ino();
        let second = tree(&[("named.conf", "a"), ("zones/rpz1.zone", "c")]);
        assert_eq!(place(&at, &second, None).unwrap(), ["zones/rpz1.zone"]);
        assert_eq!(fs::metadata(at.join("named.conf")).unwrap().ino(), inode);
        assert_eq!(fs::read(at.join("zones/rpz1.zone")).unwrap(), b"c");
        let mode = fs::metadata(at.join("named.conf")).unwrap().mode();
        assert_eq!(mode & 0o777, FILE);
    }

    #[test]
    fn a_fresh_tree_holds_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let at = scratch.path().join("check");
        write_fresh(&at, &tree(&[("zones/old.zone", "x")]), None).unwrap();
        write_fresh(&at, &tree(&[("zones/new.zone", "y")]), None).unwrap();
        assert!(!at.join("zones/old.zone").exists());
        place(&at, &tree(&[("zones/more.zone", "z")]), None).unwrap();
        keep_only(&at.join("zones"), &["more.zone"]).unwrap();
        let left: Vec<_> = fs::read_dir(at.join("zones")).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn an_error_names_the_path() {
        let error = place(Path::new("/proc/nowhere"), &tree(&[("a", "b")]), None).unwrap_err();
        assert!(error.to_string().contains("/proc/nowhere"), "{error}");
    }
}
