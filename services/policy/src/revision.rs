//! A revision: everything that enforcement is compiled from, under one rising number.

mod file;

use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_config::access::Access;
use clawgress_config::policy::Policy;

pub use file::{ContentError, RevisionError};

/// What consumers compile. Two revisions of the same content differ in their number alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Never 0; only rises.
    pub number: u64,
    /// Seconds since 1970.
    pub created: i64,
    /// False: `service clawgress enable` is absent, and the box stays sealed.
    pub enabled: bool,
    pub policy: Policy,
    pub network: Network,
    /// As in the IANA data base.
    pub time_zone: String,
    /// `system ntp trust-hardware-clock`: windows are judged though no time server has answered.
    pub trust_hardware_clock: bool,
    pub logging: Logging,
    /// Resolvers that named forwards to; empty: it asks the roots itself.
    pub name_servers: Vec<IpAddr>,
    /// Agents, their rules and quotas, and what serves them.
    pub access: Access,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    pub wan: Vec<Card>,
    pub lan: Vec<LanCard>,
    pub management: Vec<Card>,
    /// Ports that management addresses answer on (SSH, the API), each with the networks that may ask.
    pub ssh: Option<(u16, Vec<Cidr>)>,
    /// Where agents may speak to the appliance itself (resolver, proxy); empty: on every LAN address.
    pub listen_addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub name: String,
    /// Own addresses with their networks; empty with DHCP.
    pub addresses: Vec<Cidr>,
}

pub type LanCard = Card;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Syslog facility, such as `local0`.
    pub facility: String,
    pub deny_log: bool,
}
