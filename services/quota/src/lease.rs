//! Who shares the limits: each gateway holds a lease of its part, and renews it long before it ends.
//!
//! A part changes hands only when whoever held it knows that it is smaller now, or when the lease that said otherwise has
//! ended: so the parts in use are never more than the whole. Pure: times are arguments,
//! of a clock that only rises and begins with the service.

use std::collections::BTreeMap;

use crate::{Share, Snapshot};

/// A lease holds as long, in milliseconds; renewed at least four times in between.
pub const LEASE_MS: u64 = 2_000;
/// Names that begin so are of gateways that only end what they have open: their bytes count, and no part is theirs.
pub const DRAINING: &str = "draining.";
/// More gateways than anybody has.
pub const MOST_GATEWAYS: usize = 256;

#[derive(Debug, Default)]
pub struct Leases {
    gateways: BTreeMap<String, Gateway>,
    /// By name of the gateway; also of those that are gone, for their bytes count until the period ends.
    used: BTreeMap<String, Snapshot>,
}

#[derive(Debug)]
struct Gateway {
    /// In milliseconds.
    until: u64,
    /// What it may be using.
    share: Share,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "leasing a part of the quotas to {gateway}: {MOST_GATEWAYS} gateways have one; stop one of them"
)]
pub struct TooMany {
    pub gateway: String,
}

fn takes_part(name: &str) -> bool {
    !name.starts_with(DRAINING)
}

/// What a gateway is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// `Share::NONE`: give up what you hold, and ask again.
    pub share: Share,
    /// Used by all others together.
    pub others: Snapshot,
}

impl Leases {
    /// With what was used before this service began.
    pub fn remembering(used: BTreeMap<String, Snapshot>) -> Self {
        Self {
            gateways: BTreeMap::new(),
            used,
        }
    }

    /// What a gateway had used when it was last heard of.
    pub fn remembered(&self, name: &str) -> Snapshot {
        self.used.get(name).cloned().unwrap_or_default()
    }

    /// Takes up what a gateway holds and what it has used since it asked last, and tells it its part.
    pub fn renew(
        &mut self,
        name: &str,
        holds: Share,
        used: &Snapshot,
        now_ms: u64,
    ) -> Result<Lease, TooMany> {
        self.gateways
            .retain(|known, gateway| known == name || gateway.until > now_ms);
        if !self.gateways.contains_key(name) && self.gateways.len() >= MOST_GATEWAYS {
            return Err(TooMany {
                gateway: name.to_owned(),
            });
        }
        self.used.entry(name.to_owned()).or_default().merge(used);
        if self.used.len() > MOST_GATEWAYS * 2 {
            self.used
                .retain(|known, _| self.gateways.contains_key(known) || known == name);
        }
        let gateway = Gateway {
            until: now_ms + LEASE_MS,
            share: holds,
        };
        self.gateways.insert(name.to_owned(), gateway);
        let share = self.told(name, holds, now_ms);
        if share != Share::NONE
            && let Some(gateway) = self.gateways.get_mut(name)
        {
            gateway.share = share;
        }
        let others = self.used.iter().filter(|(known, _)| *known != name);
        Ok(Lease {
            share,
            others: Snapshot::sum(others.map(|(_, used)| used)),
        })
    }

    /// A part is only ever given to one who holds none, so that an answer that is lost does no harm: whoever is to have
    /// another part says first that it has given up the old one.
    fn told(&self, name: &str, holds: Share, now_ms: u64) -> Share {
        if !takes_part(name) {
            return Share::NONE;
        }
        let sharing = || self.gateways.iter().filter(|(known, _)| takes_part(known));
        let others = || sharing().filter(|(known, _)| *known != name);
        let wanted = Share {
            index: others().filter(|(known, _)| known.as_str() < name).count() as u32,
            count: sharing().count() as u32,
        };
        if holds == wanted {
            return wanted;
        }
        // Somebody known from before this service began may still hold a part.
        let silent = |known: &String| {
            known != name && takes_part(known) && !self.gateways.contains_key(known)
        };
        if now_ms < LEASE_MS && self.used.keys().any(silent) {
            return Share::NONE;
        }
        // Parts fit together only if they are of one division.
        let fits = others().all(|(_, other)| {
            other.share == Share::NONE
                || (other.share.count == wanted.count && other.share != wanted)
        });
        if holds == Share::NONE && fits {
            wanted
        } else {
            Share::NONE
        }
    }

