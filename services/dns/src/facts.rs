//! What named said, reduced to facts: the chain of names from the one asked, and the data at its end. Pure.
//!
//! The answer is not trusted beyond what was asked: records of other names are not seen, whatever section they are in.
//! Nothing of one agent's policy is in here, so the facts may be kept and shown to another; addresses inside are only
//! marked, for a policy may hold some of them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use crate::address::is_inside;

/// Told to an agent at most: a change of policy or of a site's addresses is never further away.
pub const LONGEST: Duration = Duration::from_secs(300);
/// Told to an agent at least, and kept here at least.
pub const SHORTEST: Duration = Duration::from_secs(5);
/// Kept at least under a wildcard: how often one name can carry a sign to the zone's owner.
pub const SHORTEST_WILD: Duration = Duration::from_secs(30);

const LONGEST_CHAIN: usize = 12;
const MOST_RECORDS: usize = 64;
/// Every zone of denials that named serves lies below this name.
const DENIALS: &[u8] = b"clawgress";

#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub found: Found,
    /// When named has to be asked again.
    pub expires: Instant,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The name leads over `chain` to these; never empty.
    Addresses {
        chain: Vec<Name>,
        addresses: Vec<Address>,
    },
    /// Records of the name itself that carry no address; never empty.
    Records(Vec<RData>),
    /// The name is there and has nothing of the kind asked for.
    Nothing {
        chain: Vec<Name>,
    },
    NoSuchName,
    /// No answer, a failure, or one that makes no sense.
    Failed,
    /// named's own policy zone denies what the policy here allows: a new revision is on its way to one of the two.
    Disagreement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub address: IpAddr,
    /// Told only to those whose policy holds it.
    pub inside: bool,
}

impl Facts {
    /// Reads an answer to a question for `kind` at `name`. `shortest`: kept so long at least.
    pub fn of(
        message: &Message,
        name: &Name,
        kind: RecordType,
        now: Instant,
        shortest: Duration,
    ) -> Self {
        let (found, ttl) = match message.metadata.response_code {
            _ if denied_by_policy_zone(message) => return Self::passing(Found::Disagreement, now),
            ResponseCode::NoError => follow(message, name, kind),
            ResponseCode::NXDomain => (Found::NoSuchName, negative_ttl(message)),
            _ => return Self::failed(now, shortest),
        };
        if found == Found::Failed {
            return Self::failed(now, shortest);
        }
        let ttl = Duration::from_secs(ttl.into()).clamp(SHORTEST, LONGEST);
        Self {
            found,
            expires: now + ttl.max(shortest),
        }
    }

    /// A failure is remembered too, or a broken zone would be a way to ask without end.
    pub fn failed(now: Instant, shortest: Duration) -> Self {
        Self {
            found: Found::Failed,
            expires: now + shortest,
        }
    }

    /// Worth nothing a moment later.
    pub fn passing(found: Found, now: Instant) -> Self {
        Self {
            found,
            expires: now,
        }
    }

    /// The seconds that an agent may keep the answer.
    pub fn ttl(&self, now: Instant) -> u32 {
        let left = self.expires.saturating_duration_since(now);
        left.clamp(SHORTEST, LONGEST).as_secs() as u32
    }

    /// No agent keeps the answer longer than this.
    pub fn kept_until(&self, now: Instant) -> Instant {
        self.expires.max(now + SHORTEST)
    }
}

/// Kinds beside addresses that are relayed, and only for names that a rule names in full: under a wildcard each would
/// be a channel from the zone's owner to the agent.
pub fn is_plain_data(kind: RecordType) -> bool {
    matches!(
        kind,
        RecordType::CNAME | RecordType::MX | RecordType::SRV | RecordType::TXT
    )
}

pub fn is_address(kind: RecordType) -> bool {
    matches!(kind, RecordType::A | RecordType::AAAA)
}

fn follow(message: &Message, name: &Name, kind: RecordType) -> (Found, u32) {
    let mut chain: Vec<Name> = Vec::new();
    let mut ttl = u32::MAX;
    loop {
        let at = chain.last().unwrap_or(name);
        let here = || {
            message
                .answers
                .iter()
                .filter(|record| record.dns_class == DNSClass::IN && record.name == *at)
        };
        let mut data = Vec::new();
        for record in here().filter(|record| record.record_type() == kind) {
            if data.len() < MOST_RECORDS && !data.contains(&record.data) {
                ttl = ttl.min(record.ttl);
                data.push(record.data.clone());
            }
        }
        if !data.is_empty() {
            return (found(kind, chain, data), ttl);
        }
        let link = here().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((target.0.clone(), record.ttl)),
            _ => None,
        });
        let Some((target, link_ttl)) = link else {
            return (Found::Nothing { chain }, ttl.min(negative_ttl(message)));
        };
        if chain.len() == LONGEST_CHAIN || target == *name || chain.contains(&target) {
            return (Found::Failed, 0);
        }
        ttl = ttl.min(link_ttl);
        chain.push(target);
    }
}

fn found(kind: RecordType, chain: Vec<Name>, data: Vec<RData>) -> Found {
    if !is_address(kind) {
        return Found::Records(data);
    }
    let addresses: Vec<Address> = data
        .iter()
        .filter_map(|data| match data {
            RData::A(v4) => Some(IpAddr::V4(v4.0)),
            RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
            _ => None,
        })
        .map(|address| Address {
            address,
            inside: is_inside(address),
        })
        .collect();
    if addresses.is_empty() {
        return Found::Failed;
    }
    Found::Addresses { chain, addresses }
}

/// RFC 2308: the smaller of the SOA's TTL and its minimum.
fn negative_ttl(message: &Message) -> u32 {
    let soas = message
        .authorities
        .iter()
        .filter_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        });
    soas.min().unwrap_or(0)
}

fn denied_by_policy_zone(message: &Message) -> bool {
    message
        .authorities
        .iter()
        .chain(&message.additionals)
        .any(|record| {
            matches!(record.data, RData::SOA(_))
                && record
                    .name
                    .iter()
                    .next_back()
                    .is_some_and(|label| label.eq_ignore_ascii_case(DENIALS))
        })
}

#[cfg(test)]
mod tests;
