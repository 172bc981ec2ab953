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
        for who in judged.filter(|who| front_may(index, who, name, address, moment)) {
            places.push(Place::new(true, |v6| name::front_pins(who.id, v6)));
            places.extend(caps(index, who, name));
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

/// The front's leg goes to a port that it has read the name on: here it is enough that there is one.
fn front_may(index: &Index, who: &Principal, name: &str, address: IpAddr, moment: Moment) -> bool {
    if let Some(next) = next_gateway(who) {
        return next.host.eq_ignore_ascii_case(name);
    }
    match index.reach_name(who, name, &[address], moment) {
        Some(reach) => !reach.tcp.and(&wire_ports(who)).is_empty(),
        None => index.judge_wire_name(who, name, moment).is_allowed(),
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