    /// What each gateway has used, by name.
    pub fn used(&self) -> &BTreeMap<String, Snapshot> {
        &self.used
    }

    /// The parts in use now, for whoever checks that they are no more than the whole.
    pub fn shares(&self, now_ms: u64) -> impl Iterator<Item = Share> {
        self.gateways
            .values()
            .filter(move |gateway| gateway.until > now_ms)
            .map(|gateway| gateway.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gateway_has_the_whole_at_once() {
        let mut leases = Leases::default();
        let lease = leases
            .renew("a", Share::NONE, &Snapshot::default(), 0)
            .unwrap();
        assert_eq!(lease.share, Share::WHOLE);
    }

    /// Gateways come, go, miss answers and renew in any order: the parts in use are never more than the whole, and once
    /// all is quiet they are the whole.
    #[test]
    fn parts_in_use_are_never_more_than_the_whole() {
        const LIMIT: u32 = 1_000;
        let names = ["a", "b", "c", "d", "e"];
        let mut leases = Leases::default();
        // What each holds, until when, and when it renewed last.
        let mut held: BTreeMap<&str, (Share, u64)> = BTreeMap::new();
        let mut state = 7_u64;
        let mut random = |most: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % most
        };
        let mut now = 0;
        let used = |held: &BTreeMap<&str, (Share, u64)>, now: u64| -> u64 {
            held.values()
                .filter(|(_, until)| *until > now)
                .map(|(share, _)| share.of(LIMIT))
                .sum()
        };
        for step in 0..20_000 {
            now += random(200);
            // In quiet times the same three renew and nothing is lost.
            let quiet = step % 1_000 > 800;
            let name = names[random(if quiet { 3 } else { 5 }) as usize];
            let (share, until) = held.get(name).copied().unwrap_or((Share::NONE, 0));
            let holds = if until > now { share } else { Share::NONE };
            let lease = leases
                .renew(name, holds, &Snapshot::default(), now)
                .unwrap();
            if quiet || random(10) > 0 {
                // A lease counts from when it was asked for.
                held.insert(name, (lease.share, now + LEASE_MS));
            } else {
                held.insert(name, (holds, until));
            }
            assert!(
                used(&held, now) <= u64::from(LIMIT),
                "step {step}: {held:?}"
            );
            if step % 1_000 == 999 {
                assert_eq!(used(&held, now), u64::from(LIMIT), "step {step}: {held:?}");
            }
        }
    }

    #[test]
    fn after_a_restart_nothing_is_given_twice() {
        let used = ["a", "b"].map(|name| (name.to_owned(), Snapshot::default()));
        let mut leases = Leases::remembering(used.into());
        let mut renew = |name, holds, now| {
            leases
                .renew(name, holds, &Snapshot::default(), now)
                .unwrap()
                .share
        };
        assert_eq!(renew("b", Share::NONE, 10), Share::NONE);
        let second = Share { index: 1, count: 2 };
        let first = Share { index: 0, count: 2 };
        assert_eq!(renew("a", first, 20), first);
        assert_eq!(renew("b", Share::NONE, 30), second);
    }

    #[test]
    fn there_are_bounds() {
        let mut leases = Leases::default();
        for number in 0..MOST_GATEWAYS {
            leases
                .renew(&format!("g{number}"), Share::NONE, &Snapshot::default(), 0)
                .unwrap();
        }
        let error = leases
            .renew("one-more", Share::NONE, &Snapshot::default(), 0)
            .unwrap_err();
        assert!(error.to_string().contains("one-more"), "{error}");
        leases
            .renew("one-more", Share::NONE, &Snapshot::default(), LEASE_MS)
            .unwrap();
    }
}
