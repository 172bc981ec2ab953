//! What rules open of addresses: of those that names were resolved to, port by port, and of those that are asked for as
//! such, in networks that are all judged alike.
//!
//! Rules may lie across each other in any way, and the first that matches decides. So the address space is cut wherever
//! a network of a rule or list begins or ends, and each piece is judged by any one of its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clawgress_config::Cidr;
use clawgress_policy::address::{inside_blocks, reaches_inside};
use clawgress_policy::rules::wire_ports;
use clawgress_policy::{CompiledScope, Ports, Principal, Reason, Ruled};

use super::{
    frame::{Frame, WIRE_PORTS, disjoint},
    name,
    pins::Pins,
    principal::destination_port,
    ruleset::{Kind, Ruleset},
    statement::{
        self, Word, concat, ct_original, goto, is, is_not, named_set, numbers,
        original_destination, protocol, set_of,
    },
};

/// So many different sets of ports can networks of one principal have.
const MOST_CLASSES: usize = 64;
const DNS: u16 = 53;

/// TCP and UDP ports.
type Class = (Ports, Ports);
type Span = (IpAddr, IpAddr);

pub(super) struct Regions<'r> {
    ruled: &'r Ruled,
    /// What is open of each class, in order.
    open: BTreeMap<Class, Vec<Span>>,
    /// What a rule denies.
    denied: Vec<Span>,
    /// There are more classes than fit; the rest stays shut.
    left_out: usize,
}

impl<'r> Regions<'r> {
    pub(super) fn of(frame: &Frame<'_>, who: &Principal, ruled: &'r Ruled) -> Self {
        let mut regions = Self {
            ruled,
            open: BTreeMap::new(),
            denied: Vec::new(),
            left_out: 0,
        };
        let networks = || who.scope.ips.iter().chain(&ruled.networks).copied();
        for v6 in [false, true] {
            for span in pieces(networks(), ruled.everywhere, v6) {
                regions.add(frame, who, span);
            }
        }
        regions
    }

    fn add(&mut self, frame: &Frame<'_>, who: &Principal, span: Span) {
        let index = frame.index;
        let class = match index.reach_address(who, span.0, frame.moment) {
            Some(reach) => {
                if reach.decision.reason == Some(Reason::Rule) {
                    push(&mut self.denied, span);
                }
                reach.by_address(who)
            }
            None if who.scope.holds(span.0) && index.is_open(who, frame.moment) => {
                index.listed_ports(who)
            }
            None => return,
        };
        if class.0.is_empty() && class.1.is_empty() {
            return;
        }
        if !self.open.contains_key(&class) && self.open.len() >= MOST_CLASSES {
            self.left_out += 1;
            return;
        }
        push(self.open.entry(class).or_default(), span);
    }

    pub(super) fn declare(&self, ruleset: &mut Ruleset, pins: &Pins, who: &Principal) {
        let id = who.id;
        for v6 in [false, true] {
            let kind = Kind::of(v6);
            for set in [name::at(id, v6), name::udp(id, v6)] {
                ruleset.address_ports(&set, kind, pins.in_set(&set));
            }
            let rest = name::rest(id, v6);
            ruleset.addresses(&rest, kind, pins.in_set(&rest));
            for (number, spans) in self.open.values().enumerate() {
                ruleset.networks(&name::class(id, number, v6), kind, words(spans, v6));
            }
            ruleset.networks(&name::ruled(id, v6), kind, words(&self.denied, v6));
        }
    }

    /// Rules that let through what is open, and leave the rest to those behind them.
    pub(super) fn permit(&self, ruleset: &mut Ruleset, who: &Principal) {
        let id = who.id;
        let port = || ct_original("proto-dst");
        let beyond = || numbers(self.ruled.beyond.iter().copied());
        if !self.ruled.beyond.is_empty() {
            ruleset.rule([
                protocol("tcp"),
                destination_port(beyond()),
                goto(name::denied(id, Reason::Port)),
            ]);
        }
        // What is judged by name or leads to the resolver is in no set of addresses, and here any other port would do.
        let wire = wire_ports(who);
        let wire = WIRE_PORTS
            .iter()
            .map(|(port, _)| *port)
            .filter(|port| wire.contains(*port));
        let mut told: BTreeSet<u16> = self.ruled.ports.iter().copied().chain(wire).collect();
        told.insert(DNS);
        for v6 in [false, true] {
            let to = || original_destination(v6);
            for (transport, set) in [("tcp", name::at(id, v6)), ("udp", name::udp(id, v6))] {
                ruleset.rule([
                    protocol(transport),
                    is(concat([to(), port()]), named_set(set)),
                    goto("stamp"),
                ]);
            }
            ruleset.rule([
                protocol("tcp"),
                is_not(port(), numbers(told.iter().copied())),
                is(to(), named_set(name::rest(id, v6))),
                goto("stamp"),
            ]);
            for (number, (tcp, udp)) in self.open.keys().enumerate() {
                for (transport, ports) in [("tcp", tcp), ("udp", udp)] {
                    if !ports.is_empty() {
                        ruleset.rule([
                            protocol(transport),
                            destination_port(set_of(ports.ranges().iter().copied().map(range))),
                            is(to(), named_set(name::class(id, number, v6))),
                            goto("stamp"),
                        ]);
                    }
                }
            }
        }
    }
}

