//! Retention: the oldest sealed segments go when they are too old or all are too much. Each leaves its sealing
//! checkpoint, so that the chain can still be followed over the gap.
//!
//! How old a segment is, its seal says, not its events: a gateway whose clock is wrong must not have anything removed.

use super::checkpoint;
use super::line::{Kind, Lines, kind};
use super::write::replace;
use super::{Store, StoreError, index_name, pruned_name, segment_name};
use crate::disk::{DiskError, read_all};
use crate::event::Micros;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub days: u32,
    pub bytes: u64,
}

const DAY: i64 = 86_400 * 1_000_000;

impl Store {
    /// Removes what is to go, and returns the numbers. The segment that grows stays; one that was not sealed, because
    /// it is damaged, stays too: somebody has to look at it.
    pub fn prune(&self, retention: Retention, now: Micros) -> Result<Vec<u64>, StoreError> {
        let oldest_kept = Micros(now.0.saturating_sub(i64::from(retention.days) * DAY));
        let mut removed = Vec::new();
        loop {
            let (number, too_much) = {
                let writer = self.writer();
                let held: u64 = writer.segments.values().map(|segment| segment.bytes).sum();
                let mut oldest = writer.segments.keys();
                let (Some(number), Some(_)) = (oldest.next(), oldest.next()) else {
                    break;
                };
                (*number, held > retention.bytes)
            };
            let Some((seal, sealed)) = self.seal_of(number)? else {
                tracing::warn!(
                    "{} is not sealed as it should be and stays, whatever its age; see `clawgress audit verify`",
                    self.disk.place().join(segment_name(number)).display()
                );
                break;
            };
            if !too_much && sealed >= oldest_kept {
                break;
            }
            let error = |doing| DiskError::of(doing, self.disk.place().join(segment_name(number)));
            replace(&*self.disk, &pruned_name(number), &seal)?;
            // Out of the books first: no query begins to read it any more.
            self.writer().segments.remove(&number);
            self.disk
                .remove(&segment_name(number))
                .map_err(error("removing"))?;
            // It is derived: missing or left, it changes nothing.
            let _ = self.disk.remove(&index_name(number));
            self.disk
                .sync_names()
                .map_err(error("syncing the removal of"))?;
            removed.push(number);
        }
        Ok(removed)
    }

    /// The last line's JSON and when it was signed, if it is a good sealing checkpoint.
    fn seal_of(&self, number: u64) -> Result<Option<(Vec<u8>, Micros)>, StoreError> {
        let path = self.disk.place().join(segment_name(number));
        let sheet = self
            .disk
            .open(&segment_name(number))
            .map_err(DiskError::of("opening", path.clone()))?;
        let bytes = read_all(&*sheet).map_err(DiskError::of("reading", path))?;
        Ok(Lines::new(&bytes)
            .last()
            .filter(|line| kind(line.json) == Some(Kind::Checkpoint))
            .and_then(|line| {
                let seal = checkpoint::read(line.json, Some(self.key.public())).ok()?;
                let good = seal.sealed && seal.segment == number;
                good.then(|| (line.json.to_vec(), seal.time))
            }))
    }
}
