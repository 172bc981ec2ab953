//! Opening a store after whatever happened. The last segment is read through: what a power cut tore off its end is laid
//! aside, what was damaged otherwise is left as it is for `verify` to name, and a new segment begins behind it. Nothing
//! that can be read is lost, nothing is repaired, and each of these is told in the trail.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::watch;

use super::checkpoint::{self, SigningKey};
use super::index::{Index, View};
use super::line::Chain;
use super::turns::Turns;
use super::walk::{Walked, readable, remake, walk};
use super::write::{begin_segment, notice, replace, write_index};
use super::{
    Counts, OWN, Salvage, Settings, State, Store, StoreError, Summary, Writer, index_name,
    number_of, pruned_name, segment_name,
};
use crate::disk::{Disk, DiskError, read_all};

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
        store.writer().restore_own(&store)?;
        for Told { reason, about } in told {
            let place = store.disk.place().join(&about);
            tracing::error!(
                "{} was found {reason} when the audit store was opened; see `clawgress audit verify`",
                place.display()
            );
            let (begun, outcome) = notice(reason, &about, None);
            store.note(&begun, &outcome)?;
        }
        Ok(store)
    }
}

/// A notice: why, and where.
struct Told {
    reason: &'static str,
    about: String,
}

/// A segment and what has been read of it.
struct Last {
    number: u64,
    bytes: Vec<u8>,
    walked: Walked,
}

fn recover(disk: &dyn Disk, key: &SigningKey) -> Result<(Writer, Vec<Told>), StoreError> {
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
    let Some(number) = numbers.pop() else {
        return match pruned {
            Some(number) => Err(StoreError::Broken(format!(
                "{} has pruned segments and no other; segments after {number} are missing, restore them",
                disk.place().display()
            ))),
            None => Ok((fresh(disk)?, Vec::new())),
        };
    };
    let mut last = read_segment(disk, number, key)?;
    last.count_on(disk, &numbers, pruned, key)?;
    let mut segments = BTreeMap::new();
    for earlier in &numbers {
        segments.insert(*earlier, summary(disk, *earlier)?);
    }
    let mut told = Vec::new();
    let mut salvage = last.walked.laid_aside(disk, &names)?;
    match last.walked.fault {
        Some(at) if last.walked.damaged => told.push(Told {
            reason: "damaged",
            about: format!("{}, byte {at}", segment_name(number)),
        }),
        Some(at) => {
            salvage.extend(last.lay_aside(disk, at)?);
            told.push(Told {
                reason: "torn",
                about: format!("{}, byte {at}", segment_name(number)),
            });
        }
        None => {}
    }
    Ok((last.go_on(disk, segments, salvage)?, told))
}

fn read_segment(disk: &dyn Disk, number: u64, key: &SigningKey) -> Result<Last, StoreError> {
    let name = segment_name(number);
    let error = |doing| DiskError::of(doing, disk.place().join(&name));
    let sheet = disk.open(&name).map_err(error("opening"))?;
    // What is read now is gone on from, so it has to stay.
    sheet.sync().map_err(error("syncing"))?;
    let bytes = read_all(&*sheet).map_err(error("reading"))?;
    let walked = walk(number, &bytes, key.public());
    Ok(Last {
        number,
        bytes,
        walked,
    })
}

impl Last {
    /// A segment in which no checkpoint stands yet counts on from those before, or from what retention left of them.
    fn count_on(
        &mut self,
        disk: &dyn Disk,
        earlier: &[u64],
        pruned: Option<u64>,
        key: &SigningKey,
    ) -> Result<(), StoreError> {
        for number in earlier.iter().rev() {
            if self.walked.checkpoint.is_some() {
                return Ok(());
            }
            let before = read_segment(disk, *number, key)?.walked;
            self.walked.add(
                before.state.events,
                before.state.checked,
                &before.state.gateways,
            );
            self.walked.store = self.walked.store.take().or(before.store);
            self.walked.checkpoint = before.checkpoint;
        }
        if self.walked.checkpoint.is_none()
            && let Some(number) = pruned
        {
            let name = pruned_name(number);
            let path = disk.place().join(&name);
            let sheet = disk
                .open(&name)
                .map_err(DiskError::of("opening", path.clone()))?;
            let bytes = read_all(&*sheet).map_err(DiskError::of("reading", path.clone()))?;
            let seal = checkpoint::read(&bytes, Some(key.public())).map_err(|untrue| {
                StoreError::Broken(format!(
                    "{} tells where the trail goes on, and {untrue}; restore it",
                    path.display()
                ))
            })?;
            self.walked.add(seal.events, seal.events, &seal.gateways);
            self.walked.store = self.walked.store.take().or(Some(seal.store.clone()));
            self.walked.checkpoint = Some(seal);
        }
        Ok(())
    }

