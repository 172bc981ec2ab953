//! Into which sets the addresses of a name belong at a moment. The one place that knows: a plan fills its sets by it,
//! and whoever adds a pin while a plan is in force asks it, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use clawgress_policy::{Index, Moment, NameVerdict, Principal, Reason};

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
    /// Whether flows are let through by it: false for sets that only count or explain.
    pub opens: bool,
}

impl Place {
    fn new(opens: bool, set: impl Fn(bool) -> String) -> Self {
        Self {
            table: TABLE,
            v4: set(false),
            v6: set(true),
            opens,
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

/// Where addresses belong that `name` was resolved to for `principal` (or for the front). None of them opens: the
/// name may not be reached now.
pub fn places(index: &Index, principal: &str, name: &str, moment: Moment) -> Vec<Place> {
    let mut places = Vec::new();
    if principal == FRONT {
        let judged = index
            .principals()
            .iter()
            .filter(|who| who.scope.judges_names_on_the_wire);
        for who in judged.filter(|who| front_may(index, who, name, moment)) {
            places.push(Place::new(true, |v6| name::front_pins(who.id, v6)));
            places.extend(
                index
                    .caps_of(who, name)
                    .map(|(pattern, _)| Place::cap(who, pattern.as_str())),
            );
        }
        return places;
    }
    let Some(who) = index.by_name(principal) else {
        return places;
    };
    match index.judge_name(who, name, moment) {
        NameVerdict::Allow { pin: true, .. } => {
            places.push(Place::new(true, |v6| name::pins(who.id, v6)))
        }
        NameVerdict::Deny {
            reason: Reason::OutsideWindow | Reason::ClockUntrusted,
            ..
        } => places.push(Place::new(false, |v6| name::shut(who.id, v6))),
        NameVerdict::Allow { .. } | NameVerdict::Deny { .. } => return places,
    }
    // Also while it is shut: the address may be open under another name.
    places.extend(
        index
            .caps_of(who, name)
            .map(|(pattern, _)| Place::cap(who, pattern.as_str())),
    );
    places
}

fn front_may(index: &Index, who: &Principal, name: &str, moment: Moment) -> bool {
    match next_gateway(who) {
        Some(next) => next.host.eq_ignore_ascii_case(name),
        None => index.judge_wire_name(who, name, moment).is_allowed(),
    }
}

/// What is carried, sorted into sets.
pub(super) struct Pins {
    sets: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl Pins {
    pub(super) fn of(index: &Index, carried: &[CarriedPin], moment: Moment) -> Self {
        let mut sets: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for pin in carried {
            let places = places(index, &pin.principal, &pin.name, moment);
            for place in places.iter().filter(|place| place.holds(pin.leaving)) {
                for address in &pin.addresses {
                    sets.entry(place.set(*address).to_owned())
                        .or_default()
                        .insert(*address);
                }
            }
        }
        Self { sets }
    }

    pub(super) fn in_set(&self, set: &str) -> Vec<Word> {
        let addresses = self.sets.get(set).into_iter().flatten();
        addresses
            .map(|address| statement::address(*address))
            .collect()
    }
}
