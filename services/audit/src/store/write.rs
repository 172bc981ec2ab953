//! Growing: lines behind lines, checkpoints, and the turn to the next segment. Each step is on disk before it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gap::MISSING;
use super::index::{Index, Keys};
use super::line::{self, Chain, Head, HeadLine};
use super::{Checkpoint, OWN, State, Store, StoreError, Summary, Writer, index_name, segment_name};
use crate::disk::{Disk, DiskError, Sheet};
use crate::event::{self, Begun, Decision, LONGEST, Micros, Origin, Outcome, Source};
use crate::queue::Queued;

impl Writer {
    pub(super) fn append(
        &mut self,
        store: &Store,
        (gateway, queue): (&str, &str),
        records: &[Queued],
    ) -> Result<u64, StoreError> {
        let name = format!("{gateway}/{queue}");
        let mut highest = self.state.gateways.get(&name).copied().unwrap_or(0);
        let news = records.iter().filter(|record| record.sequence > highest);
        let news = news.count() as u64;
        self.counts.duplicate += records.len() as u64 - news;
        if news == 0 {
            return Ok(highest);
        }
        self.turn_if_full(store)?;
        let salvage = self.salvage.get(&name).cloned().unwrap_or_default();
        let mut batch = Batch::new(self);
        let mut text = Vec::new();
        let mut unreadable = 0;
        for record in records {
            if record.sequence <= highest {
                continue;
            }
            batch.fill(&name, &salvage, highest, record.sequence);
            highest = record.sequence;
            let origin = Origin {
                gateway: gateway.to_owned(),
                queue: queue.to_owned(),
                sequence: highest,
            };
            text.clear();
            // What is longer no reader would take.
            let fits = record.text.len() <= LONGEST;
            let well_formed = fits
                .then(|| event::with_origin(&origin, &record.text, &mut text))
                .flatten();
            if well_formed.is_none() || !batch.push(&text) {
                // What can't be read is not thrown away in silence: its name is kept.
                text.clear();
                unreadable += 1;
                let (begun, outcome) = notice("unreadable", &name, None);
                let written = own_text(&begun, &outcome);
                if event::with_origin(&origin, &written, &mut text).is_some() {
                    batch.push(&text);
                }
            }
        }
        batch.state.gateways.insert(name.clone(), highest);
        let finished = batch.finish();
        self.write(store, finished)?;
        self.counts.received += news;
        self.counts.unreadable += unreadable;
        self.salvage.remove(&name);
        Ok(highest)
    }

    /// The queue goes on with `next`: what lies between that and what is in here is put back or told as missing.
    pub(super) fn fill(&mut self, store: &Store, name: &str, next: u64) -> Result<(), StoreError> {
        self.turn_if_full(store)?;
        let highest = self.state.gateways.get(name).copied().unwrap_or(0);
        let salvage = self.salvage.get(name).cloned().unwrap_or_default();
        let mut batch = Batch::new(self);
        batch.fill(name, &salvage, highest, next);
        let own = format!("{OWN}/{}", batch.store);
        // The trail's own numbers simply go on.
        if name != own {
            batch.state.gateways.insert(name.to_owned(), next - 1);
        }
        let finished = batch.finish();
        self.write(store, finished)?;
        self.salvage.remove(name);
        Ok(())
    }

    pub(super) fn note(
        &mut self,
        store: &Store,
        begun: &Begun<'_>,
        outcome: &Outcome<'_>,
    ) -> Result<(), StoreError> {
        self.turn_if_full(store)?;
        let mut batch = Batch::new(self);
        batch.own(&own_text(begun, outcome));
        let finished = batch.finish();
        self.write(store, finished)
    }

    pub(super) fn checkpoint(
        &mut self,
        store: &Store,
        now: Micros,
        sealed: bool,
    ) -> Result<String, StoreError> {
        let span = self.index.span();
        let checkpoint = Checkpoint {
            number: self.next_checkpoint,
            time: now,
            store: self.store.clone(),
            segment: self.number,
            lines: self.state.lines,
            events: self.state.events,
            previous: self.state.previous.text(),
            chain: self.state.chain.text(),
            sealed,
            first: span.map(|span| span.0),
            last: span.map(|span| span.1),
            gateways: self.state.gateways.clone(),
            key: store.key.public().to_owned(),
        };
        let json = store.key.sign(&checkpoint)?;
        let mut batch = Batch::new(self);
        batch.state.chain = line::push(batch.state.chain, json.as_bytes(), &mut batch.text);
        batch.state.lines += 1;
        batch.state.checked = batch.state.events;
        batch.state.sealed = sealed;
        let finished = batch.finish();
        self.write(store, finished)?;
        self.next_checkpoint += 1;
        self.signed = Some(now);
        Ok(json)
    }

