//! Where revisions lie: their numbers, their files, and which one a boot begins with.
//!
//! A number is on disk before anything is done under it, so no crash makes two things of one number.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::daemon::files::{self, FileError};

/// Files of revisions that are kept, beside the one that a boot begins with.
const KEPT: usize = 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} holds '{text}' where the number of the last revision belongs; write the highest number in use there", path.display())]
    Number { path: PathBuf, text: String },
    #[error("revision numbers are used up")]
    UsedUp,
}

#[derive(Debug, Clone)]
pub(crate) struct Store {
    revisions: PathBuf,
    number: PathBuf,
}

impl Store {
    /// `state` is the daemon's own, `revisions` is read by others too.
    pub(crate) fn new(state: &Path, revisions: &Path) -> Self {
        Self {
            revisions: revisions.to_owned(),
            number: state.join("number"),
        }
    }

    /// The next number, above `floor` and above every number that was ever reserved. Used up by the call, whatever
    /// becomes of it.
    pub(crate) fn reserve(&self, floor: u64) -> Result<u64, StoreError> {
        let number = self.next(floor)?;
        files::write(&self.number, number.to_string().as_bytes(), 0o600)?;
        Ok(number)
    }

    /// What `reserve` would give.
    pub(crate) fn next(&self, floor: u64) -> Result<u64, StoreError> {
        let reserved = match files::read_if_there(&self.number, 64)? {
            None => 0,
            Some(bytes) => {
                let text = String::from_utf8_lossy(&bytes).trim().to_owned();
                text.parse().map_err(|_| StoreError::Number {
                    path: self.number.clone(),
                    text,
                })?
            }
        };
        let written = self.numbers()?.into_iter().max().unwrap_or(0);
        reserved
            .max(written)
            .max(floor)
            .checked_add(1)
            .ok_or(StoreError::UsedUp)
    }

    pub(crate) fn file(&self, number: u64) -> PathBuf {
        self.revisions.join(format!("{number}.json"))
    }

    /// Where a revision lies that is only to be checked.
    pub(crate) fn candidate(&self) -> PathBuf {
        self.revisions.join("candidate.json")
    }

    fn boot_link(&self) -> PathBuf {
        self.revisions.join("boot.json")
    }

    /// The revision that the next boot begins with.
    pub(crate) fn boot(&self) -> Result<Option<u64>, StoreError> {
        let link = self.boot_link();
        match fs::read_link(&link) {
            Ok(target) => Ok(number_of(&target)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::of("reading the link", &link)(error).into()),
        }
    }

    pub(crate) fn mark_boot(&self, number: u64) -> Result<(), StoreError> {
        files::link(Path::new(&format!("{number}.json")), &self.boot_link())?;
        Ok(())
    }

    pub(crate) fn remove(&self, number: u64) -> Result<(), StoreError> {
        Ok(files::remove(&self.file(number))?)
    }

    /// Removes the oldest files; never the one of the next boot.
    pub(crate) fn prune(&self) -> Result<(), StoreError> {
        let boot = self.boot()?;
        let mut numbers = self.numbers()?;
        numbers.sort_unstable();
        let surplus = numbers.len().saturating_sub(KEPT);
        for number in numbers.into_iter().take(surplus) {
            if Some(number) != boot {
                self.remove(number)?;
            }
        }
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let reading = || FileError::of("listing", &self.revisions);
        let entries = fs::read_dir(&self.revisions).map_err(reading())?;
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(reading())?.file_name();
            numbers.extend(number_of(Path::new(&name)));
        }
        Ok(numbers)
    }
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?
        .to_str()?
        .strip_suffix(".json")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let revisions = directory.path().join("revisions");
        fs::create_dir(&revisions).unwrap();
        let store = Store::new(directory.path(), &revisions);
        (directory, store)
    }

    #[test]
    fn numbers_only_rise_whatever_is_lost() {
        let (directory, store) = store();
        assert_eq!(store.reserve(0).unwrap(), 1);
        // Reserved and never used: a crash.
        assert_eq!(store.reserve(0).unwrap(), 2);
        // What the enforcer holds counts, too.
        assert_eq!(store.reserve(40).unwrap(), 41);
        fs::write(store.file(50), "{}").unwrap();
        fs::remove_file(directory.path().join("number")).unwrap();
        assert_eq!(store.reserve(0).unwrap(), 51);
        fs::write(directory.path().join("number"), "x").unwrap();
        let error = store.reserve(0).unwrap_err().to_string();
        assert!(
            error.contains("holds 'x'") && error.contains("highest number"),
            "{error}"
        );
        fs::write(directory.path().join("number"), u64::MAX.to_string()).unwrap();
        assert!(store.reserve(0).is_err());
    }

    #[test]
    fn the_boot_revision_outlives_the_oldest() {
        let (_directory, store) = store();
        assert_eq!(store.boot().unwrap(), None);
        for number in 1..=15 {
            fs::write(store.file(number), "{}").unwrap();
        }
        store.mark_boot(2).unwrap();
        store.prune().unwrap();
        assert_eq!(store.boot().unwrap(), Some(2));
        assert!(store.file(2).exists() && !store.file(1).exists() && !store.file(5).exists());
        assert!(store.file(6).exists());
    }
}
