//! The book of caps: what is used of each in its present period, kept on disk so that neither a restart nor a loss of
//! power gives it back, and which are used up.
//!
//! The kernel counts; this only reads it, writes it down and begins periods. Periods are fixed and follow the clock on
//! the wall: each second, each minute, each hour and each day of the appliance's time zone. While the clock can't be
//! believed, a period lasts as long by the clock of the boot, so that turning the wall clock frees nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use clawgress_config::policy::{Cap, DomainPattern, Period};
use clawgress_link::control::CapUse;
use clawgress_link::durable::{self, FileError};
use clawgress_policy::{Index, Moment};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use super::shared::CapKey;
use crate::kernel::objects::Quota;
use crate::plan::{Counted, What};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    principal: String,
    pattern: String,
    /// Seconds of the period.
    period: u64,
    /// When it began by the clock on the wall.
    start: i64,
    used: u64,
    /// When it began by the clock of the boot.
    #[serde(skip)]
    since_boot: u64,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    path: PathBuf,
    entries: BTreeMap<(String, String), Entry>,
    dirty: bool,
}

/// A cap of the revision in force.
struct Known<'p> {
    object: &'p str,
    principal: &'p str,
    pattern: &'p DomainPattern,
    cap: Cap,
}

/// What to do about one quota of the kernel.
pub(super) struct Reset {
    pub(super) object: String,
    key: (String, String),
    start: i64,
}

impl Book {
    pub(super) fn open(state: &Path) -> Self {
        let path = state.join("caps.json");
        let entries: Vec<Entry> = std::fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Self {
            path,
            entries: entries
                .into_iter()
                .map(|entry| ((entry.principal.clone(), entry.pattern.clone()), entry))
                .collect(),
            dirty: false,
        }
    }

    /// What a quota that is made anew begins with. A period that is over counts no more.
    pub(super) fn used(
        &self,
        index: &Index,
        zone: &TimeZone,
        moment: Moment,
    ) -> BTreeMap<(String, String), u64> {
        let mut used = BTreeMap::new();
        for who in index.principals() {
            for (pattern, cap) in index.caps(who) {
                let key = (who.name.clone(), pattern.as_str().to_owned());
                let begun = start_of(cap.period, moment.now, zone);
                if let Some(entry) = self.entries.get(&key)
                    && !(moment.trusted && begun > entry.start)
                {
                    used.insert(key, entry.used);
                }
            }
        }
        used
    }

    /// Takes over what the kernel says, and tells which quotas begin a new period. `since_boot` is in seconds.
    pub(super) fn read(
        &mut self,
        index: &Index,
        counted: &[Counted],
        quotas: &HashMap<String, Quota>,
        zone: &TimeZone,
        moment: Moment,
        since_boot: u64,
    ) -> Vec<Reset> {
        let mut resets = Vec::new();
        for known in known(index, counted) {
            let Some(quota) = quotas.get(known.object) else {
                continue;
            };
            let key = (
                known.principal.to_owned(),
                known.pattern.as_str().to_owned(),
            );
            let start = start_of(known.cap.period, moment.now, zone);
            let period = known.cap.period.seconds();
            let entry = self.entries.entry(key.clone()).or_insert_with(|| Entry {
                principal: key.0.clone(),
                pattern: key.1.clone(),
                period,
                start,
                used: 0,
                since_boot,
            });
            if entry.since_boot == 0 {
                entry.since_boot = since_boot;
            }
            if entry.period != period {
                entry.period = period;
                self.dirty = true;
            }
            if entry.used != quota.used {
                entry.used = quota.used;
                self.dirty = true;
            }
            let over = if moment.trusted {
                start > entry.start
            } else {
                since_boot >= entry.since_boot.saturating_add(period)
            };
            if over {
                resets.push(Reset {
                    object: known.object.to_owned(),
                    key,
                    start: if moment.trusted { start } else { entry.start },
                });
            }
        }
        resets
    }

    /// The kernel has begun anew.
    pub(super) fn was_reset(&mut self, reset: &Reset, since_boot: u64) {
        if let Some(entry) = self.entries.get_mut(&reset.key) {
            entry.used = 0;
            entry.start = reset.start;
            entry.since_boot = since_boot;
            self.dirty = true;
        }
    }

