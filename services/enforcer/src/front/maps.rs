//! The maps that haproxy looks a flow up in: whose it is, which list that one has, whether the name's rule is open.
//!
//! They are laid out so that what rarely changes is not touched by what often does. A window that opens changes one
//! line of `gates`, however many names hang on it; a list of names is there once, however many principals share it;
//! and a line says nothing (no id, no position) that a change elsewhere could shift.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_config::policy::{DomainPattern, Scope, TimeWindow};
use clawgress_policy::{Moment, Principal, PrincipalKind, Reason, Revision, Window, Zone};
use sha2::{Digest, Sha256};

use crate::front::next::{self, NextGateway};
use crate::front::{Input, log, reach, ruled, short_hex};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapName {
    /// Pattern of a used-up cap, as in `Names` -> 1.
    Caps,
    /// Class of a rule -> `open`, or the reason why it is shut. And the mark.
    Gates,
    /// `<list>@<network>` -> 1: who may reach a network that answers from outside may not name.
    Held,
    /// Pattern -> its label.
    Labels,
    /// `<list>/<key of a pattern>` -> class of the rule. The longest key that a name begins with is its rule.
    Names,
    /// Network -> itself, for all networks in `Held`.
    Networks,
    /// Own addresses -> `never`, networks beside the box -> `inside`.
    Own,
    /// `<list of rules><port's letter>/<key of a pattern>` -> what rules decide: `open`, a reason, `listed` (nothing, so
    /// that `Names` decides) or `tried` (as `listed`, but what is not there is open).
    Rules,
    /// Source network -> `<principal>|<list>|<ports>|<next gateway>`, and `|<list of rules>` if there is one. A port's
    /// letter is large where rules alone may open it.
    Sources,
}

impl MapName {
    pub const ALL: [Self; 9] = [
        Self::Caps,
        Self::Gates,
        Self::Held,
        Self::Labels,
        Self::Names,
        Self::Networks,
        Self::Own,
        Self::Rules,
        Self::Sources,
    ];

    pub fn file(self) -> &'static str {
        match self {
            Self::Caps => "caps.map",
            Self::Gates => "gates.map",
            Self::Held => "held.map",
            Self::Labels => "labels.map",
            Self::Names => "names.map",
            Self::Networks => "networks.map",
            Self::Own => "own.map",
            Self::Rules => "rules.map",
            Self::Sources => "sources.map",
        }
    }
}

/// The list that all LAN principals share.
const GLOBAL_LIST: &str = "g";
/// No name is in a list of this name.
const NO_LIST: &str = "-";
pub(super) const MARK: &str = "=mark";
pub(super) const OPEN: &str = "open";

/// The name of a principal's list of names. A host's hangs on its name alone, so that it stays what it is.
pub fn list_of(who: &Principal) -> String {
    match &who.kind {
        PrincipalKind::Lan { .. } | PrincipalKind::Agent { host: None } => GLOBAL_LIST.to_owned(),
        PrincipalKind::Host => host_list(&who.name),
        PrincipalKind::Agent { host: Some(host) } => host_list(host),
    }
}

fn host_list(name: &str) -> String {
    short_hex(&Sha256::digest(name))
}

/// As hello.lua makes it of a name: labels in reverse order, an end mark where nothing may follow.
pub(super) fn key(pattern: &DomainPattern) -> String {
    let base = pattern.base();
    let mut key = String::with_capacity(base.len() + 1);
    for label in base.rsplit('.') {
        key.push_str(label);
        key.push('.');
    }
    if !pattern.is_wildcard() {
        key.pop();
        key.push('$');
    }
    key
}

/// Sorted lines. A key is followed by a blank, which sorts before all that a key is made of.
fn text(mut lines: Vec<String>) -> String {
    lines.sort_unstable();
    lines.concat()
}

pub(super) fn add_mark(gates: &mut String, mark: &str) {
    // `=` sorts before the letters that classes begin with.
    gates.insert_str(0, &format!("{MARK} {mark}\n"));
}

