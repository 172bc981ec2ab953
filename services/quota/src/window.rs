//! A count in windows of a fixed length that begin with the clock's own: the seconds, the minutes, the days.
//!
//! In each window at most the limit is counted. What is let wait is counted ahead, into the windows that follow.

use serde::{Deserialize, Serialize};

/// A clock that steps back further than this is followed; what was used stays used for the window it now shows.
const AHEAD: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Which one it is, counted from 1970.
    number: u64,
    /// Beyond the limit: of windows that follow.
    count: u64,
}

impl Window {
    /// Brings it to the window of `now`. `limit` is what each passed window has taken off the count; None: all of it.
    pub(crate) fn advance(&mut self, now: u64, length: u64, limit: Option<u64>) {
        let number = now / length.max(1);
        if number > self.number {
            let passed = number - self.number;
            self.count = match limit {
                Some(limit) => self.count.saturating_sub(limit.saturating_mul(passed)),
                None => 0,
            };
            self.number = number;
        } else if self.number - number > AHEAD {
            self.number = number;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn add(&mut self, count: u64) {
        self.count = self.count.saturating_add(count);
    }

    /// Nanoseconds from `now` until the window in which the next one fits; 0: it fits into this one.
    pub(crate) fn wait(&self, now: u64, length: u64, limit: u64) -> u64 {
        // Without any place there is none in a later window either; asking again there is the best to be told.
        let ahead = self.count.checked_div(limit).unwrap_or(1);
        if ahead == 0 {
            return 0;
        }
        let begins = self.number.saturating_add(ahead).saturating_mul(length);
        begins.saturating_sub(now)
    }

    /// Nanoseconds from `now` until this window ends.
    pub(crate) fn rest(&self, now: u64, length: u64) -> u64 {
        let ends = self.number.saturating_add(1).saturating_mul(length);
        ends.saturating_sub(now)
    }

    /// The later of two states of one count: of one window the higher count.
    pub(crate) fn later(self, other: Self) -> Self {
        match self.number.cmp(&other.number) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal => Self {
                number: self.number,
                count: self.count.max(other.count),
            },
        }
    }

    /// What was counted after an earlier state.
    pub(crate) fn beyond(self, before: Self) -> Self {
        let counted = if self.number == before.number {
            before.count
        } else {
            0
        };
        Self {
            number: self.number,
            count: self.count.saturating_sub(counted),
        }
    }

    /// The sum of two counts of the later window of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        match self.number.cmp(&other.number) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal => Self {
                number: self.number,
                count: self.count.saturating_add(other.count),
            },
        }
    }

    pub(crate) fn is_past(&self, now: u64, length: u64) -> bool {
        now / length.max(1) > self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn counts_begin_anew_with_each_window() {
        let mut window = Window::default();
        window.advance(10 * SECOND + 5, SECOND, Some(2));
        window.add(2);
        assert_eq!(window.wait(10 * SECOND + 5, SECOND, 2), SECOND - 5);
        window.advance(11 * SECOND, SECOND, Some(2));
        assert_eq!(
            (window.count(), window.wait(11 * SECOND, SECOND, 2)),
            (0, 0)
        );
    }

    #[test]
    fn what_waits_is_counted_ahead() {
        let mut window = Window::default();
        window.advance(10 * SECOND, SECOND, Some(2));
        window.add(5);
        assert_eq!(window.wait(10 * SECOND, SECOND, 2), 2 * SECOND);
        window.advance(11 * SECOND, SECOND, Some(2));
        assert_eq!(window.count(), 3);
        window.advance(13 * SECOND, SECOND, Some(2));
        assert_eq!(window.count(), 0);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_back() {
        let mut window = Window::default();
        window.advance(10 * SECOND, SECOND, Some(2));
        window.add(2);
        window.advance(9 * SECOND, SECOND, Some(2));
        assert_eq!(window.count(), 2);
        window.advance(2 * SECOND, SECOND, Some(2));
        assert_eq!(window.count(), 2);
        assert_eq!(window.wait(2 * SECOND, SECOND, 2), SECOND);
        window.advance(3 * SECOND, SECOND, Some(2));
        assert_eq!(window.count(), 0);
    }
}
