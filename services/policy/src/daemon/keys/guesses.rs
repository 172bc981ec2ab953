//! Slows down who guesses keys: each source has a few wrong ones a minute, and then none.
//!
//! Pure: the time is an argument. Bounded: when too many sources guess, those without a place of their own share one.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Wrong keys that a source may send in one period.
const ALLOWED: u32 = 8;
const PERIOD: Duration = Duration::from_secs(60);
const SOURCES: usize = 4096;
/// Looking for those whose time is over costs a walk through the table.
const BETWEEN_WALKS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Guesses {
    by_source: HashMap<IpAddr, Count>,
    others: Option<Count>,
    walked: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    wrong: u32,
    since: Instant,
}

impl Count {
    fn left(self, now: Instant) -> Option<Duration> {
        PERIOD
            .checked_sub(now.saturating_duration_since(self.since))
            .filter(|left| !left.is_zero())
    }
}

impl Guesses {
    /// How long this source has to wait before another key of its is looked at.
    pub(crate) fn wait(&self, source: IpAddr, now: Instant) -> Option<Duration> {
        let count = match self.by_source.get(&source) {
            Some(count) => *count,
            None => self.others.filter(|_| self.by_source.len() >= SOURCES)?,
        };
        count.left(now).filter(|_| count.wrong >= ALLOWED)
    }

    pub(crate) fn wrong(&mut self, source: IpAddr, now: Instant) {
        let rested = self
            .walked
            .is_none_or(|walked| now.saturating_duration_since(walked) >= BETWEEN_WALKS);
        if rested && self.by_source.len() >= SOURCES && !self.by_source.contains_key(&source) {
            self.by_source.retain(|_, count| count.left(now).is_some());
            self.walked = Some(now);
        }
        let full = self.by_source.len() >= SOURCES;
        let fresh = Count {
            wrong: 0,
            since: now,
        };
        let count = if full && !self.by_source.contains_key(&source) {
            self.others.get_or_insert(fresh)
        } else {
            self.by_source.entry(source).or_insert(fresh)
        };
        if count.left(now).is_none() {
            *count = fresh;
        }
        count.wrong = count.wrong.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guesser_waits_out_his_minute_and_nobody_else_does() {
        let mut guesses = Guesses::default();
        let (stranger, honest) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let start = Instant::now();
        for _ in 0..ALLOWED {
            assert_eq!(guesses.wait(stranger, start), None);
            guesses.wrong(stranger, start);
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(guesses.wait(stranger, later), Some(Duration::from_secs(40)));
        assert_eq!(guesses.wait(honest, later), None);
        assert_eq!(guesses.wait(stranger, start + PERIOD), None);
        guesses.wrong(stranger, start + PERIOD);
        assert_eq!(guesses.wait(stranger, start + PERIOD), None);
    }

    #[test]
    fn a_crowd_of_sources_takes_no_more_memory_and_gets_no_more_guesses() {
        let mut guesses = Guesses::default();
        let now = Instant::now();
        for source in 0..100_000_u32 {
            guesses.wrong(IpAddr::V4(source.into()), now);
        }
        assert!(guesses.by_source.len() <= SOURCES);
        assert!(guesses.wait([200, 0, 0, 1].into(), now).is_some());
        // Those of the past make room.
        let later = now + PERIOD;
        assert_eq!(guesses.wait([200, 0, 0, 1].into(), later), None);
        guesses.wrong([200, 0, 0, 1].into(), later);
        assert_eq!(guesses.by_source.len(), 1);
    }
}