pub(super) fn all(
    input: &Input<'_>,
    gateways: &BTreeSet<NextGateway>,
) -> BTreeMap<MapName, String> {
    let scopes = scopes_on_wire(input.revision);
    let mut names = Vec::new();
    let mut gates = BTreeMap::new();
    let judge = Gatekeeper::of(input);
    for (list, scope) in &scopes {
        let enclosing = format!("s-{list}");
        gates.insert(enclosing.clone(), judge.word(scope.time_window.as_ref()));
        for (pattern, window) in rules(scope) {
            let class = window.map_or_else(|| enclosing.clone(), class);
            names.push(format!("{list}/{} {class}\n", key(pattern)));
            if let Some(window) = window {
                gates
                    .entry(class)
                    .or_insert_with(|| judge.word(Some(window)));
            }
        }
    }
    let (networks, held) = reach::exceptions(&scopes);
    BTreeMap::from([
        (MapName::Caps, text(caps(input))),
        (
            MapName::Gates,
            text(
                gates
                    .iter()
                    .map(|(class, word)| format!("{class} {word}\n"))
                    .collect(),
            ),
        ),
        (MapName::Held, text(held)),
        (MapName::Labels, text(labels(input.revision))),
        (MapName::Names, text(names)),
        (MapName::Networks, text(networks)),
        (MapName::Own, text(reach::own(input.revision, input.own))),
        (MapName::Rules, text(ruled::lines(input))),
        (MapName::Sources, text(sources(input, gateways))),
    ])
}

/// The lists, each with the scope that it is of.
fn scopes_on_wire(revision: &Revision) -> Vec<(String, &Scope)> {
    let hosts = revision
        .policy
        .hosts
        .iter()
        .map(|(name, host)| (host_list(name), &host.scope));
    std::iter::once((GLOBAL_LIST.to_owned(), &revision.policy.global))
        .chain(hosts)
        .filter(|(_, scope)| revision.enabled && scope.judges_names_on_the_wire())
        .collect()
}

/// The patterns of the wire list with the window that each has for itself, and the patterns below them that have one:
/// a window given to a pattern holds for all that the pattern means, listed itself or not.
fn rules(scope: &Scope) -> impl Iterator<Item = (&DomainPattern, Option<&TimeWindow>)> {
    let listed = scope.wire_domains();
    let of_rules = listed
        .iter()
        .map(|pattern| (pattern, scope.domain_time_windows.get(pattern)));
    let below = scope
        .domain_time_windows
        .iter()
        .filter(|(pattern, _)| !listed.contains(pattern) && is_covered(pattern, listed))
        .map(|(pattern, window)| (pattern, Some(window)));
    of_rules.chain(below)
}

/// Whether a wildcard of the list means all that the pattern means.
fn is_covered(pattern: &DomainPattern, listed: &BTreeSet<DomainPattern>) -> bool {
    let mut rest = pattern.base();
    while let Some((_, above)) = rest.split_once('.') {
        let wildcard = DomainPattern::parse(&format!("*.{above}"));
        if wildcard.is_ok_and(|wildcard| listed.contains(&wildcard)) {
            return true;
        }
        rest = above;
    }
    false
}

/// Says of windows whether they are open now. A zone that nobody knows opens nothing that has one.
struct Gatekeeper {
    zone: Option<Zone>,
    moment: Moment,
}

impl Gatekeeper {
    fn of(input: &Input<'_>) -> Self {
        Self {
            zone: Zone::named(&input.revision.time_zone).ok(),
            moment: input.moment,
        }
    }

    fn word(&self, window: Option<&TimeWindow>) -> &'static str {
        match (window, &self.zone) {
            (None, _) => OPEN,
            (Some(_), _) if !self.moment.trusted => Reason::ClockUntrusted.word(),
            (Some(window), Some(zone)) if Window::from(window).is_open(zone, self.moment.now) => {
                OPEN
            }
            (Some(_), _) => Reason::OutsideWindow.word(),
        }
    }
}