    /// Writes, syncs, and only then counts.
    fn write(&mut self, store: &Store, finished: Finished) -> Result<(), StoreError> {
        let Finished {
            text,
            mut state,
            events,
            missing,
        } = finished;
        if let Some(broken) = &self.broken {
            self.index.truncate(events);
            return Err(StoreError::Broken(broken.clone()));
        }
        let path = store.disk.place().join(segment_name(self.number));
        let written = self
            .sheet
            .write_at(self.state.at, &text)
            .map_err(DiskError::of("appending to", path.clone()))
            .and_then(|()| self.sheet.sync().map_err(DiskError::of("syncing", path)));
        if let Err(error) = written {
            self.index.truncate(events);
            // A full disk leaves what was there; the next line goes to the same place. Anything else may not have.
            let cut = self
                .sheet
                .truncate(self.state.at)
                .and_then(|()| self.sheet.sync());
            if !error.is_full() || cut.is_err() {
                self.broken = Some(error.to_string());
            }
            return Err(error.into());
        }
        state.at += text.len() as u64;
        self.state = state;
        self.counts.missing += missing;
        let summary = Summary {
            bytes: self.state.at,
            events: self.index.events(),
            span: self.index.span(),
        };
        self.segments.insert(self.number, summary);
        Ok(())
    }

    fn turn_if_full(&mut self, store: &Store) -> Result<(), StoreError> {
        if self.state.at < store.settings.segment_bytes {
            return self.turn_if_sealed(store);
        }
        self.turn(store, Micros::now())
    }

    /// Ends a turn that was cut short behind the seal.
    pub(super) fn turn_if_sealed(&mut self, store: &Store) -> Result<(), StoreError> {
        if self.state.sealed {
            self.turn(store, Micros::now())?;
        }
        Ok(())
    }

    /// Seals the segment and begins the next one. Whatever fails on the way is tried again before anything else is
    /// written, and what has been done is not done twice.
    pub(super) fn turn(&mut self, store: &Store, now: Micros) -> Result<(), StoreError> {
        if !self.state.sealed {
            self.checkpoint(store, now, true)?;
        }
        self.go_on_behind(&*store.disk)
    }

    pub(super) fn go_on_behind(&mut self, disk: &dyn Disk) -> Result<(), StoreError> {
        write_index(disk, self.number, &self.index.write(self.state.at))?;
        let next = begin_segment(disk, &self.store, self.number + 1, self.state.chain)?;
        self.number += 1;
        self.sheet = next.sheet;
        self.index = Index::default();
        self.state = State {
            at: next.at,
            lines: 1,
            previous: self.state.chain,
            chain: next.chain,
            sealed: false,
            ..self.state.clone()
        };
        let summary = Summary {
            bytes: next.at,
            events: 0,
            span: None,
        };
        self.segments.insert(self.number, summary);
        Ok(())
    }
}

/// Lines that will be written together.
struct Batch<'a> {
    text: Vec<u8>,
    state: State,
    store: &'a str,
    index: &'a mut Index,
    /// In the index before.
    events: usize,
    missing: u64,
}

struct Finished {
    text: Vec<u8>,
    state: State,
    events: usize,
    missing: u64,
}

impl<'a> Batch<'a> {
    fn new(writer: &'a mut Writer) -> Batch<'a> {
        Batch {
            text: Vec::new(),
            state: writer.state.clone(),
            events: writer.index.events(),
            missing: 0,
            store: &writer.store,
            index: &mut writer.index,
        }
    }

    fn finish(self) -> Finished {
        Finished {
            text: self.text,
            state: self.state,
            events: self.events,
            missing: self.missing,
        }
    }

    /// False: it is no event.
    fn push(&mut self, json: &[u8]) -> bool {
        let Ok(keys) = serde_json::from_slice::<Keys<'_>>(json) else {
            return false;
        };
        self.index
            .push(self.state.at + self.text.len() as u64, &keys);
        self.state.chain = line::push(self.state.chain, json, &mut self.text);
        self.state.lines += 1;
        self.state.events += 1;
        true
    }

