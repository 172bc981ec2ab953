//! How often what happened, exactly, for the enforcer's telemetry. Bounded: what has no room is counted under `other`.

use std::collections::{BTreeMap, HashMap};

use clawgress_link::pins::Count;
use clawgress_policy::Reason;

/// Names of one principal counted apart between two reports.
const MOST_DOMAINS: usize = 1024;
const MOST_PRINCIPALS: usize = 4096;
const OTHER: &str = "other";

#[derive(Debug, Default)]
pub struct Counts {
    principals: HashMap<Box<str>, HashMap<Box<str>, Tally>>,
}

#[derive(Debug, Default)]
struct Tally {
    queries: u64,
    cache_hits: u64,
    denied: BTreeMap<Reason, u64>,
}

/// What became of one query.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub cache_hit: bool,
    pub denied: Option<Reason>,
}

impl Counts {
    pub fn add(&mut self, principal: &str, domain: &str, outcome: Outcome) {
        let principal = room_for(&self.principals, principal, MOST_PRINCIPALS);
        if !self.principals.contains_key(principal) {
            self.principals.insert(principal.into(), HashMap::new());
        }
        let Some(domains) = self.principals.get_mut(principal) else {
            return;
        };
        let domain = room_for(domains, domain, MOST_DOMAINS);
        if !domains.contains_key(domain) {
            domains.insert(domain.into(), Tally::default());
        }
        let Some(tally) = domains.get_mut(domain) else {
            return;
        };
        tally.queries += 1;
        tally.cache_hits += u64::from(outcome.cache_hit);
        if let Some(reason) = outcome.denied {
            *tally.denied.entry(reason).or_default() += 1;
        }
    }

    /// All that was counted since the last time.
    pub fn take(&mut self) -> Vec<Count> {
        let mut counts = Vec::new();
        for (principal, domains) in self.principals.drain() {
            for (domain, tally) in domains {
                counts.push(Count {
                    principal: principal.to_string(),
                    domain: domain.into(),
                    queries: tally.queries,
                    cache_hits: tally.cache_hits,
                    denied: tally
                        .denied
                        .into_iter()
                        .map(|(reason, count)| (reason.word().to_owned(), count))
                        .collect(),
                });
            }
        }
        counts
    }
}

fn room_for<'a, V>(table: &HashMap<Box<str>, V>, key: &'a str, most: usize) -> &'a str {
    if table.len() < most || table.contains_key(key) {
        key
    } else {
        OTHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_and_taken_once() {
        let mut counts = Counts::default();
        let denied = Outcome {
            denied: Some(Reason::NotAllowlisted),
            ..Outcome::default()
        };
        let hit = Outcome {
            cache_hit: true,
            ..Outcome::default()
        };
        counts.add("a", "x.com", denied);
        counts.add("a", "x.com", denied);
        counts.add("a", "x.com", hit);
        counts.add("b", "x.com", hit);
        let mut taken = counts.take();
        taken.sort_by(|a, b| a.principal.cmp(&b.principal));
        assert_eq!(taken.len(), 2);
        assert_eq!((taken[0].queries, taken[0].cache_hits), (3, 1));
        assert_eq!(taken[0].denied, [("not-allowlisted".to_owned(), 2)]);
        assert!(counts.take().is_empty());
    }

    #[test]
    fn a_flood_of_names_is_counted_whole_in_bounded_room() {
        let mut counts = Counts::default();
        for n in 0..5000 {
            counts.add("a", &format!("n{n}.com"), Outcome::default());
        }
        let taken = counts.take();
        assert!(taken.len() <= MOST_DOMAINS + 1);
        assert_eq!(taken.iter().map(|count| count.queries).sum::<u64>(), 5000);
        assert!(taken.iter().any(|count| count.domain == OTHER));
    }
}
