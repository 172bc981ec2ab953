//! A revision, ready to be asked by the resolver: the index that every path shares, and the addresses that are near.
//!
//! Decides nothing of its own about names.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use clawgress_config::Cidr;
use clawgress_config::access::WhenFull;
use clawgress_link::deny_lines::{USUAL_FACILITY, facility};
use clawgress_policy::{
    Card, Index, IndexError, Moment, NameVerdict, Principal, Reach, Reason, Revision, RevisionError,
};

use crate::address;
use crate::trail::By;

/// The front, asking on behalf of flows that it has checked.
pub const FRONT: &str = "sni";
/// The front's number; those of principals begin at 1.
const FRONT_ID: u16 = 0;

pub struct Rules {
    pub revision: u64,
    /// Whether denials are events.
    pub deny_log: bool,
    /// What becomes of a question that can't be recorded.
    pub when_full: WhenFull,
    /// Of the syslog, for those events.
    pub facility: u8,
    index: Index,
    /// Next gateways by name: the front alone asks for them.
    gateways: HashSet<Box<str>>,
    /// Networks on this side of the box, and its own addresses as configured.
    near: Vec<Cidr>,
    own: HashSet<IpAddr>,
}

/// What the policy says of a question.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'r> {
    pub verdict: NameVerdict<'r>,
    pub by: By<'r>,
    /// Addresses are to be looked at, too.
    pub by_rules: bool,
}

/// What an address of an answer is to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// It may not be told.
    Nowhere,
    /// It may be told, and opens nothing by itself.
    Told,
    Pinned,
}

impl<'r> Judged<'r> {
    fn by_lists(verdict: NameVerdict<'r>) -> Self {
        let (id, label) = match verdict {
            NameVerdict::Allow { label, .. } => (By::LISTS, label),
            NameVerdict::Deny { label, .. } => (By::NOTHING, label),
        };
        Self {
            verdict,
            by: By { label, ..id },
            by_rules: false,
        }
    }

    fn by_rules(who: &Principal, reach: &Reach<'r>) -> Self {
        let decision = &reach.decision;
        let label = decision.label;
        let (tcp, udp) = reach.by_address(who);
        let verdict = match decision.reason {
            Some(reason) => NameVerdict::Deny { reason, label },
            None => NameVerdict::Allow {
                pattern: reach.pattern,
                label,
                pin: !(tcp.is_empty() && udp.is_empty()),
            },
        };
        Self {
            verdict,
            by: By {
                policy_id: decision.policy_id,
                version: Some(decision.version),
                label,
                would_deny: decision.would_deny,
                alert: decision.alert,
            },
            by_rules: true,
        }
    }
}

/// Whose question it is.
#[derive(Clone, Copy)]
pub enum Who<'r> {
    Agent(&'r Principal),
    Front,
}

#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error(transparent)]
    Read(#[from] RevisionError),
    #[error(transparent)]
    Compile(#[from] IndexError),
    #[error(
        "{path} holds revision {found}, not {wanted}; the enforcer has to send the file of the revision it names"
    )]
    Other {
        path: String,
        found: u64,
        wanted: u64,
    },
}

impl Rules {
    /// Takes seconds for a large policy.
    pub fn read(path: &Path, wanted: u64) -> Result<Self, RulesError> {
        let revision = Revision::read(path)?;
        if revision.number != wanted {
            return Err(RulesError::Other {
                path: path.display().to_string(),
                found: revision.number,
                wanted,
            });
        }
        Self::of(&revision)
    }

    pub fn of(revision: &Revision) -> Result<Self, RulesError> {
        let network = &revision.network;
        let cards = |cards: &[Card]| -> Vec<Cidr> {
            cards
                .iter()
                .flat_map(|card| card.addresses.iter().copied())
                .collect()
        };
        let wan = cards(&network.wan);
        let mut near = cards(&network.lan);
        near.extend(cards(&network.management));
        let listens = network.listen_addresses.iter().copied();
        let of_cards = wan.iter().chain(&near).map(|cidr| cidr.address);
        let own: HashSet<IpAddr> = of_cards.chain(listens.clone()).collect();
        near.extend(
            wan.iter()
                .map(|cidr| cidr.address)
                .chain(listens)
                .map(single),
        );
        let index = Index::of(revision)?;
        Ok(Self {
            revision: revision.number,
            deny_log: revision.logging.deny_log,
            when_full: revision.access.audit.when_full,
            facility: facility(&revision.logging.facility).unwrap_or(USUAL_FACILITY),
            gateways: if revision.enabled {
                gateways(&index)
            } else {
                HashSet::new()
            },
            index,
            near,
            own,
        })
    }

