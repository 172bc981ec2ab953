//! How many different names a principal may have asked upstream under wildcards of one registered domain in a minute,
//! and how many bytes they may be: what a tunnel through an allowed zone has to live on. The clock is an argument.
//!
//! A rule that names its domain in full needs no budget: there is nothing to write into such a question. The front has
//! no budget of its own either, or every name could be sent twice: it asks at the cost of whoever had the name by DNS.

mod known;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::registered::registered_domain;
use known::Known;

const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub names: usize,
    /// Of the part of the names that the agent chooses.
    pub bytes: usize,
    /// Registered domains watched at a time, of all principals.
    pub domains: usize,
}

#[derive(Debug)]
pub struct Budgets {
    limits: Limits,
    hasher: RandomState,
    /// By principal and registered domain.
    spent: HashMap<(Box<str>, Box<str>), Spent>,
    known: Known,
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
            known: Known::default(),
        }
    }

    /// True if `principal` may have `name` asked under `wildcard` (`*.example.com`). A name of the running minute costs
    /// nothing again; it is the answer's cache that bounds how often it can be asked.
    pub fn spend(&mut self, principal: &str, wildcard: &str, name: &str, now: Instant) -> bool {
        let hash = self.hasher.hash_one(name);
        let key = key(principal, wildcard);
        if !self.spent.contains_key(&key) && self.spent.len() >= self.limits.domains {
            self.forget(now);
            if self.spent.len() >= self.limits.domains {
                return false;
            }
        }
        let granted = self.spent.entry(key).or_default().take(
            &self.limits,
            hash,
            chosen(wildcard, name),
            now,
        );
        if granted {
            self.known.note(principal, hash, now);
        }
        granted
    }

    /// `principal` was told of a name that somebody else had asked.
    pub fn note(&mut self, principal: &str, name: &str, now: Instant) {
        let hash = self.hasher.hash_one(name);
        self.known.note(principal, hash, now);
    }

    /// True if the front may have `name` asked. `entitled`: who may have it on the wire, and by which wildcard. Only
    /// those count who had it by DNS not long ago, and the name is paid for once more by the one with the most left:
    /// the front then sends no name that could not have been sent without it, and nobody pays for a name that is not
    /// his.
    pub fn spend_for_front<'p>(
        &mut self,
        entitled: impl Iterator<Item = (&'p str, &'p str)>,
        name: &str,
        now: Instant,
    ) -> bool {
        let hash = self.hasher.hash_one(name);
        let mut payer: Option<(usize, &str, &str)> = None;
        for (principal, wildcard) in entitled {
            if !self.known.holds(principal, hash, now) {
                continue;
            }
            let left = match self.spent.get_mut(&key(principal, wildcard)) {
                Some(spent) => {
                    spent.forget(now);
                    if spent.holds(hash) {
                        return true;
                    }
                    self.limits.names.saturating_sub(spent.names.len())
                }
                None => self.limits.names,
            };
            if payer.is_none_or(|(most, ..)| left > most) {
                payer = Some((left, principal, wildcard));
            }
        }
        payer.is_some_and(|(_, principal, wildcard)| self.spend(principal, wildcard, name, now))
    }

    /// Forgets the domains under which nothing was asked for a minute.
    fn forget(&mut self, now: Instant) {
        self.spent.retain(|_, spent| {
            spent.forget(now);
            !spent.names.is_empty()
        });
    }
}

/// Wildcards in one another share what they may spend.
fn key(principal: &str, wildcard: &str) -> (Box<str>, Box<str>) {
    let base = wildcard.strip_prefix("*.").unwrap_or(wildcard);
    (principal.into(), registered_domain(base).into())
}

/// How many bytes of the name the wildcard leaves to the agent.
fn chosen(wildcard: &str, name: &str) -> usize {
    name.len().saturating_sub(wildcard.len().saturating_sub(1))
}

impl Spent {
    fn holds(&self, hash: u64) -> bool {
        self.names.iter().any(|name| name.hash == hash)
    }

    fn take(&mut self, limits: &Limits, hash: u64, bytes: usize, now: Instant) -> bool {
        self.forget(now);
        if self.holds(hash) {
            return true;
        }
        if self.names.len() >= limits.names || self.bytes + bytes > limits.bytes {
            return false;
        }
        self.bytes += bytes;
        self.names.push_back(Name {
            hash,
            bytes,
            since: now,
        });
        true
    }

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
        domains: 3,
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
        // Another principal and another domain are not touched.
        assert!(budgets.spend("b", "*.t.example.com", "a.t.example.com", now));
        assert!(budgets.spend("a", "*.example.org", "a.example.org", now));
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

    #[test]
    fn wildcards_in_one_another_have_one_budget() {
        let mut budgets = Budgets::new(LIMITS);
        let now = Instant::now();
        let granted = (0..300)
            .filter(|n| {
                let base = ["example.co.uk", "t.example.co.uk", "u.t.example.co.uk"][n % 3];
                budgets.spend("a", &format!("*.{base}"), &format!("n{n}.{base}"), now)
            })
            .count();
        assert_eq!(granted, 60);
    }

    const ENTITLED: [(&str, &str); 2] = [("a", "*.e.com"), ("b", "*.e.com")];

    #[test]
    fn the_front_asks_for_known_names_alone_and_at_their_cost() {
        let mut budgets = Budgets::new(LIMITS);
        let now = Instant::now();
        let front = |budgets: &mut Budgets, name: &str, at: Duration| {
            budgets.spend_for_front(ENTITLED.into_iter(), name, now + at)
        };
        assert!(!front(&mut budgets, "new.e.com", Duration::ZERO));
        for n in 0..60 {
            assert!(budgets.spend("a", "*.e.com", &format!("n{n}.e.com"), now));
        }
        // Within the minute they cost nothing, and nothing is left for another.
        assert!(front(&mut budgets, "n0.e.com", Duration::from_secs(1)));
        assert!(!budgets.spend("a", "*.e.com", "more.e.com", now));
        // Nobody else's budget was touched, and an hour later nobody remembers.
        assert!(budgets.spend("b", "*.e.com", "b.e.com", now));
        assert!(!front(&mut budgets, "n0.e.com", Duration::from_secs(7300)));
    }

    #[test]
    fn by_dns_and_through_the_front_no_more_is_sent_than_by_dns_alone() {
        let mut budgets = Budgets::new(LIMITS);
        let now = Instant::now();
        for n in 0..60 {
            assert!(budgets.spend("a", "*.e.com", &format!("n{n}.e.com"), now));
        }
        let later = now + WINDOW;
        let again = (0..60).filter(|n| {
            budgets.spend_for_front(ENTITLED.into_iter(), &format!("n{n}.e.com"), later)
        });
        assert_eq!(again.count(), 60);
        assert!(!budgets.spend("a", "*.e.com", "more.e.com", later));
    }

    #[test]
    fn a_name_told_from_the_cache_is_known_too() {
        let mut budgets = Budgets::new(LIMITS);
        let now = Instant::now();
        budgets.note("b", "n.e.com", now);
        assert!(budgets.spend_for_front(ENTITLED.into_iter(), "n.e.com", now));
        assert!(!budgets.spend_for_front([("a", "*.e.com")].into_iter(), "n.e.com", now));
    }
}
