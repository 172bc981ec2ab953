//! What all parts of one plan are compiled from, and small questions about it.

use std::{collections::BTreeSet, net::IpAddr};

use clawgress_config::Cidr;
use clawgress_policy::{Card, Index, Moment, Principal, Reason, Revision};

use super::{
    carry::Carry,
    layout,
    statement::{self, Word},
};

pub(super) struct Frame<'r> {
    pub(super) revision: &'r Revision,
    pub(super) index: &'r Index,
    pub(super) moment: Moment,
    pub(super) generation: u32,
    pub(super) carry: &'r Carry,
    pub(super) wan: Vec<String>,
    pub(super) lan: Vec<String>,
    pub(super) management: Vec<String>,
    /// Ascending, IPv4 first; neighbours of one principal are one span.
    spans: Vec<Span<'r>>,
}

/// Source addresses of one principal without a gap.
struct Span<'r> {
    first: IpAddr,
    last: IpAddr,
    who: &'r Principal,
}

impl Span<'_> {
    fn word(&self) -> Word {
        if self.first == self.last {
            statement::address(self.first)
        } else {
            statement::range(self.first, self.last)
        }
    }
}

fn spans(index: &Index) -> Vec<Span<'_>> {
    let mut spans: Vec<Span<'_>> = Vec::new();
    for (cidr, id) in index.disjoint_sources() {
        let Some(who) = index.by_id(id) else { continue };
        let (first, last) = ends(cidr);
        match spans.last_mut() {
            Some(span) if span.who.id == id && follows(span.last, first) => span.last = last,
            _ => spans.push(Span { first, last, who }),
        }
    }
    spans
}

fn ends(cidr: Cidr) -> (IpAddr, IpAddr) {
    let length = u32::from(cidr.length);
    match cidr.address {
        IpAddr::V4(v4) => {
            let hosts = u32::MAX.checked_shr(length).unwrap_or(0);
            let first = u32::from(v4) & !hosts;
            (IpAddr::V4(first.into()), IpAddr::V4((first | hosts).into()))
        }
        IpAddr::V6(v6) => {
            let hosts = u128::MAX.checked_shr(length).unwrap_or(0);
            let first = u128::from(v6) & !hosts;
            (IpAddr::V6(first.into()), IpAddr::V6((first | hosts).into()))
        }
    }
}

fn follows(last: IpAddr, next: IpAddr) -> bool {
    match (last, next) {
        (IpAddr::V4(last), IpAddr::V4(next)) => u32::from(last).checked_add(1) == Some(next.into()),
        (IpAddr::V6(last), IpAddr::V6(next)) => {
            u128::from(last).checked_add(1) == Some(next.into())
        }
        _ => false,
    }
}

fn card_names(cards: &[Card]) -> Vec<String> {
    let names: BTreeSet<&String> = cards.iter().map(|card| &card.name).collect();
    names.into_iter().cloned().collect()
}

impl<'r> Frame<'r> {
    pub(super) fn new(
        revision: &'r Revision,
        index: &'r Index,
        moment: Moment,
        generation: u32,
        carry: &'r Carry,
    ) -> Self {
        Self {
            revision,
            index,
            moment,
            generation,
            carry,
            wan: card_names(&revision.network.wan),
            lan: card_names(&revision.network.lan),
            management: card_names(&revision.network.management),
            spans: spans(index),
        }
    }

    /// Why this principal reaches nothing at all.
    pub(super) fn closed(&self, who: &Principal) -> Option<Reason> {
        if self.carry.blocked.holds(&who.name) {
            return Some(Reason::Blocked);
        }
        who.is_disabled().then_some(Reason::AgentDisabled)
    }

    /// As stamped on flows.
    pub(super) fn stamp(&self) -> u32 {
        layout::stamp(self.generation)
    }

    /// LAN cards on which nobody but principals can be: not those that lead outside or to the operators, too.
    pub(super) fn agents_only(&self) -> Vec<String> {
        let shared = |name: &&String| !self.wan.contains(name) && !self.management.contains(name);
        self.lan.iter().filter(shared).cloned().collect()
    }

    /// Why whatever has a window is shut, when it is.
    pub(super) fn shut_reason(&self) -> Reason {
        if self.moment.trusted {
            Reason::OutsideWindow
        } else {
            Reason::ClockUntrusted
        }
    }

    /// Sources of the principals that `wanted` holds for, with who they are.
    pub(super) fn sources<'f>(
        &'f self,
        v6: bool,
        wanted: impl Fn(&Principal) -> bool + 'f,
    ) -> impl Iterator<Item = (&'r Principal, Word)> + 'f {
        self.spans
            .iter()
            .filter(move |span| span.first.is_ipv6() == v6 && wanted(span.who))
            .map(|span| (span.who, span.word()))
    }

    /// A table from sources to a name made of their principal.
    pub(super) fn by_source(
        &self,
        v6: bool,
        wanted: impl Fn(&Principal) -> bool,
        name: impl Fn(&Principal) -> String,
    ) -> Vec<(Word, String)> {
        self.sources(v6, wanted)
            .map(|(who, source)| (source, name(who)))
            .collect()
    }
}

/// Whether the front judges what this principal sends to this TCP port.
pub(super) fn on_wire(who: &Principal, port: u16) -> bool {
    who.is_on_wire(port)
}

/// The ports that are judged by name in such scopes, each with where the front listens for it.
pub(super) const WIRE_PORTS: [(u16, u16); 2] = [(443, layout::port::SNI), (80, layout::port::HOST)];

/// Without networks that lie in others: what is left is disjoint.
pub(super) fn disjoint(networks: &[Cidr], v6: bool) -> Vec<Cidr> {
    let mut sorted: Vec<Cidr> = networks
        .iter()
        .filter(|cidr| cidr.address.is_ipv6() == v6)
        .copied()
        .collect();
    // A network sorts before everything inside it.
    sorted.sort_by_key(|cidr| (cidr.address, cidr.length));
    let mut kept: Vec<Cidr> = Vec::with_capacity(sorted.len());
    for cidr in sorted {
        if !kept.last().is_some_and(|last| last.contains(cidr.address)) {
            kept.push(cidr);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        let (address, length) = text.split_once('/').unwrap();
        Cidr {
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
        }
    }

    #[test]
    fn a_network_has_two_ends() {
        for (network, first, last) in [
            ("10.0.0.0/30", "10.0.0.0", "10.0.0.3"),
            ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
            ("10.0.0.7/32", "10.0.0.7", "10.0.0.7"),
            ("fd00::/127", "fd00::", "fd00::1"),
            ("fd00::7/128", "fd00::7", "fd00::7"),
        ] {
            let (a, b) = ends(cidr(network));
            assert_eq!(
                (a.to_string().as_str(), b.to_string().as_str()),
                (first, last)
            );
        }
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(follows(address("10.0.0.255"), address("10.0.1.0")));
        assert!(!follows(address("255.255.255.255"), address("0.0.0.0")));
        assert!(!follows(address("10.0.0.1"), address("::")));
    }

    #[test]
    fn networks_inside_others_go() {
        let all = [
            "10.1.0.0/16",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "11.0.0.0/8",
            "2001:db8::/32",
            "10.0.0.0/24",
        ]
        .map(cidr);
        assert_eq!(
            disjoint(&all, false),
            ["10.0.0.0/8", "11.0.0.0/8"].map(cidr)
        );
        assert_eq!(disjoint(&all, true), ["2001:db8::/32"].map(cidr));
    }
}