    pub fn agent(&self, source: IpAddr) -> Option<Who<'_>> {
        self.index.principal_of(source).map(Who::Agent)
    }

    /// `clock_trusted` is the enforcer's word, which knows what the revision says of the hardware clock.
    pub fn moment(&self, now: i64, clock_trusted: bool) -> Moment {
        Moment {
            now,
            trusted: clock_trusted,
        }
    }

    /// By the rules, and then by the lists. For the front a name counts as allowed if anybody may have it on the wire:
    /// whose flow it is was judged there. What names it in full goes before a wildcard, which has a budget.
    pub fn judge(&self, who: Who<'_>, name: &str, moment: Moment) -> Judged<'_> {
        match who {
            Who::Agent(principal) => match self.index.reach_name(principal, name, &[], moment) {
                Some(reach) => Judged::by_rules(principal, &reach),
                None => Judged {
                    // A rule may still deny where the name leads.
                    by_rules: principal
                        .ruled
                        .as_ref()
                        .is_some_and(|ruled| !ruled.networks.is_empty()),
                    ..Judged::by_lists(self.index.judge_name(principal, name, moment))
                },
            },
            Who::Front => Judged::by_lists(self.judge_for_front(name, moment)),
        }
    }

    fn judge_for_front(&self, name: &str, moment: Moment) -> NameVerdict<'_> {
        let allowed = |pattern| NameVerdict::Allow {
            pattern,
            label: None,
            pin: true,
        };
        if let Some(gateway) = self.gateways.get(name) {
            return allowed(gateway);
        }
        let mut found = None;
        for (_, pattern) in self.on_wire(name, moment) {
            if pattern == name {
                return allowed(pattern);
            }
            found = found.or(Some(allowed(pattern)));
        }
        found.unwrap_or(NameVerdict::Deny {
            reason: Reason::NotAllowlisted,
            label: self.index.label(name),
        })
    }

    /// Who may have the name on the wire now, and by which pattern.
    pub fn on_wire(&self, name: &str, moment: Moment) -> impl Iterator<Item = (&Principal, &str)> {
        let principals = self.index.principals().iter();
        principals.filter_map(move |principal| {
            let pattern = self.index.pattern_on_wire(principal, name, moment)?;
            Some((principal, pattern))
        })
    }

    /// What of an answer a rule keeps from this asker, by the network that it leads into; and whether an address that
    /// may be told opens anything that has to be pinned.
    pub fn leads(&self, who: Who<'_>, name: &str, address: IpAddr, moment: Moment) -> Leads {
        let Who::Agent(principal) = who else {
            return Leads::Pinned;
        };
        match self.index.reach_name(principal, name, &[address], moment) {
            None => Leads::Pinned,
            Some(reach) if !reach.decision.allowed => Leads::Nowhere,
            Some(reach) => match reach.by_address(principal) {
                (tcp, udp) if tcp.is_empty() && udp.is_empty() => Leads::Told,
                _ => Leads::Pinned,
            },
        }
    }

    /// True if the name counts against a cap that `is_over` says is used up.
    pub fn over_cap(&self, who: Who<'_>, name: &str, is_over: impl Fn(&str, &str) -> bool) -> bool {
        match who {
            Who::Agent(principal) => self
                .index
                .caps_of(principal, name)
                .any(|(pattern, _)| is_over(&self.index.holder(principal).name, pattern.as_str())),
            // Caps are counted and cut at the flow, which has a principal.
            Who::Front => false,
        }
    }

    /// Whether this asker may be told an address that an answer from outside has no business with. For the front all
    /// must hold it whose flows it may ask for, or one agent's network would be open to another's name. A next gateway
    /// may be anywhere but in this box: the operator named it.
    pub fn holds(&self, who: Who<'_>, name: &str, address: IpAddr, moment: Moment) -> bool {
        if address::is_never_meant(address) {
            return false;
        }
        match who {
            Who::Agent(principal) => holds(principal, address),
            Who::Front if self.gateways.contains(name) => !self.own.contains(&address),
            Who::Front => self
                .on_wire(name, moment)
                .all(|(principal, _)| holds(principal, address)),
        }
    }

    /// On this side of the box, whatever range it is from.
    pub fn is_near(&self, address: IpAddr) -> bool {
        self.near.iter().any(|network| network.contains(address))
    }

    /// For people: what of the policy is unusual.
    pub fn warnings(&self) -> &[String] {
        self.index.warnings()
    }
}

impl<'r> Who<'r> {
    pub fn id(self) -> u16 {
        match self {
            Self::Agent(principal) => principal.id.0,
            Self::Front => FRONT_ID,
        }
    }

    pub fn principal(self) -> Option<&'r Principal> {
        match self {
            Self::Agent(principal) => Some(principal),
            Self::Front => None,
        }
    }

    pub fn name(self) -> &'r str {
        match self {
            Self::Agent(principal) => &principal.name,
            Self::Front => FRONT,
        }
    }
}

/// The addresses of this box as the kernel has them.
pub fn own_addresses() -> std::io::Result<Vec<IpAddr>> {
    let mut own: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            if let Some(v4) = address.as_sockaddr_in() {
                return Some(IpAddr::V4(v4.ip()));
            }
            address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
        })
        .collect();
    own.sort_unstable();
    own.dedup();
    Ok(own)
}

/// By the networks of the policy that mean such addresses, not by one that is about the world and holds them along.
fn holds(principal: &Principal, address: IpAddr) -> bool {
    let mut networks = principal.scope.ips.iter();
    networks.any(|network| network.contains(address) && !address::reaches_inside(network))
}

/// Hosts of the next gateways that flows judged on the wire are handed to.
fn gateways(index: &Index) -> HashSet<Box<str>> {
    let on_wire = index
        .principals()
        .iter()
        .filter(|principal| principal.scope.judges_names_on_the_wire);
    on_wire
        .filter_map(|principal| principal.scope.backend.as_deref()?.rsplit_once(':'))
        .map(|(host, _)| host.trim_matches(['[', ']']))
        .filter(|host| host.parse::<IpAddr>().is_err())
        .map(|host| host.to_ascii_lowercase().into())
        .collect()
}

fn single(address: IpAddr) -> Cidr {
    Cidr {
        address,
        length: if address.is_ipv4() { 32 } else { 128 },
    }
}
