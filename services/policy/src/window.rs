//! When a time window is open, and when that next changes. Pure; the time zone is looked up in the bundled data base,
//! never in files of the machine.
//!
//! A window means what the clock on the wall shows: it is open exactly while that clock shows a time from its start up
//! to its end, on a day of its own. So, when clocks change:
//! - a window inside the hour that is skipped does not open that night, and one that reaches into it ends at the jump;
//! - a window inside the hour that comes twice opens twice, and one that ended in it opens again until that end.
//!
//! A window across midnight belongs to the day on which it starts, and so does its part after midnight.

use clawgress_config::policy::{Day, TimeWindow};
use jiff::{
    Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;
const MINUTES_OF_DAY: u16 = 1_440;
/// A window that is ever open and ever shut changes within eight days, or within fifteen if a change of the clocks
/// takes one occurrence away.
const HORIZON: i64 = 22 * DAY;

/// A time zone of the IANA data base.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "looking up the time zone `{0}`: the data base has none of that name; write one like Europe/Berlin, or UTC"
)]
pub struct UnknownZone(pub String);

impl Zone {
    pub fn named(name: &str) -> Result<Self, UnknownZone> {
        TimeZoneDatabase::bundled()
            .get(name)
            .map(Self)
            .map_err(|_| UnknownZone(name.to_owned()))
    }

    /// What the clock on the wall shows, as seconds since it would have shown the start of 1970.
    pub(crate) fn wall(&self, now: i64) -> Option<i64> {
        let instant = Timestamp::from_second(now).ok()?;
        now.checked_add(i64::from(self.0.to_offset(instant).seconds()))
    }
}

/// A time window, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Bit 0 is Monday.
    days: u8,
    /// Minutes since midnight.
    start: u16,
    end: u16,
}

impl From<&TimeWindow> for Window {
    fn from(window: &TimeWindow) -> Self {
        Self {
            days: window.days.iter().fold(0, |days, day| days | bit(*day)),
            start: window.start.0,
            end: window.end.0,
        }
    }
}

fn bit(day: Day) -> u8 {
    match day {
        Day::Mon => 1,
        Day::Tue => 1 << 1,
        Day::Wed => 1 << 2,
        Day::Thu => 1 << 3,
        Day::Fri => 1 << 4,
        Day::Sat => 1 << 5,
        Day::Sun => 1 << 6,
    }
}

impl Window {
    /// Has no day to start on.
    pub(crate) const NEVER: Self = Self {
        days: 0,
        start: 0,
        end: MINUTES_OF_DAY,
    };

    /// Whether it is open at `now`. Shut at instants that no calendar has.
    pub fn is_open(self, zone: &Zone, now: i64) -> bool {
        zone.wall(now).is_some_and(|wall| self.shows(wall))
    }

    /// The first instant after `now` at which it opens or closes; None if it never does.
    pub fn next_change(self, zone: &Zone, now: i64) -> Option<i64> {
        if self.is_always_open() || self.days == 0 {
            return None;
        }
        let until = now.checked_add(HORIZON)?;
        let instant = Timestamp::from_second(now).ok()?;
        let mut offset = i64::from(zone.0.to_offset(instant).seconds());
        let state = self.shows(now + offset);
        let mut from = now;
        // Between two changes of the zone's offset the clock on the wall runs like any clock.
        for change in zone.0.following(instant) {
            let at = change.timestamp().as_second();
            if at > until {
                break;
            }
            if let Some(found) = self.change_within(state, offset, from, at) {
                return Some(found);
            }
            offset = i64::from(change.offset().seconds());
            if self.shows(at + offset) != state {
                return Some(at);
            }
            from = at;
        }
        self.change_within(state, offset, from, until)
    }

    /// The first instant after `from` and before `until` at which it is not in `state`, under one offset.
    fn change_within(self, state: bool, offset: i64, from: i64, until: i64) -> Option<i64> {
        let edges = [self.start.min(self.end), self.start.max(self.end)];
        let first = (from + offset).div_euclid(DAY);
        let last = (until + offset).div_euclid(DAY);
        // The day before: an edge at 24:00 is already of the next day.
        (first - 1..=last)
            .flat_map(|day| edges.map(|edge| day * DAY + i64::from(edge) * MINUTE))
            .find(|wall| {
                let at = wall - offset;
                at > from && at < until && self.shows(*wall) != state
            })
            .map(|wall| wall - offset)
    }

    fn is_always_open(self) -> bool {
        self.days == 0x7f && self.start == 0 && self.end == MINUTES_OF_DAY
    }

    /// Whether it is open while the clock on the wall shows this.
    pub(crate) fn shows(self, wall: i64) -> bool {
        let minute = wall.rem_euclid(DAY) / MINUTE;
        let (start, end) = (i64::from(self.start), i64::from(self.end));
        // 1970 began on a Thursday.
        let weekday = (wall.div_euclid(DAY) + 3).rem_euclid(7);
        let starts_on = |weekday: i64| self.days & (1 << weekday.rem_euclid(7)) != 0;
        if start < end {
            return starts_on(weekday) && minute >= start && minute < end;
        }
        // One without length is never made; if it were, it would never open.
        start > end
            && ((starts_on(weekday) && minute >= start) || (starts_on(weekday - 1) && minute < end))
    }
}
