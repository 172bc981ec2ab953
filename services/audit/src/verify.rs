//! Proving a store by its files alone, without the daemon: every line in its chain, every checkpoint signed, every
//! segment behind the one before it, every queue without a gap but those that the store marked. Each fault is told by
//! its place.
//!
//! What was cut off at the end, or signed anew with another key, only an anchor shows: a checkpoint line that was kept
//! elsewhere. Nothing here changes a file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::disk::DiskError;
use crate::store::checkpoint::{self, Checkpoint, Untrue};
use crate::store::gap::Facts;
use crate::store::line::{Chain, HeadLine, Kind, Line, Lines, kind};
use crate::store::number_of;

mod segment;

/// More faults than this are not told one by one.
const MOST_FAULTS: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file, or the anchor.
    pub place: String,
    /// Of the line in the file, the first one being 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(byte) = self.byte {
            write!(f, " (byte {byte})")?;
        }
        write!(f, ": {}", self.what)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub good: bool,
    pub segments: u64,
    pub pruned: u64,
    pub events: u64,
    pub checkpoints: u64,
    /// Events behind the last signed checkpoint: chained, and not signed yet.
    pub unsigned: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_checkpoint: Option<Checkpoint>,
    /// Anchors that nothing here can be held against: what they speak of is gone by retention.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<String>,
    /// Events that never came, told by the store when it saw it; the first ones by queue and place.
    pub missing_events: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Gap>,
    /// Files with what lay behind the last good line when the store was opened: nothing of it counts here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub laid_aside: Vec<String>,
    pub faults: Vec<Fault>,
}

/// Where a gap is marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub queue: String,
    pub events: u64,
    pub place: String,
    pub line: u64,
}

/// What the files are held against.
#[derive(Debug, Clone, Default)]
pub struct Trust<'a> {
    /// The store's public key in hexadecimal; None: the one of the first checkpoint, which then all must have.
    pub key: Option<&'a str>,
    /// Checkpoint lines that were kept elsewhere.
    pub anchors: &'a [String],
    /// While the service runs: the segment that grows, and how many of its bytes count already.
    pub growing: Option<(u64, u64)>,
}

struct Walk {
    report: Report,
    key: Option<String>,
    /// The end of the segment before, and its number.
    before: Option<(u64, Chain)>,
    /// The number before, where the end of that one is not known.
    skipped: Option<u64>,
    /// No event since the last checkpoint has been passed over.
    counted: bool,
    /// The highest sequence of each queue; None: lines were passed over, and the next checkpoint tells.
    queues: Option<BTreeMap<String, u64>>,
    /// By queue: missing before its next event, as marked.
    marked: BTreeMap<String, u64>,
    /// By how many the lines of this segment are off since a fault that added or removed some.
    shift: u64,
    last_checkpoint: Option<Checkpoint>,
    /// By number: checkpoints that were met, as text.
    met: BTreeMap<u64, Vec<u8>>,
    /// Numbers of the anchors, so that no others are kept.
    awaited: Vec<u64>,
    store: Option<String>,
    /// Of all segments the last: it alone may lack its seal.
    is_last: bool,
    /// The highest segment of which only its seal is left.
    last_pruned: Option<u64>,
}

/// Reads the whole store.
pub fn verify(directory: &Path, trust: &Trust<'_>) -> Result<Report, DiskError> {
    Ok(verify_slowly(directory, trust, || true)?.unwrap_or_default())
}

