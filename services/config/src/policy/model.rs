//! The typed policy. Whatever is in here has been checked: names are canonical, networks have no host bits, windows
//! have days and a length. Only the readers of text (`json`, `tree`) make one.

use std::collections::{BTreeMap, BTreeSet};

use crate::cidr::Cidr;
use crate::policy::domain::DomainPattern;

/// A whole policy: one scope for everybody, and hosts that have theirs alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    pub global: Scope,
    /// Reasons shown when a name is denied or allowed, for every scope.
    pub labels: BTreeMap<DomainPattern, String>,
    /// By name.
    pub hosts: BTreeMap<String, Host>,
}

/// What somebody may reach, when, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    pub allow: Allow,
    pub proxy: Option<Proxy>,
    /// Encloses everything of this scope; a domain's own window replaces it for that domain.
    pub time_window: Option<TimeWindow>,
    pub domain_time_windows: BTreeMap<DomainPattern, TimeWindow>,
    pub limits: Limits,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// Never empty; no host bits.
    pub sources: BTreeSet<Cidr>,
    pub scope: Scope,
    /// At most so many bytes out to a name in each period.
    pub exfil: BTreeMap<DomainPattern, Cap>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allow {
    pub domains: BTreeSet<DomainPattern>,
    pub ips: BTreeSet<Cidr>,
    /// Empty means no restriction was written: then TCP 80 and 443 (see `Allow::effective_ports`).
    pub ports: BTreeSet<PortRule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRule {
    pub port: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxy {
    pub mode: Option<ProxyMode>,
    /// Empty: the scope's allowed domains.
    pub domains: BTreeSet<DomainPattern>,
    /// The next gateway, `name-or-address:port`, that flows are handed to instead of going straight to their site.
    pub backend: Option<String>,
    /// The connection to the backend is mutually authenticated TLS.
    pub mtls: Option<Mtls>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    SniAllowlist,
}

/// Files below /config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mtls {
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// Minutes since midnight on the wall; 24:00 (1440) only as an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay(pub u16);

/// Opens at `start` on each of `days`; `end` before `start` closes on the day after. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeWindow {
    pub days: BTreeSet<Day>,
    pub start: TimeOfDay,
    pub end: TimeOfDay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// 1 kbit is 1000 bit of outbound IP bytes. Absent: no limit.
    pub egress_kbps: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    pub bytes: u64,
    pub period: Period,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
}

impl Period {
    pub fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

impl Allow {
    /// What `ports` means: as written, or TCP 80 and 443 where nothing is written. Port 53 always ends at the
    /// appliance's own resolver, so it is never part of this.
    pub fn effective_ports(&self) -> BTreeSet<PortRule> {
        if self.ports.is_empty() {
            return [80, 443]
                .map(|port| PortRule {
                    port,
                    protocol: Protocol::Tcp,
                })
                .into();
        }
        self.ports
            .iter()
            .copied()
            .filter(|rule| rule.port != 53)
            .collect()
    }
}

impl Scope {
    /// True if port 443 is judged by the name in the TLS hello and port 80 by the Host header.
    pub fn judges_names_on_the_wire(&self) -> bool {
        self.proxy
            .as_ref()
            .is_some_and(|proxy| proxy.mode == Some(ProxyMode::SniAllowlist))
    }

    /// The names judged on the wire.
    pub fn wire_domains(&self) -> &BTreeSet<DomainPattern> {
        match &self.proxy {
            Some(proxy) if !proxy.domains.is_empty() => &proxy.domains,
            _ => &self.allow.domains,
        }
    }
}
