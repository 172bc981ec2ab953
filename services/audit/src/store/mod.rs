//! The store: segments of chained lines, checkpoints signed over them, an index beside each, and what retention leaves.
//!
//! ```text
//! 0000000000000007.audit    a segment (see `line`); sealed ones never change again
//! 0000000000000007.index    its index (see `index`); derived
//! 0000000000000003.pruned   the sealing checkpoint of a segment that retention removed
//! 0000000000000007-4711.torn   what lay behind the last good line, from that byte on, when the store was opened
//! ```
//!
//! An event is in here once: its origin's sequence must be above the last one of that queue. Sequences that are missing
//! are told by a notice in the chain before the line that shows it; `verify` takes no gap without one. What `append` has
//! returned for is on disk. A name appears when what it names is whole.

pub mod checkpoint;
pub(crate) mod gap;
pub(crate) mod index;
pub mod line;
mod read;
mod recover;
mod retention;
mod turns;
mod walk;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::disk::{Directory, Disk, DiskError, Sheet};
use crate::event::{Begun, Micros, Outcome};
use crate::queue::Queued;
use checkpoint::SigningKey;
use index::Index;
use line::Chain;

pub use checkpoint::{Checkpoint, KeyError};
pub use read::{Line, Place};
pub use retention::{Clock, Gone, Retention};
pub use turns::Turn;

/// The store's own name among gateways, for what it tells of itself.
pub const OWN: &str = "audit";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A segment that has reached this is sealed.
    pub segment_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the audit store takes nothing until its service starts again: {0}")]
    Broken(String),
    #[error("'{0}' is no name of a gateway; letters, digits, '-', '_' and '.', 64 at most")]
    Name(String),
    #[error("writing down a checkpoint: {0}")]
    Checkpoint(#[from] serde_json::Error),
    /// Of the shipper, not of the store.
    #[error("{0}")]
    Shipper(String),
}

impl StoreError {
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_full())
    }
}

/// Events from behind a fault, as they were written: by queue and sequence.
type Salvage = BTreeMap<String, BTreeMap<u64, Box<[u8]>>>;

pub struct Store {
    settings: Settings,
    disk: Box<dyn Disk>,
    key: SigningKey,
    writer: Mutex<Writer>,
    /// Events ever, for those who wait for more.
    events: watch::Sender<u64>,
}

/// The segment that grows, and what has to be known to go on.
struct Writer {
    store: String,
    /// Numbers of the segments there are, with what a query wants to know of them; the last one grows.
    segments: BTreeMap<u64, Summary>,
    number: u64,
    sheet: Arc<dyn Sheet>,
    state: State,
    index: Index,
    next_checkpoint: u64,
    /// When the last one was signed.
    signed: Option<Micros>,
    broken: Option<String>,
    /// Put back when their queue goes on behind them.
    salvage: Salvage,
    counts: Counts,
    /// The oldest segment, where retention stops at it.
    blocked: Option<u64>,
    turns: turns::Turns,
    /// Since when the disk has been full, and how often that was met.
    full: Option<(Micros, u64)>,
}

/// What changes with each line; taken back as a whole if writing fails.
#[derive(Debug, Clone)]
struct State {
    at: u64,
    lines: u64,
    events: u64,
    /// Events when the last checkpoint was signed.
    checked: u64,
    previous: Chain,
    chain: Chain,
    gateways: BTreeMap<String, u64>,
    /// The seal has been written, and the next segment not begun.
    sealed: bool,
}

