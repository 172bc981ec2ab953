//! Into which sets the addresses of a name belong at a moment. The one place that knows: a plan fills its sets by it,
//! and whoever adds a pin while a plan is in force asks it, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use clawgress_policy::rules::wire_ports;
use clawgress_policy::{Index, Moment, NameVerdict, Ports, Principal, Reach, Reason};

use super::{
    carry::{CarriedPin, FRONT},
    frame::WIRE_PORTS,
    layout::{METER, TABLE},
    name,
    principal::next_gateway,
    statement::{self, Word},
};

/// A pair of sets, for IPv4 and for IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub table: &'static str,
    pub v4: String,
    pub v6: String,
    /// The sets are of addresses with a port, which is this one.
    pub port: Option<u16>,
    /// Whether flows are let through by it: false for sets that only count or explain.
    pub opens: bool,
}

impl Place {
    fn new(opens: bool, set: impl Fn(bool) -> String) -> Self {
        Self {
            table: TABLE,
            v4: set(false),
            v6: set(true),
            port: None,
            opens,
        }
    }

    fn at(port: u16, set: impl Fn(bool) -> String) -> Self {
        Self {
            port: Some(port),
            ..Self::new(true, set)
        }
    }

    fn cap(who: &Principal, pattern: &str) -> Self {
        Self {
            table: METER,
            ..Self::new(false, |v6| name::cap_set(&who.name, pattern, v6))
        }
    }

    /// Whether an address belongs here that is leaving, or not.
    pub fn holds(&self, leaving: bool) -> bool {
        !(leaving && self.opens)
    }

    pub fn set(&self, address: IpAddr) -> &str {
        if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        }
    }
}

/// Where an address belongs that `name` was resolved to for `principal` (or for the front). None of them opens: the
/// name may not be reached now.
pub fn places(
    index: &Index,
    principal: &str,
    name: &str,
    address: IpAddr,
    moment: Moment,
) -> Vec<Place> {
    let mut places = Vec::new();
    if principal == FRONT {
        let judged = index
            .principals()
            .iter()
            .filter(|who| who.scope.judges_names_on_the_wire);
        for who in judged {
            let ways = for_front(index, who, name, address, moment);
            if !ways.is_empty() {
                places.extend(ways);
                places.extend(caps(index, who, name));
            }
        }
        return places;
    }
    let Some(who) = index.by_name(principal) else {
        return places;
    };
    match index.reach_name(who, name, &[address], moment) {
        Some(reach) => {
            places.extend(by_ports(who, &reach));
            let shut = matches!(
                reach.decision.reason,
                Some(Reason::OutsideWindow | Reason::ClockUntrusted)
            );
            if shut {
                places.push(Place::new(false, |v6| name::shut(who.id, v6)));
            }
            if places.is_empty() {
                return places;
            }
        }
        None => match index.judge_name(who, name, moment) {
            NameVerdict::Allow { pin: true, .. } => {
                places.push(Place::new(true, |v6| name::pins(who.id, v6)));
            }
            NameVerdict::Deny {
                reason: Reason::OutsideWindow | Reason::ClockUntrusted,
                ..
            } => places.push(Place::new(false, |v6| name::shut(who.id, v6))),
            NameVerdict::Allow { .. } | NameVerdict::Deny { .. } => return places,
        },
    }
    // Also while it is shut: the address may be open under another name.
    places.extend(caps(index, who, name));
    places
}

fn caps<'i>(
    index: &'i Index,
    who: &'i Principal,
    name: &'i str,
) -> impl Iterator<Item = Place> + 'i {
    let holder = index.holder(who);
    index
        .caps_of(who, name)
        .map(|(pattern, _)| Place::cap(holder, pattern.as_str()))
}

/// What rules open of an address, by port.
fn by_ports(who: &Principal, reach: &Reach<'_>) -> Vec<Place> {
    let (tcp, udp) = reach.by_address(who);
    let mut places = Vec::new();
    let Some(ruled) = who.ruled.as_deref() else {
        return places;
    };
    let told = ruled.ports.union(&ruled.beyond);
    let rest = tcp.without(&Ports::of(told.copied()));
    if !rest.is_empty() {
        places.push(Place::new(true, |v6| name::rest(who.id, v6)));
    }
    let open = |port: &&u16| tcp.contains(**port);
    for port in ruled.ports.iter().filter(open) {
        places.push(Place::at(*port, |v6| name::at(who.id, v6)));
    }
    for port in udp.ranges().iter().flat_map(|(first, last)| *first..=*last) {
        places.push(Place::at(port, |v6| name::udp(who.id, v6)));
    }
    places
}

/// Where the front may take a flow of this principal that it has read the name of. What the lists alone open, they open
/// at all their ports; a rule may be about one of them, and about what the name leads to.
fn for_front(
    index: &Index,
    who: &Principal,
    name: &str,
    address: IpAddr,
    moment: Moment,
) -> Vec<Place> {
    let listed = |is_open: bool| {
        let place = is_open.then(|| Place::new(true, |v6| name::front_pins(who.id, v6)));
        place.into_iter().collect()
    };
    if let Some(next) = next_gateway(who) {
        return listed(next.host.eq_ignore_ascii_case(name));
    }
    match index.reach_name(who, name, &[address], moment) {
        None => listed(index.judge_wire_name(who, name, moment).is_allowed()),
        Some(reach) => {
            let open = reach.tcp.and(&wire_ports(who));
            WIRE_PORTS
                .iter()
                .filter(|(port, _)| open.contains(*port))
                .map(|(port, _)| Place::at(*port, |v6| name::front_at(who.id, v6)))
                .collect()
        }
    }
}

/// What is carried, sorted into sets.
pub(super) struct Pins {
    sets: BTreeMap<String, BTreeSet<(IpAddr, Option<u16>)>>,
}

impl Pins {
    pub(super) fn of(index: &Index, carried: &[CarriedPin], moment: Moment) -> Self {
        let mut sets: BTreeMap<String, BTreeSet<(IpAddr, Option<u16>)>> = BTreeMap::new();
        for pin in carried {
            for address in &pin.addresses {
                let places = places(index, &pin.principal, &pin.name, *address, moment);
                for place in places.iter().filter(|place| place.holds(pin.leaving)) {
                    sets.entry(place.set(*address).to_owned())
                        .or_default()
                        .insert((*address, place.port));
                }
            }
        }
        Self { sets }
    }

    pub(super) fn in_set(&self, set: &str) -> Vec<Word> {
        let addresses = self.sets.get(set).into_iter().flatten();
        addresses
            .map(|(address, port)| match port {
                None => statement::address(*address),
                Some(port) => statement::concat([
                    statement::address(*address),
                    statement::number(u32::from(*port)),
                ]),
            })
            .collect()
    }
}
