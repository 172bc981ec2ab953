//! The queue's books, under one lock: numbers, shares, room, and the append itself.
//!
//! Nothing here waits for a sync, and nothing is counted before it has been written.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::files::{Queueing, Spare};
use super::folds::Folds;
use super::record::{HEADER, Kind, header};
use super::{OUTCOME_ROOM, Refused, Shared, Status};
use crate::checksum::crc32c;
use crate::disk::DiskError;

/// Different owners whose drops are counted by name; all others' are counted together.
const MOST_OWNERS: usize = 10_000;

/// A record about to be appended: room for its header, owner, text.
pub(super) struct Content<'a> {
    pub(super) bytes: &'a mut [u8],
    pub(super) owner: u8,
    /// CRC-32C of owner and text.
    pub(super) sum: u32,
}

impl Content<'_> {
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }

    pub(super) fn owner(&self) -> &str {
        let owner = self.body().get(..usize::from(self.owner));
        owner
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

pub(super) struct Inner {
    pub(super) queue: [u8; 16],
    /// Oldest first; the last one is written to. Never empty once open.
    pub(super) files: VecDeque<Queueing>,
    pub(super) spares: VecDeque<Spare>,
    /// Of the newest file or spare, and when that was made.
    pub(super) newest: Option<(u64, Instant)>,
    pub(super) next_file: u64,
    pub(super) next_sequence: u64,
    pub(super) next_ticket: u64,
    pub(super) begun: HashMap<u64, Open>,
    /// Room set aside for the ends of all that has begun.
    pub(super) reserved: u64,
    /// Bytes of each owner in all files.
    pub(super) shares: HashMap<Arc<str>, u64>,
    pub(super) dropped: HashMap<Arc<str>, u64>,
    pub(super) dropped_ever: u64,
    /// Bytes appended since this process began.
    pub(super) position: u64,
    pub(super) acknowledged: u64,
    /// Of files that were removed, the highest sequence: up to it nothing is here any more.
    pub(super) gone: u64,
    /// Ends that the disk did not take; before anything else is taken, they are.
    pub(super) unended: VecDeque<(u64, Box<[u8]>)>,
    pub(super) folds: Folds,
    /// Highest sequence that is on disk.
    pub(super) durable_sequence: u64,
    pub(super) broken: Option<String>,
    pub(super) scratch: Vec<u8>,
}

/// A request that has begun.
pub(super) struct Open {
    /// Where its record lies.
    pub(super) file: u64,
    pub(super) owner: u8,
    /// Owner and text.
    pub(super) body: Box<[u8]>,
}

impl Open {
    /// What its end may take.
    pub(super) fn reserve(&self) -> u64 {
        end_room(self.body.len())
    }

    pub(super) fn owner(&self) -> &[u8] {
        self.body.get(..usize::from(self.owner)).unwrap_or_default()
    }
}

fn end_room(body: usize) -> u64 {
    (HEADER + body + OUTCOME_ROOM) as u64
}

impl Inner {
    pub(super) fn begin(
        &mut self,
        shared: &Shared,
        content: &mut Content<'_>,
    ) -> Result<(u64, u64), Refused> {
        let reserve = end_room(content.body().len());
        let charge = content.bytes.len() as u64 + reserve;
        self.admit(shared, content.owner(), charge)?;
        let number = self.next_ticket;
        self.append(shared, Kind::Begun, (0, number), content)?;
        self.next_ticket += 1;
        self.charge(content.owner(), charge);
        self.reserved += reserve;
        let file = self.files.back_mut().map_or(0, |file| {
            file.open += 1;
            file.number
        });
        let open = Open {
            file,
            owner: content.owner,
            body: content.body().into(),
        };
        self.begun.insert(number, open);
        Ok((number, self.position))
    }

    pub(super) fn whole(
        &mut self,
        shared: &Shared,
        content: &mut Content<'_>,
    ) -> Result<u64, Refused> {
        let charge = content.bytes.len() as u64;
        self.admit(shared, content.owner(), charge)?;
        self.append_event(shared, Kind::Whole, 0, content)?;
        self.charge(content.owner(), charge);
        Ok(self.position)
    }

    /// Never refused: room was set aside when it began. A disk that has none all the same is asked again until it has.
    pub(super) fn end(&mut self, shared: &Shared, number: u64, outcome: &[u8]) {
        if self.write_end(shared, number, outcome).is_err() && self.broken.is_none() {
            self.unended.push_back((number, outcome.into()));
            shared.touched();
        }
        // What a broken queue has not taken is begun on disk, and ends when it is opened again.
    }

    pub(super) fn retry_ends(&mut self, shared: &Shared) -> Result<(), Refused> {
        while let Some((number, outcome)) = self.unended.pop_front() {
            if let Err(error) = self.write_end(shared, number, &outcome) {
                self.unended.push_front((number, outcome));
                return Err(error);
            }
        }
        Ok(())
    }

    /// It has begun until its end is written: so long its file stays.
    fn write_end(&mut self, shared: &Shared, number: u64, outcome: &[u8]) -> Result<(), Refused> {
        let Some(open) = self.begun.get(&number) else {
            return Ok(());
        };
        let owner = open.owner;
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(&open.body);
        bytes.extend_from_slice(outcome);
        let sum = crc32c(0, bytes.get(HEADER..).unwrap_or_default());
        let mut content = Content {
            bytes: &mut bytes,
            owner,
            sum,
        };
        let written = self.append_event(shared, Kind::Ended, number, &mut content);
        self.scratch = bytes;
        written?;
        if let Some(open) = self.begun.remove(&number) {
            self.reserved = self.reserved.saturating_sub(open.reserve());
            if let Some(file) = self.files.iter_mut().find(|file| file.number == open.file) {
                file.open -= 1;
            }
        }
        Ok(())
    }

    pub(super) fn append_event(
        &mut self,
        shared: &Shared,
        kind: Kind,
        ticket: u64,
        content: &mut Content<'_>,
    ) -> Result<(), Refused> {
        let sequence = self.next_sequence;
        self.append(shared, kind, (sequence, ticket), content)?;
        self.next_sequence += 1;
        if let Some(file) = self.files.back_mut() {
            file.last_sequence = sequence;
        }
        Ok(())
    }

    /// Writes one record behind the last one, in the next file if need be.
    pub(super) fn append(
        &mut self,
        shared: &Shared,
        kind: Kind,
        numbers: (u64, u64),
        content: &mut Content<'_>,
    ) -> Result<(), Refused> {
        if let Some(broken) = &self.broken {
            return Err(Refused::Broken(broken.clone()));
        }
        let length = content.bytes.len() as u64;
        if self
            .files
            .back()
            .is_none_or(|file| file.at + length > file.size)
        {
            self.turn(shared)?;
        }
        let Some(file) = self.files.back_mut() else {
            return Err(Refused::Full(0));
        };
        let body = content.body();
        let head = header(
            kind,
            content.owner,
            body.len() as u32,
            numbers,
            file.seed,
            content.sum,
        );
        if let Some(place) = content.bytes.first_chunk_mut() {
            *place = head;
        }
        if let Err(source) = file.sheet.write_at(file.at, content.bytes) {
            let error = DiskError::of("appending to", file.path(shared))(source);
            if !error.is_full() {
                self.break_down(shared, &error.to_string());
            }
            return Err(Refused::Space(error));
        }
        file.at += length;
        self.position += length;
        shared.touched();
        Ok(())
    }

    /// Nothing is taken any more: what was written may not be what will be read.
    pub(super) fn break_down(&mut self, shared: &Shared, why: &str) {
        tracing::error!("the audit queue takes nothing more: {why}");
        self.broken.get_or_insert_with(|| why.to_owned());
        shared.durable.send_modify(|_| {});
    }

    fn admit(&mut self, shared: &Shared, owner: &str, charge: u64) -> Result<(), Refused> {
        if let Some(broken) = &self.broken {
            return Err(Refused::Broken(broken.clone()));
        }
        self.retry_ends(shared)?;
        let settings = &shared.settings;
        let allotted = settings.share_per_agent.max(2 * settings.file_bytes());
        if self.shares.get(owner).copied().unwrap_or(0) + charge > allotted {
            return Err(Refused::Share(owner.to_owned()));
        }
        while self.room() < self.reserved + charge {
            if self.held() + settings.file_bytes() > settings.max_bytes {
                return Err(Refused::Full(self.held()));
            }
            // The keeper makes them ahead of need; this is for bursts.
            let spare = self.make_spare(shared).map_err(Refused::Space)?;
            self.spares.push_back(spare);
        }
        Ok(())
    }

    pub(super) fn charge(&mut self, owner: &str, bytes: u64) {
        let Some(file) = self.files.back_mut() else {
            return;
        };
        let owner = match self.shares.get_key_value(owner) {
            Some((owner, _)) => Arc::clone(owner),
            None => Arc::from(owner),
        };
        *file.charges.entry(Arc::clone(&owner)).or_default() += bytes;
        *self.shares.entry(owner).or_default() += bytes;
    }

    pub(super) fn count_dropped(&mut self, owner: &str) {
        self.dropped_ever += 1;
        if let Some(count) = self.dropped.get_mut(owner) {
            *count += 1;
            return;
        }
        let owner = if self.dropped.len() < MOST_OWNERS {
            owner
        } else {
            ""
        };
        *self.dropped.entry(Arc::from(owner)).or_default() += 1;
    }

    /// What can still be appended for certain.
    pub(super) fn room(&self) -> u64 {
        let current = self.files.back().map_or(0, Queueing::room);
        self.spares
            .iter()
            .fold(current, |room, spare| room + spare.room())
    }

    /// Space taken from the disk.
    pub(super) fn held(&self) -> u64 {
        let files: u64 = self.files.iter().map(|file| file.size).sum();
        self.spares
            .iter()
            .fold(files, |held, spare| held + spare.size)
    }

    pub(super) fn status(&self) -> Status {
        Status {
            waiting: (self.next_sequence - 1).saturating_sub(self.acknowledged),
            begun: self.begun.len() as u64,
            bytes: self.held(),
            dropped: self.dropped_ever,
            broken: self.broken.clone(),
        }
    }
}