    /// Caps that are used up, and the use of all.
    pub(super) fn standing(
        &self,
        index: &Index,
        zone: &TimeZone,
        moment: Moment,
    ) -> (BTreeSet<CapKey>, Vec<(String, CapUse)>) {
        let mut over = BTreeSet::new();
        let mut all = Vec::new();
        for who in index.principals() {
            for (pattern, cap) in index.caps(who) {
                let key = (who.name.clone(), pattern.as_str().to_owned());
                let used = self.entries.get(&key).map_or(0, |entry| entry.used);
                if used >= cap.bytes {
                    over.insert((who.name.clone(), pattern.clone()));
                }
                let start = start_of(cap.period, moment.now, zone);
                all.push((
                    who.name.clone(),
                    CapUse {
                        domain: pattern.as_str().to_owned(),
                        period: word(cap.period).to_owned(),
                        limit: cap.bytes,
                        used,
                        resets_at: start_after(cap.period, start, zone),
                    },
                ));
            }
        }
        (over, all)
    }

    /// Writes the book down if it has changed.
    pub(super) fn keep(&mut self) -> Result<(), FileError> {
        if !self.dirty {
            return Ok(());
        }
        let entries: Vec<&Entry> = self.entries.values().collect();
        let text = serde_json::to_vec(&entries).unwrap_or_default();
        durable::replace(&self.path, &text)?;
        self.dirty = false;
        Ok(())
    }
}

fn known<'p>(index: &'p Index, counted: &'p [Counted]) -> impl Iterator<Item = Known<'p>> {
    counted.iter().filter_map(|counted| {
        let What::Cap(pattern) = &counted.what else {
            return None;
        };
        let who = index.by_name(&counted.principal)?;
        let (pattern, cap) = index
            .caps(who)
            .iter()
            .find(|(known, _)| known.as_str() == pattern)?;
        Some(Known {
            object: &counted.object,
            principal: &counted.principal,
            pattern,
            cap: *cap,
        })
    })
}

/// The zone of a revision; UTC where nobody knows it, which a revision in force has been checked for.
pub(super) fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled()
        .get(name)
        .unwrap_or(TimeZone::UTC)
}

fn word(period: Period) -> &'static str {
    match period {
        Period::Second => "second",
        Period::Minute => "minute",
        Period::Hour => "hour",
        Period::Day => "day",
    }
}

/// When the period began in which this moment is.
fn start_of(period: Period, now: i64, zone: &TimeZone) -> i64 {
    let Ok(instant) = Timestamp::from_second(now) else {
        return 0;
    };
    if period == Period::Day {
        let day = instant.to_zoned(zone.clone()).start_of_day();
        return day.map_or(0, |start| start.timestamp().as_second());
    }
    let offset = i64::from(zone.to_offset(instant).seconds());
    let seconds = i64::try_from(period.seconds()).unwrap_or(1);
    now - (now + offset).rem_euclid(seconds)
}

fn start_after(period: Period, start: i64, zone: &TimeZone) -> i64 {
    if period != Period::Day {
        return start.saturating_add(i64::try_from(period.seconds()).unwrap_or(0));
    }
    // Noon of the next day is in it, however long this one is.
    start_of(period, start.saturating_add(36 * 3_600), zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_follow_the_clock_on_the_wall() {
        let berlin = zone("Europe/Berlin");
        let kathmandu = zone("Asia/Kathmandu");
        // 2025-06-01 12:34:56 UTC
        let now = 1_748_781_296;
        assert_eq!(start_of(Period::Second, now, &berlin), now);
        assert_eq!(start_of(Period::Minute, now, &berlin), now - 56);
        assert_eq!(start_of(Period::Hour, now, &berlin), now - 34 * 60 - 56);
        // 18:19:56 there, a quarter to.
        assert_eq!(start_of(Period::Hour, now, &kathmandu), now - 19 * 60 - 56);
        assert_eq!(
            start_of(Period::Day, now, &berlin),
            now - 14 * 3600 - 34 * 60 - 56
        );
    }

    #[test]
    fn the_day_on_which_clocks_change_is_one_day() {
        let berlin = zone("Europe/Berlin");
        // 2025-03-30 00:00 +01:00; it has 23 hours.
        let start = 1_743_289_200;
        assert_eq!(start_of(Period::Day, start + 3600, &berlin), start);
        assert_eq!(start_after(Period::Day, start, &berlin), start + 23 * 3600);
        // 2025-10-26, 25 hours.
        let start = 1_761_429_600;
        assert_eq!(start_after(Period::Day, start, &berlin), start + 25 * 3600);
    }

    #[test]
    fn a_torn_book_is_an_empty_one() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("caps.json"), "[{\"pr").unwrap();
        assert!(Book::open(scratch.path()).entries.is_empty());
    }
}