/// As `verify`; `on` is called before each segment, may take its time, and ends all by saying false: then there is no
/// report.
pub fn verify_slowly(
    directory: &Path,
    trust: &Trust<'_>,
    mut on: impl FnMut() -> bool,
) -> Result<Option<Report>, DiskError> {
    let names = std::fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<std::io::Result<Vec<String>>>()
        })
        .map_err(DiskError::of("listing", directory.to_owned()))?;
    // A segment and what is left of it have one number; while both are there, the removal was cut short.
    let mut files: BTreeMap<u64, String> = BTreeMap::new();
    for ending in ["pruned", "audit"] {
        files.extend(
            names
                .iter()
                .filter_map(|name| Some((number_of(name, ending)?, name.clone()))),
        );
    }
    let anchors: Vec<(String, Result<Checkpoint, Untrue>)> = trust
        .anchors
        .iter()
        .map(|text| {
            (
                text.clone(),
                checkpoint::read(text.trim().as_bytes(), trust.key),
            )
        })
        .collect();
    let mut walk = Walk::new(trust.key);
    walk.awaited = anchors
        .iter()
        .filter_map(|(_, anchor)| Some(anchor.as_ref().ok()?.number))
        .collect();
    let last = files.keys().next_back().copied();
    for (number, name) in &files {
        if !on() {
            return Ok(None);
        }
        walk.is_last = Some(*number) == last;
        let path = directory.join(name);
        let mut bytes = std::fs::read(&path).map_err(DiskError::of("reading", path))?;
        match trust.growing {
            Some((growing, _)) if *number > growing => continue,
            Some((growing, length)) if *number == growing => {
                bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            }
            _ => {}
        }
        walk.neighbours(*number, name);
        if name.ends_with(".pruned") {
            walk.pruned(*number, name, &bytes);
        } else {
            walk.segment(*number, name, &bytes);
        }
    }
    if files.is_empty() {
        walk.fault(
            "the store",
            None,
            None,
            "there is no segment in it".to_owned(),
        );
    }
    if trust.growing.is_none() && walk.report.checkpoints == 0 && walk.report.events > 0 {
        let what = format!("none of its {} events is signed", walk.report.events);
        walk.fault("the store", None, None, what);
    }
    for (text, anchor) in &anchors {
        walk.anchor(text, anchor.as_ref());
    }
    let mut report = walk.report;
    report.laid_aside = names
        .iter()
        .filter(|name| name.strip_suffix(".torn").is_some())
        .cloned()
        .collect();
    report.laid_aside.sort_unstable();
    report.last_checkpoint = walk.last_checkpoint;
    report.good = report.faults.is_empty();
    Ok(Some(report))
}

/// For fuzzing: any bytes as the only segment of a store, and as what retention left of the one before it.
pub fn survey(bytes: &[u8]) -> Report {
    let mut walk = Walk::new(None);
    let (seal, rest) = bytes.split_at(bytes.len() / 2);
    walk.pruned(1, "seal", seal);
    walk.segment(2, "half", rest);
    let mut walk = Walk::new(None);
    walk.is_last = true;
    walk.segment(1, "segment", bytes);
    walk.report
}

impl Walk {
    fn new(key: Option<&str>) -> Self {
        Self {
            report: Report::default(),
            key: key.map(str::to_owned),
            before: None,
            skipped: None,
            counted: true,
            queues: Some(BTreeMap::new()),
            marked: BTreeMap::new(),
            shift: 0,
            last_checkpoint: None,
            met: BTreeMap::new(),
            awaited: Vec::new(),
            store: None,
            is_last: false,
            last_pruned: None,
        }
    }

    fn fault(&mut self, place: &str, line: Option<u64>, byte: Option<usize>, what: String) {
        if self.report.faults.len() < MOST_FAULTS {
            self.report.faults.push(Fault {
                place: place.to_owned(),
                line,
                byte: byte.map(|byte| byte as u64),
                what,
            });
        }
    }

    fn neighbours(&mut self, number: u64, name: &str) {
        let before = self
            .before
            .map(|(before, _)| before)
            .or(self.skipped.take());
        match before {
            Some(before) if before + 1 != number => {
                let missing = match number - before - 1 {
                    1 => format!("segment {} is missing", before + 1),
                    _ => format!("segments {} to {} are missing", before + 1, number - 1),
                };
                self.counted = false;
                self.queues = None;
                self.fault(name, None, None, format!("{missing} before it"));
                self.before = None;
            }
            None if number != 1 => {
                self.counted = false;
                self.queues = None;
                self.fault(
                    name,
                    None,
                    None,
                    format!("segments 1 to {} are missing before it", number - 1),
                );
            }
            _ => {}
        }
    }

    /// Takes the queues up again as a signed checkpoint has them.
    fn resume_queues(&mut self, checkpoint: &Checkpoint) {
        self.queues = Some(checkpoint.gateways.clone());
        self.marked.clear();
    }

