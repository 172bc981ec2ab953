//! Opening a store after whatever happened: the last segment is read through; what a power cut tore is laid aside, and
//! what was damaged later is left for `verify` to name, never repaired.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::watch;

use super::checkpoint::{self, SigningKey};
use super::index::{Index, Keys, View};
use super::line::{Chain, HeadLine, Kind, Lines, kind};
use super::write::{begin_segment, notice, replace, write_index};
use super::{
    Checkpoint, Settings, State, Store, StoreError, Summary, Writer, index_name, number_of,
    segment_name,
};
use crate::disk::{Disk, DiskError, read_all};

/// What reading a segment through has shown.
struct Walked {
    store: String,
    state: State,
    index: Index,
    /// The last one with a good signature.
    checkpoint: Option<Checkpoint>,
    sealed: bool,
    /// Bytes behind the last good line, and a signed checkpoint is among them: not torn, but damaged.
    rest: usize,
    damaged: bool,
}

fn walk(bytes: &[u8], key: &str) -> Option<Walked> {
    let mut lines = Lines::new(bytes);
    let head = lines.next()?;
    let about = serde_json::from_slice::<HeadLine>(head.json).ok()?.segment;
    let previous = Chain::parse(&about.previous)?;
    let mut walked = Walked {
        store: about.store,
        state: State {
            at: lines.at as u64,
            lines: 1,
            events: 0,
            checked: 0,
            previous,
            chain: previous.after(head.json),
            gateways: BTreeMap::new(),
        },
        index: Index::default(),
        checkpoint: None,
        sealed: false,
        rest: 0,
        damaged: false,
    };
    if walked.state.chain.word() != head.word {
        return None;
    }
    for line in lines.by_ref() {
        let chain = walked.state.chain.after(line.json);
        if chain.word() != line.word || !walked.take(&line, key) {
            break;
        }
        walked.state.chain = chain;
        walked.state.lines += 1;
        walked.state.at = (line.offset + line.word.len() + 1 + line.json.len() + 1) as u64;
    }
    let rest = bytes.get(walked.state.at as usize..).unwrap_or_default();
    walked.rest = rest.len();
    walked.damaged = rest
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.get(super::line::WORD + 1..))
        .any(|json| {
            kind(json) == Some(Kind::Checkpoint) && checkpoint::read(json, Some(key)).is_ok()
        });
    Some(walked)
}