/// Two windows that mean the same are one class.
fn class(window: &TimeWindow) -> String {
    let days: String = window
        .days
        .iter()
        .map(|day| char::from(b'a' + *day as u8))
        .collect();
    format!("w-{days}-{}-{}", window.start.0, window.end.0)
}

fn caps(input: &Input<'_>) -> Vec<String> {
    input
        .over_cap
        .iter()
        .filter_map(|(name, pattern)| {
            let who = input.index.by_name(name)?;
            Some(format!("{}/{} 1\n", list_of(who), key(pattern)))
        })
        .collect()
}

fn labels(revision: &Revision) -> Vec<String> {
    revision
        .policy
        .labels
        .iter()
        .map(|(pattern, label)| format!("{} {}\n", key(pattern), log::encoded(label)))
        .collect()
}

/// Networks may lie in each other: the longest around an address counts, in haproxy as in the index. So a host that
/// comes or goes is a line more or less, however its neighbours' ranges are cut.
fn sources(input: &Input<'_>, gateways: &BTreeSet<NextGateway>) -> Vec<String> {
    let revision = input.revision;
    let mut owners = BTreeMap::new();
    let hosts = revision.policy.hosts.iter();
    let hosts = hosts.map(|(name, host)| (name, &host.sources));
    let agents = revision.access.agents.iter();
    let agents = agents.map(|(id, agent)| (id, &agent.sources));
    for (name, sources) in hosts.chain(agents) {
        let networks = sources.iter().map(|source| plain(*source));
        owners.extend(networks.map(|network| (network, name.clone())));
    }
    // A host's or agent's source holds against that of a card, however long.
    let of_hosts: Vec<Cidr> = owners.keys().copied().collect();
    for card in &revision.network.lan {
        for network in card.addresses.iter().map(|address| plain(*address)) {
            let lies_in =
                |source: &Cidr| source.length <= network.length && source.contains(network.address);
            if !of_hosts.iter().any(lies_in) {
                owners.insert(network, format!("lan/{}", card.name));
            }
        }
    }
    let lines = owners.into_iter().filter_map(|(network, name)| {
        let who = input.index.by_name(&name)?;
        Some(format!("{network} {}\n", value_of(input, who, gateways)))
    });
    lines.collect()
}

/// The network that is meant: without host bits, and an IPv4 one without IPv6 clothing.
fn plain(cidr: Cidr) -> Cidr {
    let network = cidr.network();
    match (network.address, network.length.checked_sub(96)) {
        (IpAddr::V6(v6), Some(length)) => v6.to_ipv4_mapped().map_or(network, |v4| Cidr {
            address: v4.into(),
            length,
        }),
        _ => network,
    }
}

fn value_of(input: &Input<'_>, who: &Principal, gateways: &BTreeSet<NextGateway>) -> String {
    let on_wire = input.revision.enabled && who.scope.judges_names_on_the_wire;
    let list = if on_wire {
        list_of(who)
    } else {
        NO_LIST.to_owned()
    };
    let mut ports = String::from("-");
    for (port, letter) in [(443, 's'), (80, 'h')] {
        if who.scope.has_tcp(port) {
            ports.push(letter);
        } else if who.is_on_wire(port) {
            ports.push(letter.to_ascii_uppercase());
        }
    }
    let next = next::of_scope(who.scope.backend.as_deref(), who.scope.mtls.as_ref())
        // One that is not in the configuration must lead nowhere, not straight to the site.
        .map_or("straight".to_owned(), |gateway| {
            if gateways.contains(&gateway) {
                gateway.id()
            } else {
                "nowhere".to_owned()
            }
        });
    let rules = ruled::list(input, who).filter(|_| on_wire);
    let rules = rules.map_or_else(String::new, |rules| format!("|{rules}"));
    format!("{}|{list}|{ports}|{next}{rules}", log::encoded(&who.name))
}

/// In haproxy's spelling; an IPv4 address in IPv6 clothing never gets here.
pub(super) fn host_network(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}
