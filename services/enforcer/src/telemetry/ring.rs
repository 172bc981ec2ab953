//! What happened, per principal and domain, over the last minute, hour and day. Fixed memory: each window has so many
//! slots, each slot so many entries; what has no place any more counts under `other`.
//!
//! Pure: whoever adds and asks says what time it is, in seconds since the boot.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use clawgress_link::control::{DomainTelemetry, PrincipalTelemetry, Telemetry, Window};

/// Entries of a slot. Three windows of 60, 60 and 144 slots: some 40 MiB at the very most.
const ENTRIES: usize = 1_000;
const OTHER: &str = "other";
/// Of the most denied.
const TOP: usize = 20;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum What {
    Queries,
    CacheHits,
    Flows,
    BytesOut,
    BytesIn,
    /// By the word of the reason.
    Denied(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    principal: Arc<str>,
    /// None: of the principal as a whole.
    domain: Option<Arc<str>>,
    what: What,
}

#[derive(Debug)]
pub struct Rings {
    rings: [Ring; 3],
}

#[derive(Debug)]
struct Ring {
    window: Window,
    /// Seconds of a slot.
    grain: u64,
    slots: usize,
    /// The newest last.
    kept: VecDeque<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The number of its grain.
    grain: u64,
    counts: HashMap<Key, u64>,
    /// Names and addresses, and how often each was denied.
    denied: HashMap<Arc<str>, u64>,
}

impl Default for Rings {
    fn default() -> Self {
        let ring = |window, grain, slots| Ring {
            window,
            grain,
            slots,
            kept: VecDeque::with_capacity(slots),
        };
        Self {
            rings: [
                ring(Window::Minute, 1, 60),
                ring(Window::Hour, 60, 60),
                ring(Window::Day, 600, 144),
            ],
        }
    }
}

impl Rings {
    pub fn add(&mut self, now: u64, principal: &str, domain: Option<&str>, what: &What, many: u64) {
        if many == 0 {
            return;
        }
        let key = Key {
            principal: principal.into(),
            domain: domain.map(Into::into),
            what: what.clone(),
        };
        for ring in &mut self.rings {
            let slot = ring.slot(now);
            bounded(&mut slot.counts, key.clone(), many, || Key {
                principal: OTHER.into(),
                domain: key.domain.as_ref().map(|_| OTHER.into()),
                what: key.what.clone(),
            });
        }
    }

    /// A denial of a name or address, for the list of the most denied.
    pub fn deny(&mut self, now: u64, target: &str, many: u64) {
        for ring in &mut self.rings {
            let slot = ring.slot(now);
            bounded(&mut slot.denied, target.into(), many, || OTHER.into());
        }
    }

    pub fn telemetry(&self, now: u64, window: Window) -> Telemetry {
        let mut telemetry = Telemetry {
            window: word(window).to_owned(),
            ..Telemetry::default()
        };
        let mut denied: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        let Some(ring) = self.rings.iter().find(|ring| ring.window == window) else {
            return telemetry;
        };
        let oldest = (now / ring.grain + 1).saturating_sub(ring.slots as u64);
        for slot in ring.kept.iter().filter(|slot| slot.grain >= oldest) {
            for (key, many) in &slot.counts {
                let of = telemetry
                    .principals
                    .entry(key.principal.to_string())
                    .or_default();
                match &key.domain {
                    None => whole(of, &key.what, *many),
                    Some(domain) => {
                        part(
                            of.domains.entry(domain.to_string()).or_default(),
                            &key.what,
                            *many,
                        );
                    }
                }
            }
            for (target, many) in &slot.denied {
                *denied.entry(Arc::clone(target)).or_default() += many;
            }
        }
        let mut top: Vec<(String, u64)> = denied
            .into_iter()
            .map(|(target, many)| (target.to_string(), many))
            .collect();
        top.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
        top.truncate(TOP);
        telemetry.top_denied = top;
        telemetry
    }
}

pub fn word(window: Window) -> &'static str {
    match window {
        Window::Minute => "1m",
        Window::Hour => "1h",
        Window::Day => "24h",
    }
}

fn whole(of: &mut PrincipalTelemetry, what: &What, many: u64) {
    match what {
        What::Queries => of.queries += many,
        What::CacheHits => of.cache_hits += many,
        What::Flows => of.flows += many,
        What::BytesOut => of.bytes_out += many,
        What::BytesIn => of.bytes_in += many,
        What::Denied(reason) => *of.denied.entry((*reason).to_owned()).or_default() += many,
    }
}

fn part(of: &mut DomainTelemetry, what: &What, many: u64) {
    match what {
        What::Queries => of.queries += many,
        What::CacheHits => of.cache_hits += many,
        What::Flows => of.flows += many,
        What::BytesOut => of.bytes_out += many,
        What::BytesIn => of.bytes_in += many,
        What::Denied(_) => of.denied += many,
    }
}

fn bounded<K: std::hash::Hash + Eq>(
    counts: &mut HashMap<K, u64>,
    key: K,
    many: u64,
    other: impl FnOnce() -> K,
) {
    let key = if counts.len() < ENTRIES || counts.contains_key(&key) {
        key
    } else {
        other()
    };
    // `other` itself finds a place always: there are few of it.
    *counts.entry(key).or_default() += many;
}

impl Ring {
    /// The slot of this moment. A clock of the boot never goes back.
    fn slot(&mut self, now: u64) -> &mut Slot {
        let grain = now / self.grain;
        if self.kept.back().is_none_or(|newest| newest.grain < grain) {
            if self.kept.len() >= self.slots {
                self.kept.pop_front();
            }
            self.kept.push_back(Slot {
                grain,
                ..Slot::default()
            });
        }
        let last = self.kept.len() - 1;
        &mut self.kept[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_forgets_in_its_own_time() {
        let mut rings = Rings::default();
        let add = |rings: &mut Rings, now| rings.add(now, "a", Some("x.test"), &What::Queries, 1);
        add(&mut rings, 1000);
        add(&mut rings, 1030);
        let count = |rings: &Rings, now, window| {
            let telemetry = rings.telemetry(now, window);
            let a = telemetry.principals.get("a");
            a.map_or(0, |a| a.domains["x.test"].queries)
        };
        assert_eq!(count(&rings, 1030, Window::Minute), 2);
        assert_eq!(count(&rings, 1065, Window::Minute), 1);
        assert_eq!(count(&rings, 1065, Window::Hour), 2);
        assert_eq!(count(&rings, 1000 + 3700, Window::Hour), 0);
        assert_eq!(count(&rings, 1000 + 3700, Window::Day), 2);
        assert_eq!(count(&rings, 1000 + 90_000, Window::Day), 0);
        for now in 0..200 {
            add(&mut rings, 1030 + now * 60);
        }
        assert!(rings.rings.iter().all(|ring| ring.kept.len() <= ring.slots));
    }

    #[test]
    fn a_flood_of_names_counts_under_other_and_nothing_is_lost() {
        let mut rings = Rings::default();
        for number in 0..3000 {
            rings.add(
                7,
                "a",
                Some(&format!("n{number}.test")),
                &What::Denied("port"),
                1,
            );
            rings.deny(7, &format!("n{number}.test"), 1);
        }
        let telemetry = rings.telemetry(7, Window::Minute);
        let denied =
            |of: &PrincipalTelemetry| of.domains.values().map(|domain| domain.denied).sum::<u64>();
        assert_eq!(telemetry.principals.values().map(denied).sum::<u64>(), 3000);
        assert_eq!(telemetry.top_denied[0], (OTHER.to_owned(), 2000));
        assert_eq!(telemetry.top_denied.len(), TOP);
    }
}
