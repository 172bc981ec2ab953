//! Who may append to a queue's events, and what of: one connection at a time, sequences behind each other. What a
//! shipper says of itself is held against what is in here; a step that would make the store pass over events is refused
//! and so stays in the shipper's queue.

use std::collections::BTreeMap;

use super::{Store, StoreError, Writer};
use crate::queue::Queued;

/// Queues of one gateway: each loss of its disk makes another one.
const MOST_QUEUES: usize = 1024;
const MOST_NAMES: usize = 16 * 1024;
/// More events than this are missing in no queue; such a step is a mistake or a lie.
const MOST_MISSING: u64 = 1 << 32;

/// The right of a connection to append to its queue, until another one of that queue is admitted.
#[derive(Debug)]
pub struct Turn {
    gateway: String,
    queue: String,
    number: u64,
    /// Of the first batch alone: events that its queue no longer has may be missing before it.
    first: bool,
}

/// Which connection of a queue is the latest; no other appends.
#[derive(Debug, Default)]
pub(super) struct Turns {
    latest: BTreeMap<String, u64>,
    /// Of the last one given; no number is given twice.
    number: u64,
}

#[cfg(test)]
impl Turns {
    pub(super) fn len(&self) -> usize {
        self.latest.len()
    }
}

impl Writer {
    fn next_turn(&mut self, name: String) -> u64 {
        let Turns { latest, number } = &mut self.turns;
        if latest.len() >= MOST_NAMES {
            // Whoever came and brought nothing comes once more.
            latest.retain(|name, _| self.state.gateways.contains_key(name));
        }
        *number += 1;
        latest.insert(name, *number);
        *number
    }
}

impl Store {
    /// Admits a connection, and tells the highest sequence of its queue that is in here. `gone`: up to this one the
    /// queue has nothing any more; what of it is not in here is missing, and told so.
    pub fn admit(&self, gateway: &str, queue: &str, gone: u64) -> Result<(Turn, u64), StoreError> {
        super::judge_names(gateway, queue)?;
        let name = format!("{gateway}/{queue}");
        let mut writer = self.writer();
        let known = &writer.state.gateways;
        if !known.contains_key(&name) {
            let begin = format!("{gateway}/");
            let own = known
                .range(begin.clone()..)
                .take_while(|(name, _)| name.starts_with(&begin));
            if own.count() >= MOST_QUEUES || known.len() >= MOST_NAMES {
                return Err(StoreError::Shipper(format!(
                    "'{gateway}' has come with {MOST_QUEUES} queues already, or all gateways with {MOST_NAMES}; it must keep the queue it has"
                )));
            }
        }
        let mut highest = known.get(&name).copied().unwrap_or(0);
        if gone > highest {
            step(&name, highest, gone)?;
            let filled = writer.fill(self, &name, gone.saturating_add(1));
            self.settle(&mut writer, filled)?;
            highest = gone;
        }
        let turn = Turn {
            gateway: gateway.to_owned(),
            queue: queue.to_owned(),
            number: writer.next_turn(name),
            first: true,
        };
        Ok((turn, highest))
    }

    /// All of these or none; returns the highest sequence of the queue, up to which all is on disk.
    pub fn append_in_turn(&self, turn: &mut Turn, records: &[Queued]) -> Result<u64, StoreError> {
        let mut writer = self.writer();
        if let Err(error) = turn.judge(&writer, records) {
            let known = writer
                .state
                .gateways
                .get(&turn.name())
                .copied()
                .unwrap_or(0);
            let again = records.iter().filter(|record| record.sequence <= known);
            writer.counts.duplicate += again.count() as u64;
            return Err(error);
        }
        let appended = writer.append(self, (&turn.gateway, &turn.queue), records);
        let highest = self.settle(&mut writer, appended)?;
        turn.first = false;
        Ok(highest)
    }
}

impl Turn {
    fn name(&self) -> String {
        format!("{}/{}", self.gateway, self.queue)
    }

    fn judge(&self, writer: &Writer, records: &[Queued]) -> Result<(), StoreError> {
        let name = self.name();
        let wrong = |what: String| Err(StoreError::Shipper(format!("{name}: {what}")));
        if writer.turns.latest.get(&name) != Some(&self.number) {
            return wrong("another connection of this queue has taken over".to_owned());
        }
        let mut last = writer.state.gateways.get(&name).copied().unwrap_or(0);
        for (at, record) in records.iter().enumerate() {
            let sequence = record.sequence;
            if sequence <= last {
                return wrong(format!("event {sequence} behind event {last}"));
            }
            if sequence - last > 1 {
                if at > 0 || !self.first {
                    return wrong(format!(
                        "event {sequence} behind event {last}; a queue leaves none out"
                    ));
                }
                step(&name, last, sequence - 1)?;
            }
            last = sequence;
        }
        Ok(())
    }
}

fn step(name: &str, highest: u64, missing_to: u64) -> Result<(), StoreError> {
    if missing_to - highest > MOST_MISSING {
        return Err(StoreError::Shipper(format!(
            "{name}: events {} to {missing_to} would be missing; no queue loses so many",
            highest + 1
        )));
    }
    Ok(())
}
