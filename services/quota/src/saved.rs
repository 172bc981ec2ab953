//! What was used, as it outlives a restart: a file that is written whole or not at all.
//!
//! ```text
//! {"format":1,"counts":[{"kind":"agent","id":"agent-1","second":{…},"minute":{…},"bytes":{…},"period":"day"},…]}
//! ```
//!
//! Connections are not in it: they end with the process that holds them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clawgress_config::policy::Period;
use clawgress_link::durable::{self, FileError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::ledger::{KINDS, Ledger};
use crate::window::Window;

const FORMAT: u32 = 1;
/// More than all counters that a configuration can hold take.
const LARGEST: u64 = 256 * 1024 * 1024;
const WORDS: [&str; KINDS] = ["agent", "team", "project"];

/// What was used by everybody, at one instant for each.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    format: u32,
    counts: Vec<Count>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    kind: String,
    id: String,
    second: Window,
    minute: Window,
    bytes: Window,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    period: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    #[error("{doing} {path}: {error}", path = path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error("reading the counts {path}: {what}; remove the file to begin at nothing", path = path.display())]
    Content { path: PathBuf, what: String },
    #[error(transparent)]
    Write(#[from] FileError),
}

impl Ledger {
    pub fn snapshot(&self) -> Snapshot {
        let book = self.book();
        let mut counts = Vec::new();
        for (counters, kind) in book.0.iter().zip(WORDS) {
            for (id, counter) in counters {
                let state = *counter.lock();
                counts.push(Count {
                    kind: kind.to_owned(),
                    id: id.to_string(),
                    second: state.second,
                    minute: state.minute,
                    bytes: state.bytes,
                    period: state.period.map(|period| period.word().to_owned()),
                });
            }
        }
        counts.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
        Snapshot {
            format: FORMAT,
            counts,
        }
    }

    /// Takes up what was used before. What has been counted since stays counted: of both the higher holds. Whoever has no
    /// quota yet finds it when the limits are put in place.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut one = self.change();
        self.take_up(snapshot);
        *one = snapshot.clone();
    }

    pub(crate) fn take_up(&self, snapshot: &Snapshot) {
        let book = self.book();
        for count in &snapshot.counts {
            let kind = WORDS.iter().position(|word| *word == count.kind);
            let counters = kind.and_then(|kind| book.0.get(kind));
            let Some(counter) = counters.and_then(|counters| counters.get(count.id.as_str()))
            else {
                continue;
            };
            let mut state = counter.lock();
            state.second = state.second.later(count.second);
            state.minute = state.minute.later(count.minute);
            let same = state.period.map(Period::word) == count.period.as_deref();
            if same {
                state.bytes = state.bytes.later(count.bytes);
            }
        }
    }
}

impl Ledger {
    /// What other gateways have used: bytes count for all of them together, and requests have been shared out.
    pub fn set_others(&self, others: &Snapshot) {
        let book = self.book();
        for count in &others.counts {
            let kind = WORDS.iter().position(|word| *word == count.kind);
            let counters = kind.and_then(|kind| book.0.get(kind));
            if let Some(counter) = counters.and_then(|counters| counters.get(count.id.as_str())) {
                let mut state = counter.lock();
                if state.period.map(Period::word) == count.period.as_deref() {
                    state.others = count.bytes;
                }
            }
        }
    }
}

