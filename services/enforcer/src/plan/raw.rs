//! What is looked at before connection tracking: packets that nobody honest sends end here, without an answer, for
//! their source may be anybody's.
//!
//! The kernel puts fragments together before this (and drops overlapping ones): what is judged is the whole packet, so
//! a fragmented one gets the verdict of an unfragmented one.

use clawgress_policy::Reason;
use nftables::{
    expr::MetaKey,
    types::{NfChainPolicy, NfChainType, NfHook},
};
use serde_json::json;

use super::{
    frame::{Frame, WIRE_PORTS, on_wire},
    layout::{AGENT_ZONE, FRONT_MARK},
    name::{anonymous_counter, log_prefix},
    ruleset::{Kind, Ruleset},
    statement::{
        accept, arrives_on, at_most, count, drop, extension_header, family, fib, flag, goto, ip,
        is, is_not, limit, log, meta, named_set, number, numbers, payload, protocol, set_mark,
        set_of, set_zone, tcp_flags, text, transparent_socket,
    },
};

/// No packet between two machines goes there.
const NOWHERE_V4: [&str; 3] = ["0.0.0.0/8", "127.0.0.0/8", "240.0.0.0/4"];
/// Unspecified, loopback and everything else that only looks like IPv4.
const NOWHERE_V6: [&str; 2] = ["::/96", "::ffff:0:0/96"];
/// Headers between IPv6 and the transport: hop-by-hop, routing, authentication, destination options, mobility, host
/// identity, shim. Fragment headers are gone by now.
const BETWEEN: [u16; 7] = [0, 43, 51, 60, 135, 139, 140];

/// The set of sources whose packets to one of `WIRE_PORTS` go to the front.
pub(super) fn wire_sources(port: u16, v6: bool) -> String {
    format!("wire{port}_{}", if v6 { 6 } else { 4 })
}

pub(super) fn add(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    for reason in [Reason::UnknownSource, Reason::SpoofedSource] {
        ruleset.counter(anonymous_counter(reason));
    }
    ruleset.counter("dropped_malformed");
    ruleset.counter("dropped_bogon");
    for v6 in [false, true] {
        let kind = Kind::of(v6);
        let all = frame.sources(v6, |_| true).map(|(_, source)| source);
        ruleset.networks(sources(v6), kind, all.collect());
        for (port, _) in WIRE_PORTS {
            let wire = frame.sources(v6, |who| on_wire(who, port));
            let wire = wire.map(|(_, source)| source).collect();
            ruleset.networks(&wire_sources(port, v6), kind, wire);
        }
    }
    endings(ruleset);
    prerouting(ruleset, frame);
    transparent_answers(ruleset);
}

/// The set of all sources that are somebody's.
pub(super) fn sources(v6: bool) -> &'static str {
    if v6 { "sources6" } else { "sources4" }
}

/// Chains that are gone to; declared before those that go there.
fn endings(ruleset: &mut Ruleset) {
    ruleset.chain("malformed");
    ruleset.rule([count("dropped_malformed"), drop()]);
    ruleset.chain("bogon");
    ruleset.rule([count("dropped_bogon"), drop()]);
    for (chain, reason) in [
        ("unknown_source", Reason::UnknownSource),
        ("spoofed_source", Reason::SpoofedSource),
    ] {
        ruleset.chain(chain);
        ruleset.rule([limit(10, 20), log(log_prefix(0, reason))]);
        ruleset.rule([count(anonymous_counter(reason)), drop()]);
    }
}

fn prerouting(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    ruleset.base_chain(
        "prerouting_raw",
        NfChainType::Filter,
        NfHook::Prerouting,
        -300,
        NfChainPolicy::Accept,
    );
    ruleset.rule([is(meta(MetaKey::Iif), text("lo")), accept()]);
    nonsense(ruleset);
    strangers(ruleset, frame);
    if !frame.lan.is_empty() {
        from_agents(ruleset, frame);
    }
}