impl Walked {
    fn take(&mut self, line: &super::line::Line<'_>, key: &str) -> bool {
        match kind(line.json) {
            Some(Kind::Event) => {
                let Ok(keys) = serde_json::from_slice::<Keys<'_>>(line.json) else {
                    return false;
                };
                let name = format!("{}/{}", keys.gateway, keys.queue);
                self.index.push(line.offset as u64, &keys);
                self.state.events += 1;
                let highest = self.state.gateways.entry(name).or_default();
                *highest = keys.sequence.max(*highest);
                true
            }
            Some(Kind::Checkpoint) => match checkpoint::read(line.json, Some(key)) {
                Ok(checkpoint) if checkpoint.chain == self.state.chain.text() => {
                    self.state.events = checkpoint.events;
                    self.state.checked = checkpoint.events;
                    self.state.gateways.clone_from(&checkpoint.gateways);
                    self.sealed = checkpoint.sealed;
                    self.checkpoint = Some(checkpoint);
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }
}

impl Store {
    pub(super) fn on(
        disk: Box<dyn Disk>,
        key: SigningKey,
        settings: Settings,
    ) -> Result<Self, StoreError> {
        let (writer, told) = recover(&*disk, &key)?;
        let store = Self {
            settings,
            events: watch::channel(writer.state.events).0,
            writer: Mutex::new(writer),
            disk,
            key,
        };
        if let Some((reason, about)) = told {
            let (begun, outcome) = notice(reason, &about, None);
            store.note(&begun, &outcome)?;
        }
        Ok(store)
    }
}

/// A notice: why, and of which file.
type Told = (&'static str, String);

fn recover(disk: &dyn Disk, key: &SigningKey) -> Result<(Writer, Option<Told>), StoreError> {
    let names = disk
        .names()
        .map_err(DiskError::of("listing", disk.place().to_owned()))?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| number_of(name, "audit"))
        .collect();
    let pruned = names
        .iter()
        .filter_map(|name| number_of(name, "pruned"))
        .max();
    numbers.sort_unstable();
    let mut told = None;
    while let Some(number) = numbers.pop() {
        let name = segment_name(number);
        let error = |doing| DiskError::of(doing, disk.place().join(&name));
        let sheet = disk.open(&name).map_err(error("opening"))?;
        // What is read now is gone on from, so it has to stay.
        sheet.sync().map_err(error("syncing"))?;
        let bytes = read_all(&*sheet).map_err(error("reading"))?;
        let Some(mut walked) = walk(&bytes, key.public()) else {
            // Not even its first line was synced, so nothing in it counted.
            lay_aside(disk, number, &bytes)?;
            disk.remove(&name).map_err(error("removing"))?;
            disk.sync_names().map_err(error("syncing the removal of"))?;
            continue;
        };
        let mut segments = BTreeMap::new();
        for earlier in &numbers {
            segments.insert(*earlier, summary(disk, *earlier)?);
        }
        walked.count_on(disk, &numbers, key)?;
        if walked.rest > 0 && !walked.damaged {
            lay_aside(
                disk,
                number,
                bytes.get(walked.state.at as usize..).unwrap_or_default(),
            )?;
            sheet
                .truncate(walked.state.at)
                .map_err(error("cutting what was torn off"))?;
            sheet.sync().map_err(error("syncing"))?;
            told = Some(("torn", name.clone()));
        }
        segments.insert(
            number,
            Summary {
                bytes: walked.state.at,
                span: walked.index.span(),
            },
        );
        let mut writer = Writer {
            store: walked.store,
            segments,
            number,
            sheet,
            state: walked.state,
            index: walked.index,
            next_checkpoint: walked
                .checkpoint
                .map_or(1, |checkpoint| checkpoint.number + 1),
            broken: None,
        };
        if walked.sealed || walked.damaged {
            if walked.damaged {
                told = Some(("damaged", name.clone()));
            }
            writer.go_on_behind(disk)?;
        }
        return Ok((writer, told));
    }
    match pruned {
        Some(number) => Err(StoreError::Broken(format!(
            "{} has pruned segments and no other; segments after {number} are missing, restore them",
            disk.place().display()
        ))),
        None => Ok((fresh(disk)?, None)),
    }
}

impl Walked {
    /// A segment in which no checkpoint stands yet counts on from the one before.
    fn count_on(
        &mut self,
        disk: &dyn Disk,
        earlier: &[u64],
        key: &SigningKey,
    ) -> Result<(), StoreError> {
        if self.checkpoint.is_some() {
            return Ok(());
        }
        let Some(number) = earlier.last() else {
            return Ok(());
        };
        let path = disk.place().join(segment_name(*number));
        let sheet = disk
            .open(&segment_name(*number))
            .map_err(DiskError::of("opening", path.clone()))?;
        let bytes = read_all(&*sheet).map_err(DiskError::of("reading", path))?;
        if let Some(before) = walk(&bytes, key.public()) {
            self.state.events += before.state.events;
            self.state.checked = before.state.checked;
            for (name, highest) in before.state.gateways {
                let ours = self.state.gateways.entry(name).or_default();
                *ours = highest.max(*ours);
            }
            self.checkpoint = before.checkpoint;
        }
        Ok(())
    }
}

impl Writer {
    fn go_on_behind(&mut self, disk: &dyn Disk) -> Result<(), StoreError> {
        write_index(disk, self.number, &self.index.write(self.state.at))?;
        let started = begin_segment(disk, &self.store, self.number + 1, self.state.chain)?;
        self.number += 1;
        self.sheet = started.sheet;
        self.index = Index::default();
        self.state.previous = self.state.chain;
        self.state.chain = started.chain;
        self.state.at = started.at;
        self.state.lines = 1;
        self.segments.insert(
            self.number,
            Summary {
                bytes: started.at,
                span: None,
            },
        );
        Ok(())
    }
}

fn fresh(disk: &dyn Disk) -> Result<Writer, StoreError> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| super::KeyError::Random)?;
    let store = clawgress_link::hex::encode(&random);
    let previous = Chain::genesis();
    let started = begin_segment(disk, &store, 1, previous)?;
    let summary = Summary {
        bytes: started.at,
        span: None,
    };
    Ok(Writer {
        store,
        segments: BTreeMap::from([(1, summary)]),
        number: 1,
        sheet: started.sheet,
        state: State {
            at: started.at,
            lines: 1,
            events: 0,
            checked: 0,
            previous,
            chain: started.chain,
            gateways: BTreeMap::new(),
        },
        index: Index::default(),
        next_checkpoint: 1,
        broken: None,
    })
}

/// Of a sealed segment, by its index; an index that is missing or spoiled is made again.
fn summary(disk: &dyn Disk, number: u64) -> Result<Summary, StoreError> {
    let segment = segment_name(number);
    let error = |doing| DiskError::of(doing, disk.place().join(&segment));
    let sheet = disk.open(&segment).map_err(error("opening"))?;
    let bytes = sheet.len().map_err(error("measuring"))?;
    if let Ok(index) = disk.open(&index_name(number))
        && let Ok(read) = read_all(&*index)
        && let Some(view) = View::checked(&read, bytes)
    {
        let span = (view.events() > 0).then_some(view.span);
        return Ok(Summary { bytes, span });
    }
    let text = read_all(&*sheet).map_err(error("reading"))?;
    let index = remake(&text);
    write_index(disk, number, &index.write(bytes))?;
    Ok(Summary {
        bytes,
        span: index.span(),
    })
}

/// From whatever of the lines can be read; the chain is not judged.
pub(super) fn remake(text: &[u8]) -> Index {
    let mut index = Index::default();
    let mut lines = Lines::new(text);
    loop {
        match lines.next() {
            Some(line) if kind(line.json) == Some(Kind::Event) => {
                if let Ok(keys) = serde_json::from_slice::<Keys<'_>>(line.json) {
                    index.push(line.offset as u64, &keys);
                }
            }
            Some(_) => {}
            None if lines.pass_over() => {}
            None => return index,
        }
    }
}

fn lay_aside(disk: &dyn Disk, number: u64, bytes: &[u8]) -> Result<(), StoreError> {
    Ok(replace(disk, &format!("{number:016}.torn"), bytes)?)
}