/// Since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub received: u64,
    pub duplicate: u64,
    pub missing: u64,
    pub unreadable: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Summary {
    bytes: u64,
    events: usize,
    span: Option<(Micros, Micros)>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    pub store: String,
    pub events: u64,
    pub segments: usize,
    pub bytes: u64,
    pub key: String,
    pub gateways: BTreeMap<String, u64>,
    /// Behind the last signed checkpoint.
    pub unsigned: u64,
    pub counts: Counts,
    /// The segment that retention can't take, because its seal is not good; nothing behind it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_stops_at: Option<u64>,
    /// When a checkpoint was last signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Micros>,
    /// Why nothing is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

impl Store {
    /// Opens or makes the store in `directory`, signed with this key.
    pub fn open(directory: &Path, key: SigningKey, settings: Settings) -> Result<Self, StoreError> {
        Self::on(Box::new(Directory::lock(directory)?), key, settings)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest sequence of this queue that is in here; 0: none.
    pub fn highest(&self, gateway: &str, queue: &str) -> u64 {
        let gateways = &self.writer().state.gateways;
        gateways
            .get(&format!("{gateway}/{queue}"))
            .copied()
            .unwrap_or(0)
    }

    /// Takes what is new of these, and returns the highest sequence of the queue; all up to it is on disk.
    pub fn append(
        &self,
        gateway: &str,
        queue: &str,
        records: &[Queued],
    ) -> Result<u64, StoreError> {
        judge_names(gateway, queue)?;
        let mut writer = self.writer();
        let appended = writer.append(self, (gateway, queue), records);
        self.settle(&mut writer, appended)
    }

    /// Something that the trail tells of itself.
    pub fn note(&self, begun: &Begun<'_>, outcome: &Outcome<'_>) -> Result<(), StoreError> {
        let mut writer = self.writer();
        let noted = writer.note(self, begun, outcome);
        self.settle(&mut writer, noted)
    }

    /// Tells those who wait for more, and of a full disk once when there is room again.
    fn settle<T>(&self, writer: &mut Writer, done: Result<T, StoreError>) -> Result<T, StoreError> {
        match &done {
            Err(error) if error.is_full() => {
                if writer.full.is_none() {
                    tracing::error!(
                        "{error}; nothing is taken until then, gateways keep their events"
                    );
                }
                writer.full.get_or_insert((Micros::now(), 0)).1 += 1;
            }
            Ok(_) => {
                if let Some((since, refused)) = writer.full {
                    let about = format!("{}, since {since}", self.disk.place().display());
                    let (begun, outcome) = write::notice("disk-full", &about, Some(refused));
                    if writer.note(self, &begun, &outcome).is_ok() {
                        writer.full = None;
                    }
                }
                self.events.send_replace(writer.state.events);
            }
            Err(_) => {}
        }
        done
    }

    /// Signs what there is, if it is more than at the last time. Returns the line, fit to be an anchor elsewhere.
    pub fn checkpoint(&self, now: Micros) -> Result<Option<String>, StoreError> {
        let mut writer = self.writer();
        let signed = writer.turn_if_sealed(self).and_then(|()| {
            if writer.state.events == writer.state.checked {
                return Ok(None);
            }
            writer.checkpoint(self, now, false).map(Some)
        });
        self.settle(&mut writer, signed)
    }

    pub fn public_key(&self) -> &str {
        self.key.public()
    }

    pub fn status(&self) -> Status {
        let writer = self.writer();
        Status {
            store: writer.store.clone(),
            events: writer.state.events,
            segments: writer.segments.len(),
            bytes: writer.segments.values().map(|segment| segment.bytes).sum(),
            key: self.key.public().to_owned(),
            gateways: writer.state.gateways.clone(),
            unsigned: writer.state.events - writer.state.checked.min(writer.state.events),
            counts: writer.counts,
            retention_stops_at: writer.blocked,
            checkpoint: writer.signed,
            broken: writer.broken.clone().or_else(|| {
                let (since, _) = writer.full?;
                Some(format!("no space since {since}; free some"))
            }),
        }
    }

    /// How many events lie behind this place; None: all that are held.
    pub fn behind(&self, place: Option<Place>) -> u64 {
        let writer = self.writer();
        let from = place.map_or(0, |place| place.segment);
        let behind = writer.segments.range(from..).map(|(number, summary)| {
            let passed = match place {
                Some(place) if place.segment == *number => place.event.saturating_add(1),
                _ => 0,
            };
            summary.events.saturating_sub(passed) as u64
        });
        behind.sum()
    }

    /// Changes whenever there are more events.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    /// The segment that grows, and how long it is.
    pub fn growing(&self) -> (u64, u64) {
        let writer = self.writer();
        (writer.number, writer.state.at)
    }

    pub fn place(&self) -> &Path {
        self.disk.place()
    }
}

/// For fuzzing: any bytes as the segment that a store is opened with. Tells where the first fault is, how many events
/// count, how many can be read at all, and how many an index of these bytes holds.
pub fn survey(bytes: &[u8]) -> (Option<usize>, usize, usize, usize) {
    let walked = walk::walk(1, bytes, "");
    let readable = walk::readable(bytes).count();
    let spoiled = index::View::checked(bytes, bytes.len() as u64);
    let indexed = spoiled.map_or(0, |view| {
        view.matches(&index::Wanted::default(), 0..usize::MAX).len()
    });
    (walked.fault, walked.index.events(), readable, indexed)
}

/// For fuzzing: these lines in a chain that is right, behind a first line that is.
pub fn chained(lines: &[u8]) -> Vec<u8> {
    let previous = Chain::genesis();
    let head = format!(
        "{{\"segment\":{{\"number\":1,\"previous\":\"{}\",\"store\":\"s\"}}}}",
        previous.text()
    );
    let mut text = Vec::new();
    let mut chain = line::push(previous, head.as_bytes(), &mut text);
    for json in lines.split(|byte| *byte == b'\n') {
        chain = line::push(chain, json, &mut text);
    }
    text
}

fn judge_names(gateway: &str, queue: &str) -> Result<(), StoreError> {
    match [gateway, queue]
        .into_iter()
        .find(|name| !crate::event::is_name(name))
    {
        Some(name) => Err(StoreError::Name(name.to_owned())),
        None => Ok(()),
    }
}

pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016}.audit")
}

pub(crate) fn index_name(number: u64) -> String {
    format!("{number:016}.index")
}

pub(crate) fn pruned_name(number: u64) -> String {
    format!("{number:016}.pruned")
}

pub(crate) fn number_of(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?.strip_suffix('.')?;
    (digits.len() == 16).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
pub(crate) mod tests;