pub(super) fn warn(frame: &Frame<'_>, who: &Principal, ruled: &Ruled, warnings: &mut Vec<String>) {
    let regions = Regions::of(frame, who, ruled);
    if !ruled.beyond.is_empty() {
        warnings.push(format!(
            "{}: its rules name more ports than can be told apart on the path of packets; shut there: {}",
            who.name,
            ruled
                .beyond
                .iter()
                .map(u16::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        ));
    }
    if regions.left_out > 0 {
        warnings.push(format!(
            "{}: its rules open networks for more than {MOST_CLASSES} different sets of ports; {} more are shut on the \
             path of packets",
            who.name, regions.left_out
        ));
    }
}

fn range((first, last): (u16, u16)) -> Word {
    if first == last {
        return statement::number(u32::from(first));
    }
    statement::port_range(first, last)
}

fn words(spans: &[Span], v6: bool) -> Vec<Word> {
    spans
        .iter()
        .filter(|(first, _)| first.is_ipv6() == v6)
        .map(|(first, last)| {
            if first == last {
                statement::address(*first)
            } else {
                statement::range(*first, *last)
            }
        })
        .collect()
}

/// Spans must come in ascending order; neighbours become one.
fn push(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(before) if next(before.1) == Some(span.0) => before.1 = span.1,
        _ => spans.push(span),
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => u32::from(v4)
            .checked_add(1)
            .map(|bits| Ipv4Addr::from(bits).into()),
        IpAddr::V6(v6) => u128::from(v6)
            .checked_add(1)
            .map(|bits| Ipv6Addr::from(bits).into()),
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// What a scope without rules opens of its networks: those about the world without what is inside.
pub(super) fn held(scope: &CompiledScope, v6: bool) -> Vec<Word> {
    let mut networks = scope.ips.iter().filter(|cidr| cidr.address.is_ipv6() == v6);
    if !networks.any(reaches_inside) {
        return disjoint(&scope.ips, v6)
            .iter()
            .map(statement::network)
            .collect();
    }
    let mut spans = Vec::new();
    for span in pieces(scope.ips.iter().copied(), false, v6) {
        if scope.holds(span.0) {
            push(&mut spans, span);
        }
    }
    words(&spans, v6)
}

/// The address space of a family, cut at the ends of all networks and of what is inside; what lies in none of the
/// networks only with `everywhere`.
fn pieces(networks: impl Iterator<Item = Cidr>, everywhere: bool, v6: bool) -> Vec<Span> {
    let most = if v6 { u128::MAX } else { u32::MAX.into() };
    let ranges: Vec<(u128, u128)> = networks
        .filter(|network| network.address.is_ipv6() == v6)
        .map(|network| {
            let hosts = most.checked_shr(u32::from(network.length)).unwrap_or(0);
            let first = bits(network.network().address) & !hosts;
            (first, first | hosts)
        })
        .chain(everywhere.then_some((0, most)))
        .collect();
    let mut cuts: BTreeSet<u128> = ranges.iter().map(|(first, _)| *first).collect();
    let after = |(_, last): &(u128, u128)| last.checked_add(1).filter(|next| *next <= most);
    cuts.extend(ranges.iter().filter_map(after));
    for block in inside_blocks(v6) {
        let hosts = most.checked_shr(u32::from(block.length)).unwrap_or(0);
        let first = bits(block.address);
        cuts.insert(first);
        cuts.extend(after(&(first, first | hosts)));
    }
    // Which pieces lie in a network: as many have begun as there are not yet ended ones, and one.
    let mut change: BTreeMap<u128, i64> = BTreeMap::new();
    for range in &ranges {
        *change.entry(range.0).or_default() += 1;
        if let Some(next) = after(range) {
            *change.entry(next).or_default() -= 1;
        }
    }
    let address = |bits: u128| -> IpAddr {
        if v6 {
            Ipv6Addr::from(bits).into()
        } else {
            Ipv4Addr::from(bits as u32).into()
        }
    };
    let mut around = 0;
    let mut pieces = Vec::new();
    let mut cuts = cuts.into_iter().peekable();
    while let Some(first) = cuts.next() {
        around += change.get(&first).copied().unwrap_or_default();
        let last = cuts.peek().map_or(most, |next| next - 1);
        if around > 0 {
            pieces.push((address(first), address(last)));
        }
    }
    pieces
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

    fn told(networks: &[&str], everywhere: bool, v6: bool) -> Vec<String> {
        pieces(networks.iter().map(|text| cidr(text)), everywhere, v6)
            .iter()
            .map(|(first, last)| format!("{first}-{last}"))
            .collect()
    }

    #[test]
    fn pieces_end_where_a_network_does() {
        assert_eq!(
            told(
                &["10.0.0.0/30", "10.0.0.1/32", "10.0.0.8/31", "fd00::/8"],
                false,
                false
            ),
            [
                "10.0.0.0-10.0.0.0",
                "10.0.0.1-10.0.0.1",
                "10.0.0.2-10.0.0.3",
                "10.0.0.8-10.0.0.9"
            ]
        );
        // And where inside begins or ends.
        let all = told(&["130.0.0.0/8"], true, false);
        for piece in [
            "0.0.0.0-0.255.255.255",
            "128.0.0.0-129.255.255.255",
            "130.0.0.0-130.255.255.255",
            "131.0.0.0-168.63.129.15",
            "169.254.0.0-169.254.255.255",
            "240.0.0.0-255.255.255.255",
        ] {
            assert!(all.iter().any(|told| told == piece), "{piece}: {all:?}");
        }
        assert_eq!(
            told(&["::/0"], false, true),
            [
                "::-1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2000::-2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001::-2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:200::-2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2002::-2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2003::-3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "4000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
            ]
        );
        assert!(told(&["10.0.0.0/8"], false, true).is_empty());
    }
}
