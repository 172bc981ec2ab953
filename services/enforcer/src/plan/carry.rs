//! What survives from one plan to the next: pins, the use of caps, the numbers of what the gateway's flows are counted as, and
//! the objects of the meter table that exist.
//!
//! The enforcer gathers it; here it is only described.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

/// Principal of the pins that the front asked for on behalf of flows that it has judged.
pub const FRONT: &str = "sni";

#[derive(Debug, Clone, Default)]
pub struct Carry {
    pub pins: Vec<CarriedPin>,
    /// Bytes already used in the present period, by principal's name and the cap's pattern. Only a quota that does not
    /// exist in the kernel takes it from here: one that does keeps its own count.
    pub used: BTreeMap<(String, String), u64>,
    pub meter: MeterObjects,
    pub blocked: Blocked,
    /// What flows of the gateway are counted as, each with its number. A number never gets another meaning while the
    /// kernel runs: flows carry it in their marks.
    pub proxied: BTreeMap<Proxied, u32>,
}

/// What a flow of the gateway is counted as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxied {
    /// Name of the principal whose limits they are.
    pub holder: String,
    /// The most specific of its caps that mean the flow's name. None: that has none, or the flow is for an address.
    pub pattern: Option<String>,
}

/// The kill switch: who reaches nothing, whatever the revision says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocked {
    /// Everybody.
    pub all: bool,
    /// By agent id, which is the principal's name.
    pub agents: BTreeSet<String>,
}

impl Blocked {
    pub fn holds(&self, principal: &str) -> bool {
        self.all || self.agents.contains(principal)
    }
}

/// Addresses that a name of a principal was resolved to, and that are still to be reachable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedPin {
    /// `agent-1`, `lan/eth1`, or `FRONT`.
    pub principal: String,
    /// Canonical.
    pub name: String,
    pub addresses: BTreeSet<IpAddr>,
    /// They open nothing any more; what they are used for is still counted.
    pub leaving: bool,
}

/// Names of what the meter table holds now. Empty: there is no such table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeterObjects {
    pub counters: BTreeSet<String>,
    pub quotas: BTreeSet<String>,
    pub sets: BTreeSet<String>,
    pub chains: BTreeSet<String>,
}
