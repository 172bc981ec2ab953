//! The chains of one principal: what it may reach by address, where the front may take its flows, and how it is told
//! no, with whose name and which reason.
//!
//! Every flow is judged by its original tuple, so that both directions get one verdict.

use std::net::IpAddr;

use clawgress_config::policy::Protocol;
use clawgress_policy::{Principal, Reason};
use nftables::{expr::MetaKey, types::RejectCode};

use super::{
    forward::first_denial,
    frame::{Frame, WIRE_PORTS},
    layout::mark,
    name,
    pins::Pins,
    regions::{Regions, held},
    ruleset::{Kind, Ruleset},
    statement::{
        address, concat, count, ct_original, goto, is, is_not, limit, log, mark_has, meta,
        named_set, number, numbers, original_destination, protocol, refuse, tcp_or_udp,
    },
};

/// DNS over TLS and over QUIC.
const ENCRYPTED_DNS: u16 = 853;

/// Where a scope's flows are handed to by the front instead of going straight to their site.
pub(super) struct NextGateway<'p> {
    pub(super) host: &'p str,
    pub(super) port: u16,
}

impl NextGateway<'_> {
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }
}

pub(super) fn next_gateway(who: &Principal) -> Option<NextGateway<'_>> {
    let (host, port) = who.scope.backend.as_deref()?.rsplit_once(':')?;
    let port = port.parse().ok()?;
    Some(NextGateway { host, port })
}

pub(super) fn add(ruleset: &mut Ruleset, frame: &Frame<'_>, pins: &Pins, who: &Principal) {
    denials(ruleset, frame, who);
    if let Some(reason) = frame.closed(who) {
        return shut(ruleset, pins, who, reason);
    }
    by_address(ruleset, frame, pins, who);
    if who.scope.judges_names_on_the_wire {
        by_front(ruleset, frame, pins, who);
    }
}

/// The reasons for which the main table denies a known principal.
pub(super) fn reasons(frame: &Frame<'_>, who: &Principal) -> Vec<Reason> {
    let mut reasons = vec![
        Reason::DnsBypass,
        Reason::NotAllowlisted,
        frame.shut_reason(),
        Reason::Port,
        Reason::Protocol,
        Reason::Revised,
    ];
    reasons.extend(who.ruled.is_some().then_some(Reason::Rule));
    reasons.extend(frame.closed(who));
    reasons
}

/// Somebody who reaches nothing, on either leg.
fn shut(ruleset: &mut Ruleset, pins: &Pins, who: &Principal, reason: Reason) {
    let front = who
        .scope
        .judges_names_on_the_wire
        .then(|| name::front_chain(who.id));
    if front.is_some() {
        // What the front looks up is pinned for everybody who may have it, in one transaction: without these sets it
        // would be pinned for nobody while one of them is blocked.
        front_sets(ruleset, pins, who);
    }
    for chain in [Some(name::chain(who.id)), front].into_iter().flatten() {
        ruleset.chain(&chain);
        ruleset.rule(first_denial());
        ruleset.rule([goto(name::denied(who.id, reason))]);
    }
}

fn denials(ruleset: &mut Ruleset, frame: &Frame<'_>, who: &Principal) {
    let id = who.id;
    for reason in reasons(frame, who) {
        let counter = name::deny_counter(&who.name, reason);
        ruleset.counter(&counter);
        ruleset.chain(&name::denied(id, reason));
        ruleset.rule([limit(10, 20), log(name::log_prefix(id.0, reason))]);
        ruleset.rule([count(counter), goto("refuse")]);
    }
}

/// Ends in a denial: of what was allowed once under an older generation, that it was revised.
fn deny(ruleset: &mut Ruleset, who: &Principal, reason: Reason) {
    ruleset.rule(first_denial());
    if matches!(reason, Reason::NotAllowlisted | Reason::Port) {
        ruleset.rule([
            mark_has(mark::GENERATION),
            goto(name::denied(who.id, Reason::Revised)),
        ]);
    }
    ruleset.rule([goto(name::denied(who.id, reason))]);
}

pub(super) fn destination_port(ports: super::statement::Word) -> serde_json::Value {
    is(ct_original("proto-dst"), ports)
}

