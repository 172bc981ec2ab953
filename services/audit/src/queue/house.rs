//! The keeper's thread: syncs for all who wait, makes files ahead, removes those that the store has, carries long
//! requests over, and tells what had to be dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::append::{Content, Open};
use super::record::{HEADER, Kind};
use super::{Durability, INTERVAL, Refused, Shared};
use crate::checksum::crc32c;
use crate::disk::{DiskError, Sheet};
use crate::event::{Begun, Decision, Micros, Outcome, Source};

/// More files than this, and a long request no longer holds the oldest one.
const FILES_BEFORE_CARRYING: usize = 3;
const COMPLAINT: Duration = Duration::from_secs(10);

/// Without its keeper nothing is synced or told any more, so nothing more may be taken.
struct UnlessPanicking<'s>(&'s Shared);

impl Drop for UnlessPanicking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().break_down(self.0, "its keeper has died");
        }
    }
}

impl Shared {
    pub(super) fn keep_house(&self) {
        let _alive = UnlessPanicking(self);
        let mut complained: Option<Instant> = None;
        loop {
            let stop = self.stop.load(Ordering::Acquire);
            if !stop && !self.dirty.load(Ordering::Acquire) {
                let patience = self.lock().patience();
                let Some(patience) = patience else {
                    std::thread::park();
                    continue;
                };
                std::thread::park_timeout(patience);
            }
            self.end_folds(stop);
            let ended = self.lock().retry_ends(self);
            if !stop && self.settings.durability == Durability::Batch {
                std::thread::park_timeout(INTERVAL);
            }
            self.dirty.store(false, Ordering::Release);
            self.sync_all();
            // What goes makes room, so this is done though an end found none.
            let kept = self.tidy();
            if let Err(error) = ended.and(kept)
                && complained.is_none_or(|at| at.elapsed() > COMPLAINT)
            {
                tracing::warn!("keeping the audit queue in order: {error}");
                complained = Some(Instant::now());
            }
            if stop {
                return;
            }
        }
    }

    /// Puts on disk what had been appended when it began, oldest file first.
    pub(super) fn sync_all(&self) {
        let (position, sequence, todo) = {
            let inner = self.lock();
            if inner.broken.is_some() {
                return;
            }
            let todo: Vec<(u64, Arc<dyn Sheet>, u64)> = inner
                .files
                .iter()
                .filter(|file| file.synced < file.at)
                .map(|file| (file.number, Arc::clone(&file.sheet), file.at))
                .collect();
            (inner.position, inner.next_sequence - 1, todo)
        };
        for (number, sheet, at) in todo {
            // Outside the lock: appends go on meanwhile.
            let synced = sheet.sync();
            let mut inner = self.lock();
            let Some(file) = inner.files.iter_mut().find(|file| file.number == number) else {
                continue;
            };
            match synced {
                Ok(()) => file.synced = file.synced.max(at),
                Err(source) => {
                    // The kernel may have thrown the pages away and would report success the next time.
                    let error = DiskError::of("syncing", file.path(self))(source);
                    inner.break_down(self, &error.to_string());
                    return;
                }
            }
        }
        self.lock().durable_sequence = sequence;
        self.durable.send_if_modified(|durable| {
            let risen = position > *durable;
            *durable = position.max(*durable);
            risen
        });
    }

    pub(super) fn tidy(&self) -> Result<(), Refused> {
        while self.lock().remove_oldest(self).map_err(Refused::Space)? {}
        self.carry()?;
        self.tell_dropped()?;
        self.turn_if_idle()?;
        let mut inner = self.lock();
        let ahead = inner.spares.is_empty()
            && inner.held() + self.settings.file_bytes() <= self.settings.max_bytes
            && inner.broken.is_none();
        if ahead {
            let spare = inner.make_spare(self).map_err(Refused::Space)?;
            inner.spares.push_back(spare);
        }
        Ok(())
    }

    /// Begins once more, in the newest file and under the same number, what keeps the oldest file from going.
    fn carry(&self) -> Result<(), Refused> {
        let mut inner = self.lock();
        let acknowledged = inner.acknowledged;
        let number = match inner.files.front() {
            Some(oldest)
                if inner.files.len() > FILES_BEFORE_CARRYING
                    && oldest.last_sequence <= acknowledged =>
            {
                oldest.number
            }
            _ => return Ok(()),
        };
        let tickets: Vec<u64> = inner
            .begun
            .iter()
            .filter(|(_, open)| open.file == number)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in tickets {
            let Some(Open { owner, body, .. }) = inner.begun.get(&ticket) else {
                continue;
            };
            let mut bytes = [&[0; HEADER], &body[..]].concat();
            let charge = bytes.len() as u64;
            let mut content = Content {
                bytes: &mut bytes,
                owner: *owner,
                sum: crc32c(0, body),
            };
            // Ends must still find their room.
            if inner.room() < inner.reserved + charge {
                return Ok(());
            }
            inner.append(self, Kind::Begun, (0, ticket), &mut content)?;
            inner.charge(content.owner(), charge);
            let newest = inner.files.back_mut().map_or(0, |file| {
                file.open += 1;
                file.number
            });
            if let Some(open) = inner.begun.get_mut(&ticket) {
                open.file = newest;
            }
            let position = inner.position;
            if let Some(oldest) = inner.files.front_mut() {
                oldest.open -= 1;
                oldest.carried = position;
            }
        }
        Ok(())
    }

    /// One event for each owner some of whose events found no room.
    fn tell_dropped(&self) -> Result<(), Refused> {
        let dropped: Vec<_> = {
            let inner = self.lock();
            inner
                .dropped
                .iter()
                .map(|(owner, count)| (Arc::clone(owner), *count))
                .collect()
        };
        for (owner, count) in dropped {
            let begun = Begun {
                timestamp: Micros::now(),
                source: Source::Audit,
                agent_id: (!owner.is_empty()).then(|| owner.as_ref().into()),
                alert: true,
                ..Begun::default()
            };
            let outcome = Outcome {
                decision: Decision::Notice,
                reason: Some("queue-full".into()),
                folded: Some(count),
                ..Outcome::default()
            };
            let told = super::with_content(&begun, Some(&outcome), |content| {
                self.lock().whole(self, content)
            });
            match told {
                Ok(_) => {
                    let mut inner = self.lock();
                    if let Some(left) = inner.dropped.get_mut(&owner) {
                        *left -= count;
                        if *left == 0 {
                            inner.dropped.remove(&owner);
                        }
                    }
                }
                // Told as soon as there is room again.
                Err(Refused::Full(_) | Refused::Share(_) | Refused::Space(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A half full file of which the store has everything is left, so that shares are given back.
    fn turn_if_idle(&self) -> Result<(), Refused> {
        let mut inner = self.lock();
        let idle = inner.files.back().is_some_and(|file| {
            file.at > file.size / 2 && file.last_sequence <= inner.acknowledged && file.open == 0
        });
        if idle && !inner.spares.is_empty() && inner.broken.is_none() {
            inner.turn(self)?;
        }
        Ok(())
    }
}
