//! A disk in memory that remembers every write and every sync, and can show what a power cut after any of them may
//! leave: each unsynced sector of 512 bytes old or new, each unsynced name there or not.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, Sheet};

const SECTOR: usize = 512;

/// Files by number; a name may come and go and lead to another file.
#[derive(Debug, Clone)]
enum Step {
    Create {
        name: String,
        file: usize,
        size: u64,
    },
    Write {
        file: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        size: u64,
    },
    Sync {
        file: usize,
    },
    Remove {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    SyncNames,
}

#[derive(Debug, Clone, Default)]
struct Image {
    names: BTreeMap<String, usize>,
    files: BTreeMap<usize, Vec<u8>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Syncs {
    #[default]
    Good,
    Failing,
    Deadly,
}

#[derive(Debug, Default)]
struct State {
    base: Image,
    now: Image,
    steps: Vec<Step>,
    files: usize,
    full: bool,
    full_for_writes: bool,
    syncs: Syncs,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Simulated(Arc<Mutex<State>>);

#[derive(Debug)]
struct Handle {
    disk: Simulated,
    file: usize,
}

impl Simulated {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn steps(&self) -> usize {
        self.state().steps.len()
    }

    /// From now on every new file fails for lack of space.
    pub(crate) fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// From now on every write fails for lack of space: no room was set aside.
    pub(crate) fn fill_writes(&self, full: bool) {
        self.state().full_for_writes = full;
    }

    /// From now on whoever syncs panics.
    pub(crate) fn kill_syncs(&self) {
        self.state().syncs = Syncs::Deadly;
    }

    /// From now on every sync fails.
    pub(crate) fn break_syncs(&self) {
        self.state().syncs = Syncs::Failing;
    }

    /// The disk after a power cut behind the first `steps` steps. `keep` is asked for each unsynced sector and name
    /// whether it made it.
    pub(crate) fn after_crash(&self, steps: usize, mut keep: impl FnMut() -> bool) -> Self {
        let state = self.state();
        let done = &state.steps[..steps];
        let mut image = state.base.clone();
        for (at, step) in done.iter().enumerate() {
            let later = &done[at + 1..];
            let names_synced = later.iter().any(|step| matches!(step, Step::SyncNames));
            let synced = |file: usize| {
                later
                    .iter()
                    .any(|step| matches!(step, Step::Sync { file: synced } if *synced == file))
            };
            match step {
                Step::Create { file, .. } if image.files.contains_key(file) => {}
                Step::Create { name, file, size } => {
                    image.files.insert(*file, vec![0; *size as usize]);
                    if names_synced || keep() {
                        image.names.insert(name.clone(), *file);
                    }
                }
                Step::Write {
                    file,
                    offset,
                    bytes,
                } => {
                    let whole = synced(*file);
                    let content = image.files.entry(*file).or_default();
                    write(content, *offset, bytes, || whole || keep());
                }
                Step::Truncate { file, size } => {
                    if synced(*file) || keep() {
                        image
                            .files
                            .entry(*file)
                            .or_default()
                            .resize(*size as usize, 0);
                    }
                }
                Step::Remove { name } => {
                    if names_synced || keep() {
                        image.names.remove(name);
                    }
                }
                Step::Rename { from, to } => {
                    if (names_synced || keep())
                        && let Some(file) = image.names.remove(from)
                    {
                        image.names.insert(to.clone(), file);
                    }
                }
                Step::Sync { .. } | Step::SyncNames => {}
            }
        }
        drop(state);
        Self(Arc::new(Mutex::new(State {
            files: image.files.keys().max().map_or(0, |most| most + 1),
            base: image.clone(),
            now: image,
            ..State::default()
        })))
    }

    fn step(&self, step: Step) {
        self.state().steps.push(step);
    }
}

/// Sector by sector of the file, each of which arrives whole or not at all.
fn write(content: &mut Vec<u8>, offset: u64, bytes: &[u8], mut arrives: impl FnMut() -> bool) {
    let offset = offset as usize;
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes
            .len()
            .min((offset + at) / SECTOR * SECTOR + SECTOR - offset);
        if arrives() {
            content[offset + at..offset + end].copy_from_slice(&bytes[at..end]);
        }
        at = end;
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for Simulated {
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn Sheet>> {
        let mut state = self.state();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.now.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files;
        state.files += 1;
        state.now.names.insert(name.to_owned(), file);
        state.now.files.insert(file, vec![0; size as usize]);
        drop(state);
        self.step(Step::Create {
            name: name.to_owned(),
            file,
            size,
        });
        Ok(Arc::new(Handle {
            disk: self.clone(),
            file,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Sheet>> {
        let file = *self.state().now.names.get(name).ok_or_else(missing)?;
        Ok(Arc::new(Handle {
            disk: self.clone(),
            file,
        }))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().now.names.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().now.names.remove(name).ok_or_else(missing)?;
        self.step(Step::Remove {
            name: name.to_owned(),
        });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.now.names.remove(from).ok_or_else(missing)?;
        state.now.names.insert(to.to_owned(), file);
        drop(state);
        self.step(Step::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.step(Step::SyncNames);
        Ok(())
    }

    fn place(&self) -> &Path {
        Path::new("simulated")
    }
}

impl Sheet for Handle {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.full_for_writes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = state.now.files.get_mut(&self.file).ok_or_else(missing)?;
        write(content, offset, bytes, || true);
        drop(state);
        self.disk.step(Step::Write {
            file: self.file,
            offset,
            bytes: bytes.to_vec(),
        });
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let content = state.now.files.get(&self.file).ok_or_else(missing)?;
        let from = (offset as usize).min(content.len());
        let filled = bytes.len().min(content.len() - from);
        bytes[..filled].copy_from_slice(&content[from..from + filled]);
        Ok(filled)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self
            .disk
            .state()
            .now
            .files
            .get(&self.file)
            .ok_or_else(missing)?
            .len() as u64)
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state
            .now
            .files
            .get_mut(&self.file)
            .ok_or_else(missing)?
            .resize(size as usize, 0);
        drop(state);
        self.disk.step(Step::Truncate {
            file: self.file,
            size,
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let syncs = self.disk.state().syncs;
        assert_ne!(syncs, Syncs::Deadly, "the disk kills");
        if syncs == Syncs::Failing {
            return Err(io::Error::other("the disk is broken"));
        }
        self.disk.step(Step::Sync { file: self.file });
        Ok(())
    }
}