fn nonsense(ruleset: &mut Ruleset) {
    // Options can route, record and hide; nobody needs one.
    ruleset.rule([
        is_not(payload("ip", "hdrlength"), number(5)),
        goto("malformed"),
    ]);
    // Put together already; should that ever not be so, a piece without ports must not be judged by its neighbours'.
    ruleset.rule([
        json!({"match": {"op": "!=", "left": {"&": [{"payload": {"protocol": "ip", "field": "frag-off"}}, 0x3fff]}, "right": 0}}),
        goto("malformed"),
    ]);
    // Listeners to multicast tell so with a hop-by-hop header, and only to a neighbour.
    ruleset.rule([
        is(payload("ip6", "hoplimit"), number(1)),
        is(payload("ip6", "saddr"), prefix("fe80::/10")),
        is(payload("ip6", "nexthdr"), number(0)),
        protocol("ipv6-icmp"),
        accept(),
    ]);
    ruleset.rule([
        is(payload("ip6", "nexthdr"), numbers(BETWEEN)),
        goto("malformed"),
    ]);
    for header in ["rt", "frag"] {
        ruleset.rule([family(true), extension_header(header), goto("malformed")]);
    }
    for (mask, wanted) in [
        (flag::ALL, 0),
        (flag::FIN | flag::SYN, flag::FIN | flag::SYN),
        (flag::SYN | flag::RST, flag::SYN | flag::RST),
        (flag::FIN | flag::RST, flag::FIN | flag::RST),
        (flag::FIN | flag::ACK, flag::FIN),
    ] {
        ruleset.rule([protocol("tcp"), tcp_flags(mask, wanted), goto("malformed")]);
    }
}

/// Sources that can't be where the packet came from.
fn strangers(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    // Who has no address yet, and whoever speaks to a neighbour, has no route to be held against. Neither is ever
    // forwarded.
    ruleset.rule([
        is(payload("ip", "saddr"), text("0.0.0.0")),
        is(payload("udp", "dport"), number(67)),
        accept(),
    ]);
    ruleset.rule([
        is(payload("udp", "sport"), number(67)),
        is(payload("udp", "dport"), number(68)),
        fib("type", &["daddr"], &json!({"set": ["local", "broadcast"]})),
        accept(),
    ]);
    ruleset.rule([
        is(
            payload("ip6", "saddr"),
            set_of(["::", "fe80::/10"].map(prefix)),
        ),
        accept(),
    ]);

    ruleset.rule([
        fib("oif", &["saddr", "iif"], &json!(false)),
        goto("spoofed_source"),
    ]);
    if !frame.agents_only().is_empty() {
        for v6 in [false, true] {
            ruleset.rule([
                arrives_on(&frame.agents_only()),
                is_not(ip(v6, "saddr"), named_set(sources(v6))),
                goto("unknown_source"),
            ]);
        }
    }
}

fn from_agents(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    let nowhere = |v6: bool| {
        set_of(if v6 {
            NOWHERE_V6.map(prefix).to_vec()
        } else {
            NOWHERE_V4.map(prefix).to_vec()
        })
    };
    ruleset.rule([
        arrives_on(&frame.lan),
        is(payload("ip", "daddr"), text("255.255.255.255")),
        drop(),
    ]);
    for v6 in [false, true] {
        ruleset.rule([
            arrives_on(&frame.lan),
            is(ip(v6, "daddr"), nowhere(v6)),
            goto("bogon"),
        ]);
    }
    for (port, _) in WIRE_PORTS {
        for v6 in [false, true] {
            ruleset.rule([
                arrives_on(&frame.lan),
                is(payload("tcp", "dport"), number(u32::from(port))),
                is(ip(v6, "saddr"), named_set(wire_sources(port, v6))),
                set_zone(AGENT_ZONE),
            ]);
        }
    }
}

/// Sites answer the front at an agent's address: those answers belong to this box.
fn transparent_answers(ruleset: &mut Ruleset) {
    ruleset.base_chain(
        "prerouting_mark",
        NfChainType::Filter,
        NfHook::Prerouting,
        -150,
        NfChainPolicy::Accept,
    );
    ruleset.rule([
        protocol("tcp"),
        transparent_socket(),
        set_mark(FRONT_MARK),
        accept(),
    ]);
    // The path's limits to one of the front's own legs.
    for (name, longest) in [("icmp", 576), ("ipv6-icmp", 1280)] {
        ruleset.rule([
            protocol(name),
            at_most(longest),
            transparent_socket(),
            set_mark(FRONT_MARK),
            accept(),
        ]);
    }
}

/// Of a literal with or without a length.
pub(super) fn prefix(literal: &'static str) -> super::statement::Word {
    match literal.split_once('/') {
        Some((address, length)) => nftables::expr::Expression::Named(
            nftables::expr::NamedExpression::Prefix(nftables::expr::Prefix {
                addr: Box::new(text(address)),
                len: length.parse().unwrap_or(128),
            }),
        ),
        None => text(literal),
    }
}
