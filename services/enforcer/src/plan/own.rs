//! What the box itself takes and says. All that the sealed ruleset allows, and: named may ask outside, agents may ask
//! our resolver and our front (as redirected flows only), operators may reach what the configuration offers them.

use std::{collections::BTreeSet, net::IpAddr};

use clawgress_config::Cidr;
use nftables::{
    expr::MetaKey,
    types::{NfChainPolicy, NfChainType, NfHook},
};
use serde_json::Value;

use super::{
    forward::errors,
    frame::{Frame, WIRE_PORTS},
    layout::{mark, port, uid},
    loopback,
    named::inside_blocks,
    raw::{prefix, wire_sources},
    ruleset::Ruleset,
    services as own_services,
    statement::{
        accept, addresses, arrives_on, at_most, concat, count, ct_original, direction, drop,
        fib_is_not, flag, goto, ip, is, is_fast, is_not, leaves_by, limit, mark_has, mark_is, meta,
        named_set, networks, number, numbers, payload, protocol, redirected, services, state,
        tcp_flags, text, verdict_by,
    },
};

const TIME: [(&str, u16); 2] = [("udp", 123), ("tcp", 4460)];
const NAMES: [(&str, u16); 2] = [("udp", 53), ("tcp", 53)];
/// Neighbour discovery with a hop limit of 255 proves the sender on-link.
const ON_LINK: u32 = 255;

fn not_loopback(key: MetaKey) -> Value {
    is_not(meta(key), text("lo"))
}

fn service(port: &'static str, services_: &[(&str, u16)]) -> Value {
    is(
        concat([meta(MetaKey::L4proto), payload("th", port)]),
        services(services_),
    )
}

pub(super) fn is_reset() -> Value {
    tcp_flags(flag::RST, flag::RST)
}

pub(super) fn input(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    ruleset.counter("dropped_input");
    ruleset.base_chain(
        "input",
        NfChainType::Filter,
        NfHook::Input,
        0,
        NfChainPolicy::Drop,
    );
    loopback::rest(ruleset, MetaKey::Iif);
    ruleset.rule([
        is(meta(MetaKey::Iif), text("lo")),
        count("dropped_input"),
        drop(),
    ]);
    ruleset.rule([state("invalid"), count("dropped_invalid"), drop()]);

    ruleset.rule([
        is(payload("ip", "protocol"), text("udp")),
        is(payload("udp", "sport"), number(67)),
        is(payload("udp", "dport"), number(68)),
        accept(),
    ]);
    let link_local = || prefix("fe80::/10");
    ruleset.rule([
        is(payload("ip6", "saddr"), link_local()),
        is(payload("ip6", "daddr"), link_local()),
        is(payload("udp", "sport"), number(547)),
        is(payload("udp", "dport"), number(546)),
        accept(),
    ]);
    ruleset.rule([
        hops(ON_LINK),
        is(payload("ip6", "saddr"), link_local()),
        icmpv6(&[134]),
        accept(),
    ]);
    ruleset.rule([hops(ON_LINK), icmpv6(&[135, 136]), accept()]);
    ruleset.rule([
        hops(1),
        is(payload("ip6", "saddr"), link_local()),
        icmpv6(&[130]),
        accept(),
    ]);

    // Such a flow can only have been opened from here: see output.
    ruleset.rule([
        state("established"),
        direction("reply"),
        service("sport", &TIME),
        accept(),
    ]);
    if !frame.wan.is_empty() {
        ruleset.rule([
            arrives_on(&frame.wan),
            state("established"),
            direction("reply"),
            service("sport", &NAMES),
            accept(),
        ]);
    }
    for (v6, types, longest) in errors() {
        ruleset.rule([
            state("related"),
            is(
                payload(if v6 { "icmpv6" } else { "icmp" }, "type"),
                numbers(types),
            ),
            at_most(longest),
            limit(500, 500),
            accept(),
        ]);
    }
    front_answers(ruleset, frame);
    agents(ruleset, frame);
    own_services::input(ruleset, frame);
    management(ruleset, frame);
    refuse_agents(ruleset, frame);
    ruleset.rule([count("dropped_input")]);
}

/// Sites answering the front.
fn front_answers(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    if frame.wan.is_empty() {
        return;
    }
    let from_site = || {
        [
            arrives_on(&frame.wan),
            state("established"),
            direction("reply"),
        ]
        .to_vec()
    };
    ruleset.rule([from_site(), vec![is_fast(), accept()]].concat());
    ruleset.rule([from_site(), vec![mark_has(mark::CUT), goto("cut")]].concat());
    let stamped = vec![
        mark_has(mark::GENERATION),
        mark_is(mark::GATEWAY, 0),
        goto("judge_front"),
    ];
    ruleset.rule([from_site(), stamped].concat());
}

