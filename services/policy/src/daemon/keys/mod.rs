//! Who may ask: API keys, made on the console, kept as keyed hashes, revoked at once.
//!
//! Never holds a secret after it was told, and never learns from the network that a key exists.

mod guesses;
mod secret;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use clawgress_link::admin::{Key, NewKey, Role};
use serde::{Deserialize, Serialize};

use crate::daemon::files::{self, FileError};

pub(crate) use guesses::Guesses;
use secret::{Fresh, NoRandomness, Pepper};

/// Keys in use at once, and as many revoked ones that are still shown.
const MOST: usize = 256;
/// Far above the file of so many.
const LARGEST_FILE: u64 = 1024 * 1024;
const LONGEST_NAME: usize = 64;
/// The last use is noted on disk no more often.
const NOTE_EVERY: i64 = 60;

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("{} is no table of keys ({why}); restore it, or remove it and make new keys", path.display())]
    Table { path: PathBuf, why: String },
    #[error("{} does not hold {} bytes; restore it, or remove it and {} and make new keys", path.display(), Pepper::BYTES, table.display())]
    Pepper { path: PathBuf, table: PathBuf },
    #[error("there are {MOST} keys; revoke some first: clawgress key list")]
    Full,
    #[error(
        "the name '{0}' is unfit: 1 to {LONGEST_NAME} letters, digits, spaces or any of . _ - @"
    )]
    Name(String),
    #[error("no key in use has the id '{0}'; see clawgress key list")]
    Unknown(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    name: String,
    role: Role,
    created: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<i64>,
    hash: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    keys: Vec<Entry>,
}

pub(crate) struct Keys {
    path: PathBuf,
    pepper: Pepper,
    /// Matched against where no entry has the id, so that a wrong id takes as long as a wrong secret.
    decoy: String,
    inner: Mutex<Inner>,
}

struct Inner {
    table: Table,
    noted: i64,
}

/// Whom a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) id: String,
    pub(crate) role: Role,
}

impl Keys {
    /// Opens the table below `state`; the server's half is made at the first start.
    pub(crate) fn open(state: &Path) -> Result<Self, KeysError> {
        let path = state.join("keys.json");
        let table = match files::read_if_there(&path, LARGEST_FILE)? {
            None => Table::default(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| KeysError::Table {
                path: path.clone(),
                why: error.to_string(),
            })?,
        };
        let pepper_path = state.join("server.key");
        let pepper = match files::read_if_there(&pepper_path, 1024)? {
            Some(bytes) => bytes.try_into().map_err(|_| KeysError::Pepper {
                path: pepper_path,
                table: path.clone(),
            })?,
            // Hashes without the half that made them can never match again: that is a loss to be told, not a first start.
            None if !table.keys.is_empty() => {
                return Err(KeysError::Pepper {
                    path: pepper_path,
                    table: path,
                });
            }
            None => {
                let bytes = secret::random()?;
                files::write(&pepper_path, &bytes, 0o600)?;
                bytes
            }
        };
        let pepper = Pepper::of(&pepper);
        Ok(Self {
            decoy: pepper.hash("a key that nobody has"),
            path,
            pepper,
            inner: Mutex::new(Inner { table, noted: 0 }),
        })
    }

    /// False until the first key was made; revoking the last one does not lead back.
    pub(crate) fn were_ever_made(&self) -> bool {
        !self.lock().table.keys.is_empty()
    }

    pub(crate) fn create(&self, name: &str, role: Role, now: i64) -> Result<NewKey, KeysError> {
        let fits = |letter: char| letter.is_alphanumeric() || " ._-@".contains(letter);
        let length = name.chars().count();
        if length == 0 || length > LONGEST_NAME || !name.chars().all(fits) {
            let shown = name.chars().take(LONGEST_NAME).collect();
            return Err(KeysError::Name(shown));
        }
        let mut inner = self.lock();
        let keys = &inner.table.keys;
        if keys.iter().filter(|key| key.revoked.is_none()).count() >= MOST {
            return Err(KeysError::Full);
        }
        let fresh = loop {
            let fresh = Fresh::make()?;
            if keys.iter().all(|key| key.id != fresh.id) {
                break fresh;
            }
        };
        let entry = Entry {
            id: fresh.id,
            name: name.to_owned(),
            role,
            created: now,
            last_used: None,
            revoked: None,
            hash: self.pepper.hash(&fresh.text),
        };
        let about = shown(&entry);
        let mut keys = inner.table.keys.clone();
        forget_oldest_revoked(&mut keys);
        keys.push(entry);
        self.replace(&mut inner, keys)?;
        Ok(NewKey {
            key: fresh.text,
            about,
        })
    }

    pub(crate) fn list(&self) -> Vec<Key> {
        self.lock().table.keys.iter().map(shown).collect()
    }

    pub(crate) fn revoke(&self, id: &str, now: i64) -> Result<Key, KeysError> {
        let mut inner = self.lock();
        let mut keys = inner.table.keys.clone();
        let key = keys
            .iter_mut()
            .find(|key| key.id == id && key.revoked.is_none())
            .ok_or_else(|| KeysError::Unknown(id.chars().take(LONGEST_NAME).collect()))?;
        key.revoked = Some(now);
        let about = shown(key);
        self.replace(&mut inner, keys)?;
        Ok(about)
    }