    /// What lies behind the fault was never promised, or was spoiled since: both look the same. It is kept in a file
    /// of its own; of the events in it those are put back that no gateway has any more.
    fn lay_aside(&self, disk: &dyn Disk, at: usize) -> Result<Salvage, StoreError> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        replace(disk, &format!("{:016}-{at}.torn", self.number), rest)?;
        let mut salvage = Salvage::default();
        salvage_from(rest, &mut salvage);
        let name = segment_name(self.number);
        let error = |doing| DiskError::of(doing, disk.place().join(&name));
        let sheet = disk.open(&name).map_err(error("opening"))?;
        sheet
            .truncate(at as u64)
            .map_err(error("cutting what was torn off"))?;
        sheet.sync().map_err(error("syncing"))?;
        Ok(salvage)
    }

    fn go_on(
        self,
        disk: &dyn Disk,
        mut segments: BTreeMap<u64, Summary>,
        salvage: Salvage,
    ) -> Result<Writer, StoreError> {
        let Self { number, walked, .. } = self;
        let name = segment_name(number);
        let sheet = disk
            .open(&name)
            .map_err(DiskError::of("opening", disk.place().join(&name)))?;
        segments.insert(
            number,
            Summary {
                bytes: walked.state.at,
                events: walked.index.events(),
                span: walked.index.span(),
            },
        );
        let store = match walked.store {
            Some(store) => store,
            // Nothing that is left knows it; verify tells of the change.
            None => new_name()?,
        };
        let behind = walked.damaged || walked.state.sealed;
        let mut writer = Writer {
            store,
            segments,
            number,
            sheet,
            state: walked.state,
            index: walked.index,
            signed: walked.checkpoint.as_ref().map(|last| last.time),
            next_checkpoint: walked.checkpoint.map_or(1, |last| last.number + 1),
            broken: None,
            salvage,
            counts: Counts::default(),
            blocked: None,
            turns: Turns::default(),
            full: None,
        };
        if behind {
            writer.go_on_behind(disk)?;
        }
        Ok(writer)
    }
}

impl Walked {
    /// From openings before this one: what no gateway has gone on behind yet. The trail's own was put back then.
    fn laid_aside(&self, disk: &dyn Disk, names: &[String]) -> Result<Salvage, StoreError> {
        let mut salvage = Salvage::default();
        for name in names {
            if name.strip_suffix(".torn").is_none() {
                continue;
            }
            let error = |doing| DiskError::of(doing, disk.place().join(name));
            let sheet = disk.open(name).map_err(error("opening"))?;
            let bytes = read_all(&*sheet).map_err(error("reading"))?;
            salvage_from(&bytes, &mut salvage);
        }
        salvage.retain(|name, events| {
            let highest = self.state.gateways.get(name).copied().unwrap_or(0);
            events.retain(|sequence, _| *sequence > highest);
            !events.is_empty() && !name.starts_with(&format!("{OWN}/"))
        });
        Ok(salvage)
    }

    fn add(&mut self, events: u64, checked: u64, gateways: &BTreeMap<String, u64>) {
        self.state.events += events;
        self.state.checked = checked;
        for (name, highest) in gateways {
            let ours = self.state.gateways.entry(name.clone()).or_default();
            *ours = (*highest).max(*ours);
        }
    }
}

impl Writer {
    /// What the trail told of itself is nowhere else, so it is put back at once.
    fn restore_own(&mut self, store: &Store) -> Result<(), StoreError> {
        let name = format!("{OWN}/{}", self.store);
        match self.salvage.get(&name).and_then(|own| own.keys().last()) {
            Some(last) => self.fill(store, &name, last.saturating_add(1)),
            None => Ok(()),
        }
    }
}

fn salvage_from(rest: &[u8], salvage: &mut Salvage) {
    // The line at the fault is not what was written, however it reads.
    for (line, keys) in readable(rest).filter(|(line, _)| line.offset > 0) {
        let name = format!("{}/{}", keys.gateway, keys.queue);
        let events = salvage.entry(name).or_default();
        events.insert(keys.sequence, line.json.into());
    }
}

fn new_name() -> Result<String, StoreError> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| super::KeyError::Random)?;
    Ok(clawgress_link::hex::encode(&random))
}

fn fresh(disk: &dyn Disk) -> Result<Writer, StoreError> {
    let store = new_name()?;
    let previous = Chain::genesis();
    let started = begin_segment(disk, &store, 1, previous)?;
    let summary = Summary {
        bytes: started.at,
        events: 0,
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
            sealed: false,
        },
        index: Index::default(),
        next_checkpoint: 1,
        signed: None,
        broken: None,
        salvage: Salvage::default(),
        counts: Counts::default(),
        blocked: None,
        turns: Turns::default(),
        full: None,
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
        let events = view.events();
        let span = (events > 0).then_some(view.span);
        return Ok(Summary {
            bytes,
            events,
            span,
        });
    }
    let text = read_all(&*sheet).map_err(error("reading"))?;
    let index = remake(&text);
    write_index(disk, number, &index.write(bytes))?;
    Ok(Summary {
        bytes,
        events: index.events(),
        span: index.span(),
    })
}