fn agents(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    if frame.lan.is_empty() {
        return;
    }
    let from_lan = || arrives_on(&frame.lan);
    for transport in ["udp", "tcp"] {
        ruleset.rule([
            from_lan(),
            redirected(),
            protocol(transport),
            is(payload("th", "dport"), number(u32::from(port::DNS))),
            is(ct_original("proto-dst"), number(53)),
            accept(),
        ]);
    }
    for (wire, listens) in WIRE_PORTS {
        for v6 in [false, true] {
            ruleset.rule([
                from_lan(),
                redirected(),
                is(payload("tcp", "dport"), number(u32::from(listens))),
                is(ct_original("proto-dst"), number(u32::from(wire))),
                is(ip(v6, "saddr"), named_set(wire_sources(wire, v6))),
                accept(),
            ]);
        }
    }
    for echo in [is(payload("icmp", "type"), number(8)), icmpv6(&[128])] {
        ruleset.rule([
            from_lan(),
            echo,
            at_most(1500),
            own_address(),
            limit(10, 20),
            accept(),
        ]);
    }
}

/// The packet is to an address of the very card that it came in by.
pub(super) fn own_address() -> Value {
    super::statement::fib("type", &["daddr", "iif"], &"local".into())
}

fn management(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    let Some((ssh, allowed)) = &frame.revision.network.ssh else {
        return;
    };
    for card in &frame.revision.network.management {
        let card_name = [card.name.clone()];
        let offered = || {
            [
                arrives_on(&card_name),
                own_address(),
                is(payload("tcp", "dport"), number(u32::from(*ssh))),
            ]
            .to_vec()
        };
        let reached: Vec<Cidr> = if allowed.is_empty() {
            card.addresses.iter().map(Cidr::network).collect()
        } else {
            allowed.clone()
        };
        if reached.is_empty() {
            // Addressed by DHCP: whoever has a route over this card.
            ruleset.rule([offered(), vec![accept()]].concat());
            continue;
        }
        for v6 in [false, true] {
            let reached = super::frame::disjoint(&reached, v6);
            if !reached.is_empty() {
                ruleset.rule(
                    [
                        offered(),
                        vec![is(ip(v6, "saddr"), networks(&reached)), accept()],
                    ]
                    .concat(),
                );
            }
        }
    }
}

/// Whatever else an agent asks of the box itself is denied under its name.
fn refuse_agents(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    if frame.lan.is_empty() {
        return;
    }
    // To everybody on the wire, or to the address of another card: no answer.
    ruleset.rule([
        arrives_on(&frame.lan),
        fib_is_not("type", &["daddr", "iif"], "local"),
        count("dropped_input"),
        drop(),
    ]);
    for v6 in [false, true] {
        let strangers = if v6 { "strangers6" } else { "strangers4" };
        ruleset.rule([
            arrives_on(&frame.lan),
            verdict_by(ip(v6, "saddr"), strangers),
        ]);
    }
}

fn hops(limit: u32) -> Value {
    is(payload("ip6", "hoplimit"), number(limit))
}

fn icmpv6(types: &[u16]) -> Value {
    is(payload("icmpv6", "type"), numbers(types.iter().copied()))
}

