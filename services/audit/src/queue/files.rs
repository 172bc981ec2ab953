//! The files of a lane: made ahead, turned to when the one before is full, removed when the store has all of it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::append::{Content, Inner};
use super::record::{FILE_HEADER, FileHeader, HEADER, Kind, LONGEST_RECORD, file_name};
use super::{Refused, Shared};
use crate::disk::{DiskError, Sheet};

/// A file that holds records.
pub(super) struct Queueing {
    pub(super) number: u64,
    pub(super) sheet: Arc<dyn Sheet>,
    pub(super) seed: u32,
    pub(super) at: u64,
    pub(super) size: u64,
    /// Up to here it is on disk.
    pub(super) synced: u64,
    /// Highest sequence in it or before it.
    pub(super) last_sequence: u64,
    /// Requests that began in here and have not ended.
    pub(super) open: usize,
    /// What was carried over from here lies before this position; it has to be on disk before this file goes.
    pub(super) carried: u64,
    pub(super) charges: HashMap<Arc<str>, u64>,
}

impl Queueing {
    /// A record may find too little left at the end of a file, so that much is not counted on.
    pub(super) fn room(&self) -> u64 {
        self.size.saturating_sub(self.at + LONGEST_RECORD as u64)
    }

    pub(super) fn path(&self, shared: &Shared) -> PathBuf {
        shared.disk.place().join(file_name(self.number))
    }
}

/// A file made ahead, its header on disk.
pub(super) struct Spare {
    pub(super) number: u64,
    pub(super) sheet: Arc<dyn Sheet>,
    pub(super) seed: u32,
    pub(super) size: u64,
}

impl Spare {
    pub(super) fn room(&self) -> u64 {
        self.size
            .saturating_sub((FILE_HEADER + HEADER + LONGEST_RECORD) as u64)
    }
}

/// A queue that is hardly used takes no more than two of these; on a box without a disk that is memory.
const SMALL: u64 = 512 * 1024;
/// Whoever needs another file within this needs larger ones.
const BUSY: Duration = Duration::from_secs(5);

impl Inner {
    fn next_size(&mut self, most: u64) -> u64 {
        let now = Instant::now();
        let size = match self.newest {
            Some((size, at)) if now.duration_since(at) < BUSY => size.saturating_mul(2).min(most),
            _ => SMALL.min(most),
        };
        self.newest = Some((size, now));
        size
    }

    pub(super) fn make_spare(&mut self, shared: &Shared) -> Result<Spare, DiskError> {
        let number = self.next_file;
        let name = file_name(number);
        let error = |doing| DiskError::of(doing, shared.disk.place().join(&name));
        let size = self.next_size(shared.settings.file_bytes());
        let sheet = shared
            .disk
            .create(&name, size)
            .map_err(error("setting space aside for"))?;
        // Used up even if what follows fails: the name is taken.
        self.next_file += 1;
        let header = FileHeader {
            number,
            salt: random(),
            queue: self.queue,
        };
        sheet
            .write_at(0, &header.write())
            .map_err(error("writing the head of"))?;
        sheet.sync().map_err(error("syncing"))?;
        shared
            .disk
            .sync_names()
            .map_err(error("syncing the name of"))?;
        Ok(Spare {
            number,
            sheet,
            seed: header.seed(),
            size,
        })
    }

    /// From now on the next file is written to. Its first record says where the numbers stand, so that they go on
    /// when all earlier files are gone.
    pub(super) fn turn(&mut self, shared: &Shared) -> Result<(), Refused> {
        let spare = match self.spares.pop_front() {
            Some(spare) => spare,
            None => self.make_spare(shared).map_err(Refused::Space)?,
        };
        self.files.push_back(Queueing {
            number: spare.number,
            sheet: spare.sheet,
            seed: spare.seed,
            at: FILE_HEADER as u64,
            size: spare.size,
            synced: 0,
            last_sequence: self.next_sequence - 1,
            open: 0,
            carried: 0,
            charges: HashMap::new(),
        });
        let mut base = Content {
            bytes: &mut [0; HEADER],
            owner: 0,
            sum: 0,
        };
        self.append(
            shared,
            Kind::Base,
            (self.next_sequence, self.next_ticket),
            &mut base,
        )
    }

    /// Removes the oldest file if nobody needs it any more. The oldest alone: the end of a request must not go before
    /// its beginning, or recovery would end it once more.
    pub(super) fn remove_oldest(&mut self, shared: &Shared) -> Result<bool, DiskError> {
        let [oldest, next, ..] = self.files.make_contiguous() else {
            return Ok(false);
        };
        let needed = oldest.open > 0
            || oldest.synced < oldest.at
            || oldest.last_sequence > self.acknowledged
            || oldest.carried > *shared.durable.borrow()
            // The base of the next one has to outlive this one.
            || next.synced < (FILE_HEADER + HEADER) as u64;
        if needed {
            return Ok(false);
        }
        let path = oldest.path(shared);
        shared
            .disk
            .remove(&file_name(oldest.number))
            .map_err(DiskError::of("removing", path.clone()))?;
        // Before the next removal, so that no crash can undo this one alone.
        shared
            .disk
            .sync_names()
            .map_err(DiskError::of("syncing the removal of", path))?;
        if let Some(removed) = self.files.pop_front() {
            self.gone = removed.last_sequence.max(self.gone);
            for (owner, bytes) in removed.charges {
                if let Some(share) = self.shares.get_mut(&owner) {
                    *share = share.saturating_sub(bytes);
                    if *share == 0 {
                        self.shares.remove(&owner);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// Not for secrets: it tells files apart.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without a source of random numbers the clock has to do; a checksum is no secret.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes = crate::event::Micros::now().0.to_le_bytes();
    }
    u64::from_le_bytes(bytes)
}
