//! A revision, ready to be asked by the resolver: the index that every path shares, and the addresses that are near.
//!
//! Decides nothing of its own about names.

use std::net::IpAddr;
use std::path::Path;

use clawgress_config::Cidr;
use clawgress_policy::{
    Card, Index, IndexError, Moment, NameVerdict, Principal, Reason, Revision, RevisionError,
};

use crate::address::is_inside;

/// The front, asking on behalf of flows that it has checked.
pub const FRONT: &str = "sni";
/// The front's number; those of principals begin at 1.
const FRONT_ID: u16 = 0;

pub struct Rules {
    pub revision: u64,
    /// Whether denials are events.
    pub deny_log: bool,
    index: Index,
    trust_hardware_clock: bool,
    /// Networks on this side of the box, and its own addresses as configured.
    near: Vec<Cidr>,
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
        let own = cards(&network.wan)
            .into_iter()
            .map(|cidr| cidr.address)
            .chain(network.listen_addresses.iter().copied())
            .map(single);
        let mut near = cards(&network.lan);
        near.extend(cards(&network.management));
        near.extend(own);
        Ok(Self {
            revision: revision.number,
            deny_log: revision.logging.deny_log,
            index: Index::of(revision)?,
            trust_hardware_clock: revision.trust_hardware_clock,
            near,
        })
    }

    pub fn agent(&self, source: IpAddr) -> Option<Who<'_>> {
        self.index.principal_of(source).map(Who::Agent)
    }

    pub fn moment(&self, now: i64, clock_trusted: bool) -> Moment {
        Moment {
            now,
            trusted: clock_trusted || self.trust_hardware_clock,
        }
    }

    /// For the front a name counts as allowed if anybody may have it on the wire: whose flow it is was judged there.
    pub fn judge(&self, who: Who<'_>, name: &str, moment: Moment) -> NameVerdict<'_> {
        match who {
            Who::Agent(principal) => self.index.judge_name(principal, name, moment),
            Who::Front => self
                .index
                .principals()
                .iter()
                .map(|principal| self.index.judge_wire_name(principal, name, moment))
                .find(NameVerdict::is_allowed)
                .unwrap_or(NameVerdict::Deny {
                    reason: Reason::NotAllowlisted,
                    label: self.index.label(name),
                }),
        }
    }

    /// True if the name counts against a cap that `is_over` says is used up.
    pub fn over_cap(&self, who: Who<'_>, name: &str, is_over: impl Fn(&str, &str) -> bool) -> bool {
        match who {
            Who::Agent(principal) => self
                .index
                .caps_of(principal, name)
                .any(|(pattern, _)| is_over(&principal.name, pattern.as_str())),
            // Caps are counted and cut at the flow, which has a principal.
            Who::Front => false,
        }
    }

    /// Whether this asker may be told an address that an answer from outside has no business with. For the front all
    /// must hold it whose flows it may ask for, or one agent's network would be open to another's name.
    pub fn holds(&self, who: Who<'_>, name: &str, address: IpAddr, moment: Moment) -> bool {
        // An IPv4 address in disguise is held by nobody: its plain form is there to be told.
        if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return false;
        }
        match who {
            Who::Agent(principal) => principal.scope.holds(address),
            Who::Front => self
                .index
                .principals()
                .iter()
                .filter(|principal| {
                    self.index
                        .judge_wire_name(principal, name, moment)
                        .is_allowed()
                })
                .all(|principal| principal.scope.holds(address)),
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

    pub fn name(self) -> &'r str {
        match self {
            Self::Agent(principal) => &principal.name,
            Self::Front => FRONT,
        }
    }
}

/// The addresses of this box that an answer must not name though they look like the world's. The others are inside.
pub fn own_addresses() -> std::io::Result<Vec<IpAddr>> {
    let mut own: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            if let Some(v4) = address.as_sockaddr_in() {
                return Some(IpAddr::V4(v4.ip()));
            }
            address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
        })
        .filter(|address| !is_inside(*address))
        .collect();
    own.sort_unstable();
    own.dedup();
    Ok(own)
}

fn single(address: IpAddr) -> Cidr {
    Cidr {
        address,
        length: if address.is_ipv4() { 32 } else { 128 },
    }
}