pub(super) fn output(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    ruleset.counter("dropped_output");
    ruleset.base_chain(
        "output",
        NfChainType::Filter,
        NfHook::Output,
        0,
        NfChainPolicy::Drop,
    );
    loopback::own_ports(ruleset);
    loopback::rest(ruleset, MetaKey::Oif);
    ruleset.rule([
        is(meta(MetaKey::Oif), text("lo")),
        count("dropped_output"),
        drop(),
    ]);

    let by = |uid: u32| is(meta(MetaKey::Skuid), number(uid));
    // Renewals of networkd. (Its first request leaves through a packet socket, which no inet chain sees.)
    ruleset.rule([
        by(uid::SYSTEMD_NETWORK),
        is(payload("ip", "protocol"), text("udp")),
        is(payload("udp", "sport"), number(68)),
        is(payload("udp", "dport"), number(67)),
        accept(),
    ]);
    ruleset.rule([
        by(uid::SYSTEMD_NETWORK),
        is(payload("ip6", "saddr"), prefix("fe80::/10")),
        is(payload("udp", "sport"), number(546)),
        is(payload("udp", "dport"), number(547)),
        accept(),
    ]);
    ruleset.rule([hops(ON_LINK), icmpv6(&[133, 135, 136]), accept()]);
    ruleset.rule([hops(1), icmpv6(&[143]), accept()]);

    // chrony alone may ask for the time. What the kernel sends for such a flow has no uid, hence the second rule.
    let opened = || {
        [
            not_loopback(MetaKey::Oif),
            state("established"),
            direction("original"),
            mark_is(mark::GENERATION, 0),
        ]
        .to_vec()
    };
    ruleset.rule([by(uid::CHRONY), service("dport", &TIME), accept()]);
    ruleset.rule([opened(), vec![service("dport", &TIME), accept()]].concat());

    // What this ruleset refuses with, and the path's limits.
    ruleset.rule([state("related"), is_reset(), at_most(80), accept()]);
    for (v6, types, longest) in errors() {
        ruleset.rule([
            is(
                payload(if v6 { "icmpv6" } else { "icmp" }, "type"),
                numbers(types),
            ),
            at_most(longest),
            limit(500, 500),
            accept(),
        ]);
    }
    answers(ruleset, frame);
    if !frame.wan.is_empty() {
        let outside = || leaves_by(&frame.wan);
        for server in name_servers(frame) {
            ruleset.rule([
                outside(),
                by(uid::BIND),
                server.clone(),
                service("dport", &NAMES),
                accept(),
            ]);
            ruleset.rule(
                [
                    vec![outside()],
                    opened(),
                    vec![server, service("dport", &NAMES), accept()],
                ]
                .concat(),
            );
        }

        // The front's own leg. Its first packet has to be the front's; later ones may be the kernel's.
        let leg =
            |more: &[Value]| [&[outside(), protocol("tcp"), direction("original")], more].concat();
        ruleset.rule(leg(&[is_fast(), accept()]));
        ruleset.rule(leg(&[
            mark_has(mark::CUT),
            super::statement::set_mark(super::layout::FRONT_MARK),
            goto("cut"),
        ]));
        ruleset.rule(leg(&[by(uid::HAPROXY), goto("judge_front")]));
        ruleset.rule(leg(&[
            mark_has(mark::GENERATION),
            mark_is(mark::GATEWAY, 0),
            goto("judge_front"),
        ]));
    }
    own_services::output(ruleset, frame);
    ruleset.rule([count("dropped_output")]);
}

/// Whom named may ask: the configured ones, or else any that is not inside. A zone's owner chooses where its servers
/// are, and an agent may own an allowed zone.
fn name_servers(frame: &Frame<'_>) -> Vec<Value> {
    let configured = &frame.revision.name_servers;
    [false, true]
        .into_iter()
        .filter_map(|v6| {
            let to = ip(v6, "daddr");
            if configured.is_empty() {
                return Some(is_not(to, networks(&inside_blocks(v6))));
            }
            let of_family: BTreeSet<IpAddr> = configured
                .iter()
                .copied()
                .filter(|server| server.is_ipv6() == v6)
                .collect();
            (!of_family.is_empty()).then(|| is(to, addresses(of_family)))
        })
        .collect()
}

/// To agents and operators, in flows that input has let in.
fn answers(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    let answer = |cards: &[String], more: Vec<Value>| {
        [
            vec![leaves_by(cards), state("established"), direction("reply")],
            more,
            vec![accept()],
        ]
        .concat()
    };
    if !frame.lan.is_empty() {
        let (udp, tcp) = (("udp", port::DNS), ("tcp", port::DNS));
        ruleset.rule(answer(
            &frame.lan,
            vec![service(
                "sport",
                &[udp, tcp, ("tcp", port::SNI), ("tcp", port::HOST)],
            )],
        ));
        let proxy = own_services::proxy_ports(frame);
        if !proxy.is_empty() {
            let from_proxy = vec![protocol("tcp"), is(payload("tcp", "sport"), numbers(proxy))];
            ruleset.rule(answer(&frame.lan, from_proxy));
        }
        ruleset.rule(answer(
            &frame.lan,
            vec![is(payload("icmp", "type"), number(0))],
        ));
        ruleset.rule(answer(&frame.lan, vec![icmpv6(&[129])]));
    }
    if let Some((ssh, _)) = &frame.revision.network.ssh
        && !frame.management.is_empty()
    {
        ruleset.rule(answer(
            &frame.management,
            vec![is(payload("tcp", "sport"), number(u32::from(*ssh)))],
        ));
    }
}
