//! Retention: the oldest sealed segments go when they are too old or all are too much. Each leaves its sealing
//! checkpoint, so that the chain can still be followed over the gap.
//!
//! How old a segment is, its seal says, not its events: a gateway whose clock is wrong must not have anything removed.
//! Nor must this box's own: the clock that age is held against never runs faster than time does, and by age one segment
//! goes at a step. What a collector still has to get does not go by age; where room is short it goes, and is told.

use std::time::Duration;

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

/// The moment that age is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock(Micros);

impl Clock {
    /// `last`: when the store last signed anything. While the service was off this clock stood still.
    pub fn starting(wall: Micros, last: Option<Micros>) -> Self {
        Self(last.map_or(wall, |last| last.min(wall)))
    }

    /// Goes on by what has really gone by; back at once.
    pub fn step(&mut self, wall: Micros, elapsed: Duration) -> Micros {
        let elapsed = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX);
        self.0 = wall.min(Micros(self.0.0.saturating_add(elapsed)));
        self.0
    }
}

/// What has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    pub segment: u64,
    /// A collector has not got all of it.
    pub awaited: bool,
}

impl Default for Retention {
    fn default() -> Self {
        let settings = clawgress_config::access::AuditSettings::default();
        Self {
            days: settings.retain_days,
            bytes: settings.retain_bytes,
        }
    }
}

const DAY: i64 = 86_400 * 1_000_000;

impl Store {
    /// Removes what is to go, and returns the numbers: by room as many as it takes, by age one. The segment that grows
    /// stays; one that was not sealed, because it is damaged, stays too: somebody has to look at it. `awaited`: from
    /// this segment on, collectors have not got everything.
    pub fn prune(
        &self,
        retention: Retention,
        now: Micros,
        awaited: Option<u64>,
    ) -> Result<Vec<Gone>, StoreError> {
        let oldest_kept = Micros(now.0.saturating_sub(i64::from(retention.days) * DAY));
        let mut removed = Vec::new();
        let mut aged = false;
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
            let is_awaited = awaited.is_some_and(|awaited| number >= awaited);
            if !too_much && (is_awaited || aged) {
                break;
            }
            let Some((seal, sealed)) = self.seal_of(number)? else {
                tracing::warn!(
                    "{} is not sealed as it should be and stays, whatever its age; see `clawgress audit verify`",
                    self.disk.place().join(segment_name(number)).display()
                );
                self.writer().blocked = Some(number);
                break;
            };
            self.writer().blocked = None;
            if !too_much && sealed >= oldest_kept {
                break;
            }
            aged |= !too_much;
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
            removed.push(Gone {
                segment: number,
                awaited: is_awaited,
            });
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