impl Snapshot {
    /// The bytes of several gateways together.
    pub(crate) fn sum<'s>(all: impl Iterator<Item = &'s Self>) -> Self {
        let mut sums: BTreeMap<(&str, &str), Count> = BTreeMap::new();
        for count in all.flat_map(|snapshot| &snapshot.counts) {
            sums.entry((&count.kind, &count.id))
                .and_modify(|sum| {
                    if sum.period == count.period {
                        sum.bytes = sum.bytes.plus(count.bytes);
                    }
                })
                .or_insert_with(|| Count {
                    second: Window::default(),
                    minute: Window::default(),
                    ..count.clone()
                });
        }
        Self {
            format: FORMAT,
            counts: sums.into_values().collect(),
        }
    }

    /// What is different from before.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let known: BTreeMap<(&str, &str), &Count> = before.by_id().collect();
        let changed = self
            .by_id()
            .filter(|(id, count)| known.get(id) != Some(count))
            .map(|(_, count)| count.clone());
        Self {
            format: FORMAT,
            counts: changed.collect(),
        }
    }

    /// The bytes alone that were counted after `before`.
    #[must_use]
    pub(crate) fn bytes_beyond(&self, before: &Self) -> Self {
        let known: BTreeMap<(&str, &str), &Count> = before.by_id().collect();
        let counts = self.by_id().map(|(id, count)| {
            let old = known.get(&id).filter(|old| old.period == count.period);
            Count {
                second: Window::default(),
                minute: Window::default(),
                bytes: old.map_or(count.bytes, |old| count.bytes.beyond(old.bytes)),
                ..count.clone()
            }
        });
        Self {
            format: FORMAT,
            counts: counts.collect(),
        }
    }

    /// Puts newer counts in place of those that are here.
    pub fn merge(&mut self, newer: &Self) {
        if newer.counts.is_empty() {
            return;
        }
        let mut merged: BTreeMap<(&str, &str), &Count> = self.by_id().collect();
        merged.extend(newer.by_id());
        self.counts = merged.into_values().cloned().collect();
        self.format = FORMAT;
    }

    fn by_id(&self) -> impl Iterator<Item = ((&str, &str), &Count)> {
        self.counts
            .iter()
            .map(|count| ((count.kind.as_str(), count.id.as_str()), count))
    }

    /// None: there is no file yet.
    pub fn read(path: &Path) -> Result<Option<Self>, SavedError> {
        let Some(snapshot) = read::<Self>(path)? else {
            return Ok(None);
        };
        format_is_known(snapshot.format, path)?;
        Ok(Some(snapshot))
    }

    /// Writes the file whole, or leaves what was there. When this returns, it has reached the disk. One writer at a
    /// time; the directory must exist.
    pub fn write(&self, path: &Path) -> Result<(), SavedError> {
        write(self, path)
    }
}

/// What every gateway has used, as the quota service keeps it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Used {
    format: u32,
    gateways: BTreeMap<String, Snapshot>,
}

/// Reads what every gateway has used; nothing, if there is no file yet.
pub fn read_used(path: &Path) -> Result<BTreeMap<String, Snapshot>, SavedError> {
    let Some(used) = read::<Used>(path)? else {
        return Ok(BTreeMap::new());
    };
    format_is_known(used.format, path)?;
    Ok(used.gateways)
}

/// Writes it whole, or leaves what was there.
pub fn write_used(gateways: BTreeMap<String, Snapshot>, path: &Path) -> Result<(), SavedError> {
    write(
        &Used {
            format: FORMAT,
            gateways,
        },
        path,
    )
}

fn content(path: &Path, what: impl Into<String>) -> SavedError {
    SavedError::Content {
        path: path.to_owned(),
        what: what.into(),
    }
}

fn format_is_known(format: u32, path: &Path) -> Result<(), SavedError> {
    if format == FORMAT {
        return Ok(());
    }
    let what = format!("its format is {format}, and this version reads format {FORMAT}");
    Err(content(path, what))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SavedError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("reading the counts", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed("reading the counts", path))?;
    if bytes.len() as u64 > LARGEST {
        return Err(content(path, format!("it has more than {LARGEST} bytes")));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| content(path, error.to_string()))
}

fn write<T: Serialize>(counts: &T, path: &Path) -> Result<(), SavedError> {
    let bytes = serde_json::to_vec(counts).map_err(|error| content(path, error.to_string()))?;
    Ok(durable::replace(path, &bytes)?)
}

fn failed<'p>(doing: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> SavedError + 'p {
    move |error| SavedError::Io {
        doing,
        path: path.to_owned(),
        error,
    }
}