    /// Whose key this is, if it is one in use.
    pub(crate) fn holder(&self, text: &str, now: i64) -> Option<Holder> {
        let id = secret::id_of(text);
        let mut inner = self.lock();
        let entry = inner
            .table
            .keys
            .iter_mut()
            .find(|key| Some(key.id.as_str()) == id && key.revoked.is_none());
        let hash = entry.as_ref().map_or(&self.decoy, |entry| &entry.hash);
        let matches = self.pepper.matches(text, hash);
        let entry = entry.filter(|_| matches)?;
        entry.last_used = Some(now);
        let holder = Holder {
            id: entry.id.clone(),
            role: entry.role,
        };
        if (now - inner.noted).abs() >= NOTE_EVERY {
            inner.noted = now;
            // A full disk is no reason to turn a right key away.
            if let Err(error) = self.write(&inner.table) {
                tracing::warn!("noting the last use of a key: {error}");
            }
        }
        Some(holder)
    }

    /// On disk first, so that what was answered holds.
    fn replace(&self, inner: &mut Inner, keys: Vec<Entry>) -> Result<(), KeysError> {
        let table = Table { keys };
        self.write(&table)?;
        inner.table = table;
        Ok(())
    }

    fn write(&self, table: &Table) -> Result<(), FileError> {
        let text = serde_json::to_vec_pretty(table)
            .map_err(|error| FileError::of("writing", &self.path)(error.into()))?;
        files::write(&self.path, &text, 0o600)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here leaves the table half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(entry: &Entry) -> Key {
    Key {
        id: entry.id.clone(),
        name: entry.name.clone(),
        role: entry.role,
        created: entry.created,
        last_used: entry.last_used,
        revoked: entry.revoked,
    }
}

fn forget_oldest_revoked(keys: &mut Vec<Entry>) {
    while keys.iter().filter(|key| key.revoked.is_some()).count() >= MOST {
        let oldest = keys
            .iter()
            .enumerate()
            .filter_map(|(place, key)| Some((key.revoked?, place)))
            .min();
        match oldest {
            Some((_, place)) => drop(keys.remove(place)),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_opens_until_it_is_revoked_and_over_restarts() {
        let state = tempfile::tempdir().unwrap();
        let keys = Keys::open(state.path()).unwrap();
        assert!(!keys.were_ever_made());
        let new = keys.create("ci", Role::Viewer, 100).unwrap();
        assert_eq!(keys.list(), std::slice::from_ref(&new.about));
        drop(keys);

        let keys = Keys::open(state.path()).unwrap();
        let holder = keys.holder(&new.key, 200).unwrap();
        assert_eq!(
            (holder.id, holder.role),
            (new.about.id.clone(), Role::Viewer)
        );
        assert_eq!(keys.list()[0].last_used, Some(200));
        let mut wrong = new.key.clone();
        wrong.pop();
        wrong.push(if new.key.ends_with('a') { 'q' } else { 'a' });
        assert_eq!(keys.holder(&wrong, 200), None);
        assert_eq!(keys.holder("", 200), None);

        keys.revoke(&new.about.id, 300).unwrap();
        assert_eq!(keys.holder(&new.key, 301), None);
        assert!(matches!(
            keys.revoke(&new.about.id, 302),
            Err(KeysError::Unknown(_))
        ));
        let keys = Keys::open(state.path()).unwrap();
        assert_eq!(keys.holder(&new.key, 303), None);
        assert_eq!(keys.list()[0].last_used, Some(200), "the use was not noted");
        assert!(keys.were_ever_made());
    }

    #[test]
    fn no_secret_is_on_disk_and_nobody_else_reads_what_is() {
        let state = tempfile::tempdir().unwrap();
        let keys = Keys::open(state.path()).unwrap();
        let key = keys.create("n", Role::Operator, 1).unwrap().key;
        let secret = key.rsplit('_').next().unwrap();
        for entry in std::fs::read_dir(state.path()).unwrap() {
            let entry = entry.unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains(secret));
            assert_eq!(
                entry.metadata().unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }

    #[test]
    fn a_lost_server_key_is_told_and_not_replaced() {
        let state = tempfile::tempdir().unwrap();
        let keys = Keys::open(state.path()).unwrap();
        keys.create("n", Role::Operator, 1).unwrap();
        std::fs::remove_file(state.path().join("server.key")).unwrap();
        let error = Keys::open(state.path()).err().unwrap().to_string();
        assert!(
            error.contains("server.key does not hold 32 bytes"),
            "{error}"
        );
        std::fs::write(state.path().join("keys.json"), "{").unwrap();
        let error = Keys::open(state.path()).err().unwrap().to_string();
        assert!(error.contains("keys.json is no table of keys"), "{error}");
    }

    #[test]
    fn names_are_for_people_and_cannot_forge_a_line_of_the_journal() {
        let state = tempfile::tempdir().unwrap();
        let keys = Keys::open(state.path()).unwrap();
        for name in ["", "a\nb", "a\u{1b}[0m", &"n".repeat(65)] {
            assert!(matches!(
                keys.create(name, Role::Operator, 1),
                Err(KeysError::Name(_))
            ));
        }
        assert!(
            keys.create("Jürgen's ci".replace('\'', "").as_str(), Role::Operator, 1)
                .is_ok()
        );
    }
}