fn by_address(ruleset: &mut Ruleset, frame: &Frame<'_>, pins: &Pins, who: &Principal) {
    let id = who.id;
    for v6 in [false, true] {
        let kind = Kind::of(v6);
        ruleset.addresses(&name::pins(id, v6), kind, pins.in_set(&name::pins(id, v6)));
        ruleset.addresses(&name::shut(id, v6), kind, pins.in_set(&name::shut(id, v6)));
        if who.ruled.is_none() {
            ruleset.networks(&name::nets(id, v6), kind, held(&who.scope, v6));
        }
    }
    let regions = who
        .ruled
        .as_ref()
        .map(|ruled| Regions::of(frame, who, ruled));
    if let Some(regions) = &regions {
        regions.declare(ruleset, pins, who);
    }
    let ports = format!("{}_ports", name::chain(id));
    port_chain(ruleset, who, &ports);
    let quic = format!("{}_quic", name::chain(id));
    if who.scope.judges_names_on_the_wire {
        ruleset.chain(&quic);
        ruleset.rule([limit(10, 20), log(name::log_prefix(id.0, Reason::Protocol))]);
        ruleset.rule([
            count(name::deny_counter(&who.name, Reason::Protocol)),
            refuse(RejectCode::PortUnreach),
        ]);
    }

    ruleset.chain(&name::chain(id));
    ruleset.rule([
        is_not(meta(MetaKey::L4proto), tcp_or_udp()),
        goto(name::denied(id, Reason::Protocol)),
    ]);
    for transport in ["tcp", "udp"] {
        ruleset.rule([
            protocol(transport),
            destination_port(number(u32::from(ENCRYPTED_DNS))),
            goto(name::denied(id, Reason::DnsBypass)),
        ]);
    }
    if who.scope.judges_names_on_the_wire {
        ruleset.rule([protocol("udp"), destination_port(number(443)), goto(quic)]);
    }
    if let Some(regions) = &regions {
        regions.permit(ruleset, who);
    }
    let open = frame.index.is_open(who, frame.moment);
    let shut = || goto(name::denied(id, frame.shut_reason()));
    for v6 in [false, true] {
        let to = |set: String| is(original_destination(v6), named_set(set));
        ruleset.rule([to(name::pins(id, v6)), goto(&ports)]);
        if open && who.ruled.is_none() {
            ruleset.rule([to(name::nets(id, v6)), goto(&ports)]);
        }
        ruleset.rule([to(name::shut(id, v6)), shut()]);
        if who.ruled.is_some() {
            ruleset.rule([
                to(name::ruled(id, v6)),
                goto(name::denied(id, Reason::Rule)),
            ]);
        }
    }
    deny(
        ruleset,
        who,
        if open {
            Reason::NotAllowlisted
        } else {
            frame.shut_reason()
        },
    );
}

/// The destination may be reached: may the port?
fn port_chain(ruleset: &mut Ruleset, who: &Principal, chain: &str) {
    ruleset.chain(chain);
    for (transport, protocol_of) in [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)] {
        let ports: Vec<u16> = who
            .scope
            .ports
            .iter()
            .filter(|rule| rule.protocol == protocol_of && rule.port != ENCRYPTED_DNS)
            .map(|rule| rule.port)
            // Judged by name: never by address.
            .filter(|port| {
                !(who.scope.judges_names_on_the_wire
                    && WIRE_PORTS.iter().any(|(wire, _)| wire == port))
            })
            .collect();
        if !ports.is_empty() {
            ruleset.rule([
                protocol(transport),
                destination_port(numbers(ports)),
                goto("stamp"),
            ]);
        }
    }
    deny(ruleset, who, Reason::Port);
}

/// Rules bind what this principal sends by way of the front to the sites themselves.
fn is_ruled_in_front(who: &Principal) -> bool {
    who.ruled.is_some() && next_gateway(who).is_none()
}

/// Where names led to: by the lists, at all their ports, and by rules, at one.
fn front_sets(ruleset: &mut Ruleset, pins: &Pins, who: &Principal) {
    let next = next_gateway(who);
    for v6 in [false, true] {
        let set = name::front_pins(who.id, v6);
        let mut elements = pins.in_set(&set);
        let literal = next.as_ref().and_then(NextGateway::address);
        elements.extend(literal.filter(|to| to.is_ipv6() == v6).map(address));
        ruleset.addresses(&set, Kind::of(v6), elements);
        if is_ruled_in_front(who) {
            let set = name::front_at(who.id, v6);
            ruleset.address_ports(&set, Kind::of(v6), pins.in_set(&set));
        }
    }
}

/// The front's own leg: to where a name led that this principal may reach now, or to the next gateway.
fn by_front(ruleset: &mut Ruleset, frame: &Frame<'_>, pins: &Pins, who: &Principal) {
    let id = who.id;
    let next = next_gateway(who);
    let listed: Vec<u16> = match &next {
        Some(next) => vec![next.port],
        None => WIRE_PORTS
            .iter()
            .map(|(port, _)| *port)
            .filter(|port| who.scope.has_tcp(*port))
            .collect(),
    };
    let ruled = is_ruled_in_front(who);
    front_sets(ruleset, pins, who);
    ruleset.chain(&name::front_chain(id));
    for v6 in [false, true] {
        let to = || original_destination(v6);
        if !listed.is_empty() {
            ruleset.rule([
                protocol("tcp"),
                destination_port(numbers(listed.clone())),
                is(to(), named_set(name::front_pins(id, v6))),
                goto("stamp"),
            ]);
        }
        if ruled {
            ruleset.rule([
                protocol("tcp"),
                is(
                    concat([to(), ct_original("proto-dst")]),
                    named_set(name::front_at(id, v6)),
                ),
                goto("stamp"),
            ]);
            ruleset.rule([
                is(to(), named_set(name::ruled(id, v6))),
                goto(name::denied(id, Reason::Rule)),
            ]);
        }
    }
    let open = frame.index.is_open(who, frame.moment);
    deny(
        ruleset,
        who,
        if open {
            Reason::NotAllowlisted
        } else {
            frame.shut_reason()
        },
    );
}
