//! How many different names a principal may have asked upstream under one wildcard in a minute, and how many bytes they
//! may be: what a tunnel through an allowed zone has to live on. The clock is an argument.
//!
//! A rule that names its domain in full needs no budget: there is nothing to write into such a question.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub names: usize,
    /// Of the part of the names that the agent chooses.
    pub bytes: usize,
    /// Wildcards watched at a time, of all principals.
    pub wildcards: usize,
}

#[derive(Debug)]
pub struct Budgets {
    limits: Limits,
    hasher: RandomState,
    /// By principal and wildcard.
    spent: HashMap<(Box<str>, Box<str>), Spent>,
}

/// The names of the last minute, oldest first.
#[derive(Debug, Default)]
struct Spent {
    names: VecDeque<Name>,
    bytes: usize,
}

#[derive(Debug)]
struct Name {
    hash: u64,
    bytes: usize,
    since: Instant,
}

impl Budgets {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            hasher: RandomState::new(),
            spent: HashMap::new(),
        }
    }

    /// True if `principal` may have `name` asked under `wildcard` (`*.example.com`). A name of the running minute costs
    /// nothing again; it is the answer's cache that bounds how often it can be asked.
    pub fn spend(&mut self, principal: &str, wildcard: &str, name: &str, now: Instant) -> bool {
        let chosen = name.len().saturating_sub(wildcard.len() - 1);
        let hash = self.hasher.hash_one(name);
        let key = (Box::from(principal), Box::from(wildcard));
        if !self.spent.contains_key(&key) && self.spent.len() >= self.limits.wildcards {
            self.forget(now);
            if self.spent.len() >= self.limits.wildcards {
                return false;
            }
        }
        let spent = self.spent.entry(key).or_default();
        spent.forget(now);
        if spent.names.iter().any(|name| name.hash == hash) {
            return true;
        }
        if spent.names.len() >= self.limits.names || spent.bytes + chosen > self.limits.bytes {
            return false;
        }
        spent.bytes += chosen;
        spent.names.push_back(Name {
            hash,
            bytes: chosen,
            since: now,
        });
        true
    }

    /// Forgets the wildcards under which nothing was asked for a minute.
    fn forget(&mut self, now: Instant) {
        self.spent.retain(|_, spent| {
            spent.forget(now);
            !spent.names.is_empty()
        });
    }
}

impl Spent {
    fn forget(&mut self, now: Instant) {
        while let Some(first) = self.names.front()
            && now.saturating_duration_since(first.since) >= WINDOW
        {
            self.bytes -= first.bytes;
            self.names.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        names: 60,
        bytes: 1024,
        wildcards: 3,
    };

    #[test]
    fn sixty_names_a_minute_and_known_ones_are_free() {
        let mut budgets = Budgets::new(LIMITS);
        let now = Instant::now();
        let mut ask = |n: u32, at: u64| {
            let name = format!("n{n}.example.com");
            budgets.spend("a", "*.example.com", &name, now + Duration::from_secs(at))
        };
        for n in 0..60 {
            assert!(ask(n, u64::from(n) / 2));
        }
        assert!(!ask(60, 30));
        assert!((0..60).all(|n| ask(n, 31)));
        assert!(!ask(60, 59));
        // The first two are a minute old.
        assert!(ask(60, 60) && ask(61, 60) && !ask(62, 60));
    }

    #[test]
    fn long_names_spend_the_bytes() {
        let mut budgets = Budgets::new(LIMITS);
        let now = Instant::now();
        let label = "x".repeat(60);
        let mut carried = 0;
        for n in 0..100 {
            let chosen = format!("{n:03}{label}.{label}.{label}.");
            if budgets.spend(
                "a",
                "*.t.example.com",
                &format!("{chosen}t.example.com"),
                now,
            ) {
                carried += chosen.len();
            }
        }
        assert!(carried <= 1024 && carried > 512, "{carried}");
        // Another principal and another wildcard are not touched.
        assert!(budgets.spend("b", "*.t.example.com", "a.t.example.com", now));
        assert!(budgets.spend("a", "*.example.com", "a.example.com", now));
    }

    #[test]
    fn in_no_window_of_a_minute_is_more_spent_than_allowed() {
        let mut budgets = Budgets::new(LIMITS);
        let now = Instant::now();
        let granted: Vec<u64> = (0..600_u64)
            .filter(|n| {
                let at = now + Duration::from_millis(n * 400);
                budgets.spend("a", "*.e.com", &format!("n{n}.e.com"), at)
            })
            .map(|n| n * 400)
            .collect();
        for (index, first) in granted.iter().enumerate() {
            let within = granted[index..]
                .iter()
                .take_while(|at| **at < first + 60_000);
            assert!(within.count() <= 60);
        }
        assert!(granted.len() > 200, "honest use is starved");
    }

    #[test]
    fn a_full_table_grants_nothing_until_something_is_forgotten() {
        let mut budgets = Budgets::new(LIMITS);
        let now = Instant::now();
        for wildcard in ["*.a", "*.b", "*.c"] {
            assert!(budgets.spend("a", wildcard, "x.y", now));
        }
        assert!(!budgets.spend("a", "*.d", "x.d", now));
        assert!(budgets.spend("a", "*.d", "x.d", now + WINDOW));
    }
}