    fn own(&mut self, queued: &[u8]) {
        let sequence = self
            .state
            .gateways
            .entry(format!("{OWN}/{}", self.store))
            .or_default();
        *sequence += 1;
        let origin = Origin {
            gateway: OWN.to_owned(),
            queue: self.store.to_owned(),
            sequence: *sequence,
        };
        let mut text = Vec::new();
        if event::with_origin(&origin, queued, &mut text).is_some() {
            self.push(&text);
        }
    }

    /// What is between these two, both not included: put back where it was kept, otherwise told as missing.
    fn fill(&mut self, name: &str, salvage: &BTreeMap<u64, Box<[u8]>>, highest: u64, next: u64) {
        if next <= highest.saturating_add(1) {
            return;
        }
        let mut last = highest;
        let between = (
            std::ops::Bound::Excluded(highest),
            std::ops::Bound::Excluded(next),
        );
        let own = name
            .split_once('/')
            .is_some_and(|(gateway, _)| gateway == OWN);
        for (sequence, json) in salvage.range(between) {
            if own {
                // Its number may have been given once more already.
                if let Some(queued) = event::without_origin(json) {
                    self.own(&queued);
                }
                continue;
            }
            self.tell_missing(name, last, *sequence);
            if self.push(json) {
                last = *sequence;
            }
        }
        if !own {
            self.tell_missing(name, last, next);
        }
    }

    fn tell_missing(&mut self, name: &str, last: u64, next: u64) {
        let missing = next.saturating_sub(last).saturating_sub(1);
        if missing > 0 {
            self.missing += missing;
            self.notice(MISSING, name, Some(missing));
        }
    }

    fn notice(&mut self, reason: &str, about: &str, count: Option<u64>) {
        let (begun, outcome) = notice(reason, about, count);
        self.own(&own_text(&begun, &outcome));
    }
}

fn own_text(begun: &Begun<'_>, outcome: &Outcome<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    // Fails only for numbers that JSON lacks, and then there is nothing to store.
    let _ =
        event::open_text(begun, &mut text).and_then(|()| event::closing_text(outcome, &mut text));
    text
}

/// What the trail tells of itself: why, about which queue or file, and how many events it concerns.
pub(super) fn notice<'a>(
    reason: &'a str,
    about: &'a str,
    count: Option<u64>,
) -> (Begun<'a>, Outcome<'a>) {
    let begun = Begun {
        timestamp: Micros::now(),
        source: Source::Audit,
        path: Some(about.into()),
        alert: true,
        ..Begun::default()
    };
    let outcome = Outcome {
        decision: Decision::Notice,
        reason: Some(reason.into()),
        folded: count,
        ..Outcome::default()
    };
    (begun, outcome)
}

pub(super) struct Started {
    pub(super) sheet: Arc<dyn Sheet>,
    pub(super) at: u64,
    pub(super) chain: Chain,
}

pub(super) fn begin_segment(
    disk: &dyn Disk,
    store: &str,
    number: u64,
    previous: Chain,
) -> Result<Started, StoreError> {
    let name = segment_name(number);
    let head = HeadLine {
        segment: Head {
            number,
            previous: previous.text(),
            store: store.to_owned(),
        },
    };
    let mut text = Vec::new();
    let chain = line::push(previous, &serde_json::to_vec(&head)?, &mut text);
    let sheet = write_aside(disk, &name, &text)?;
    Ok(Started {
        sheet,
        at: text.len() as u64,
        chain,
    })
}

pub(super) fn write_index(disk: &dyn Disk, number: u64, bytes: &[u8]) -> Result<(), DiskError> {
    replace(disk, &index_name(number), bytes)
}

pub(super) fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
    write_aside(disk, name, bytes).map(|_| ())
}

/// Written aside and renamed, so that under its name it is whole or not at all.
fn write_aside(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<Arc<dyn Sheet>, DiskError> {
    let aside = format!("{name}.new");
    let error = |doing| DiskError::of(doing, disk.place().join(&aside));
    match disk.remove(&aside) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(error("removing")(source));
        }
        _ => {}
    }
    let sheet = disk.create(&aside, 0).map_err(error("creating"))?;
    sheet.write_at(0, bytes).map_err(error("writing"))?;
    sheet.sync().map_err(error("syncing"))?;
    disk.rename(&aside, name).map_err(error("renaming"))?;
    disk.sync_names().map_err(error("syncing the name of"))?;
    Ok(sheet)
}