    /// Holds an event against the one of its queue before it.
    fn follow(&mut self, name: &str, line: &Line<'_>) {
        let place = (Some(line.number + 1), Some(line.offset));
        let Ok(facts) = serde_json::from_slice::<Facts<'_>>(line.json) else {
            return self.fault(
                name,
                place.0,
                place.1,
                "an event that can't be read".to_owned(),
            );
        };
        if let Some((queue, events)) = facts.missing() {
            self.report.missing_events = self.report.missing_events.saturating_add(events);
            if self.report.missing.len() < MOST_FAULTS {
                self.report.missing.push(Gap {
                    queue: queue.to_owned(),
                    events,
                    place: name.to_owned(),
                    line: line.number + 1,
                });
            }
            let marked = self.marked.entry(queue.to_owned()).or_default();
            *marked = marked.saturating_add(events);
        }
        let Some(queues) = &mut self.queues else {
            return;
        };
        let queue = facts.of_queue();
        let marked = self.marked.remove(&queue).unwrap_or(0);
        let last = queues.insert(queue.clone(), facts.sequence).unwrap_or(0);
        let expected = last.saturating_add(marked).saturating_add(1);
        if facts.sequence != expected {
            let what = format!(
                "event {} of {queue}, and {expected} would be next; no line tells of a gap",
                facts.sequence
            );
            self.fault(name, place.0, place.1, what);
        }
    }

    /// A good checkpoint, counted; or what is wrong with it.
    fn checkpoint(&mut self, json: &[u8]) -> Result<Checkpoint, String> {
        let checkpoint = checkpoint::read(json, self.key.as_deref())
            .map_err(|untrue| format!("a checkpoint, and {untrue}"))?;
        self.key.get_or_insert_with(|| checkpoint.key.clone());
        let store = self.store.get_or_insert_with(|| checkpoint.store.clone());
        if *store != checkpoint.store {
            return Err(format!(
                "a checkpoint of another store, {}",
                checkpoint.store
            ));
        }
        if let Some(last) = &self.last_checkpoint
            && checkpoint.number <= last.number
        {
            return Err(format!(
                "checkpoint {} behind checkpoint {}",
                checkpoint.number, last.number
            ));
        }
        self.report.checkpoints += 1;
        if self.awaited.contains(&checkpoint.number) {
            self.met.insert(checkpoint.number, json.to_vec());
        }
        Ok(checkpoint)
    }

    /// All that is left of a segment is what it was sealed with.
    fn pruned(&mut self, number: u64, name: &str, bytes: &[u8]) {
        self.report.pruned += 1;
        self.last_pruned = Some(number);
        if self.report.segments > 0 {
            let what = "retention takes the oldest first, and older segments are whole: this one was removed otherwise";
            self.fault(name, None, None, what.to_owned());
        }
        let before = self.before.take();
        let checkpoint = match self.checkpoint(bytes) {
            Ok(checkpoint) => checkpoint,
            Err(what) => {
                self.skipped = Some(number);
                return self.fault(name, None, None, what);
            }
        };
        self.skipped = Some(number);
        if !checkpoint.sealed || checkpoint.segment != number {
            let what = format!(
                "it does not seal segment {number}, but speaks of segment {}",
                checkpoint.segment
            );
            return self.fault(name, None, None, what);
        }
        if let Some((before, chain)) = before
            && chain.text() != checkpoint.previous
        {
            self.fault(
                name,
                None,
                None,
                format!("its chain does not go on from segment {before}"),
            );
        }
        match Chain::parse(&checkpoint.chain) {
            Some(chain) => self.before = Some((number, chain.after(bytes))),
            None => self.fault(name, None, None, "its chain is none".to_owned()),
        }
        self.report.events = checkpoint.events;
        self.report.unsigned = 0;
        self.counted = true;
        self.resume_queues(&checkpoint);
        self.last_checkpoint = Some(checkpoint);
    }

    fn anchor(&mut self, text: &str, anchor: Result<&Checkpoint, &Untrue>) {
        let anchor = match anchor {
            Ok(anchor) => anchor,
            Err(untrue) => return self.fault("the anchor", None, None, untrue.to_string()),
        };
        let what = format!("checkpoint {} of {}", anchor.number, anchor.time);
        if self.key.as_ref().is_some_and(|key| *key != anchor.key) {
            return self.fault(
                "the anchor",
                None,
                None,
                format!("{what}: the store is signed with another key"),
            );
        }
        if self
            .met
            .get(&anchor.number)
            .is_some_and(|met| met == text.trim().as_bytes())
        {
            return;
        }
        let last = self.last_checkpoint.as_ref().map_or(0, |last| last.number);
        let fault = if self.met.contains_key(&anchor.number) {
            "the store has another one of that number: it was written anew"
        } else if anchor.number > last {
            "the store ends before it: its end was cut off, or an older copy was put back"
        } else if self
            .last_pruned
            .is_some_and(|pruned| anchor.segment <= pruned)
        {
            // The segments' seals still hold the chain; of this one nobody can tell any more.
            self.report.unproven.push(what);
            return;
        } else {
            "the store has none of that number"
        };
        self.fault("the anchor", None, None, format!("{what}: {fault}"));
    }
}

#[cfg(test)]
mod tests;
