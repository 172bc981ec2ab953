//! Which names each principal had by DNS in the last hour or two, as hashes. Bounded for each of them: whoever asks for
//! more is remembered for a shorter time.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Longer than any answer may be kept by an agent.
const REMEMBERED: Duration = Duration::from_secs(3600);
const MOST: usize = 2048;

#[derive(Debug, Default)]
pub(super) struct Known {
    principals: HashMap<Box<str>, Names>,
}

#[derive(Debug)]
struct Names {
    recent: HashSet<u64>,
    before: HashSet<u64>,
    /// When `recent` was begun.
    since: Instant,
}

impl Known {
    pub(super) fn note(&mut self, principal: &str, hash: u64, now: Instant) {
        if !self.principals.contains_key(principal) {
            // Rare: a principal is new once. Those of older revisions go on this occasion.
            self.principals.retain(|_, names| {
                names.turn(now);
                !(names.recent.is_empty() && names.before.is_empty())
            });
        }
        let names = self
            .principals
            .entry(principal.into())
            .or_insert_with(|| Names {
                recent: HashSet::new(),
                before: HashSet::new(),
                since: now,
            });
        names.turn(now);
        if names.recent.len() >= MOST {
            names.before = std::mem::take(&mut names.recent);
            names.since = now;
        }
        names.recent.insert(hash);
    }

    pub(super) fn holds(&mut self, principal: &str, hash: u64, now: Instant) -> bool {
        self.principals.get_mut(principal).is_some_and(|names| {
            names.turn(now);
            names.recent.contains(&hash) || names.before.contains(&hash)
        })
    }
}

impl Names {
    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        if passed < REMEMBERED {
            return;
        }
        self.before = std::mem::take(&mut self.recent);
        if passed >= 2 * REMEMBERED {
            self.before = HashSet::new();
        }
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_for_an_hour_and_at_most_two() {
        let mut known = Known::default();
        let now = Instant::now();
        known.note("a", 1, now);
        known.note("a", 2, now + REMEMBERED / 2);
        assert!(known.holds("a", 1, now + REMEMBERED) && known.holds("a", 2, now + REMEMBERED));
        assert!(!known.holds("b", 1, now));
        let later = now + 2 * REMEMBERED;
        assert!(!known.holds("a", 1, later) && !known.holds("a", 2, later));
        known.note("b", 1, later + 2 * REMEMBERED);
        assert_eq!(known.principals.len(), 1);
    }

    #[test]
    fn a_flood_of_names_has_bounded_room() {
        let mut known = Known::default();
        let now = Instant::now();
        for hash in 0..100_000 {
            known.note("a", hash, now);
        }
        let names = &known.principals["a"];
        assert!(names.recent.len() <= MOST && names.before.len() <= MOST);
        assert!(known.holds("a", 99_999, now));
    }
}
