//! What passes through the box: the fast path of flows that this generation has allowed, the judgement of all others,
//! and how both ends of a flow that is no longer allowed are told.
//!
//! A flow is stamped with the generation that allowed it. A new generation thus judges every live flow again at its
//! next packet, in whichever direction that goes.

use clawgress_policy::Reason;
use nftables::{
    expr::MetaKey,
    types::{NfChainPolicy, NfChainType, NfHook, RejectCode},
};

use super::{
    frame::{Frame, WIRE_PORTS},
    layout::{FRONT_MARK, STAMPS, mark, port},
    name,
    raw::wire_sources,
    ruleset::{Kind, Ruleset},
    statement::{
        accept, add_to_ct_mark, arrives_on, at_most, count, direction, drop, flag, goto, ip, is,
        is_fast, leaves_by, limit, log, mark_has, mark_is, masquerade, meta, named_set, number,
        numbers, original_source, payload, protocol, redirect, refuse, reset, set_class,
        set_class_by, set_ct_mark, set_ct_mark_by, set_mark, set_tcp_flags, state, statement_not,
        tcp_flags, tcp_or_udp,
    },
};

/// ICMP errors: destination unreachable (with it: fragmentation needed), time exceeded.
pub(super) const ERRORS_V4: [u16; 2] = [3, 11];
/// Destination unreachable, packet too big, time exceeded.
pub(super) const ERRORS_V6: [u16; 3] = [1, 2, 3];
/// RFC 1812 and RFC 4443: no error is longer, so there is no room for a tunnel.
pub(super) const LONGEST_V4: u32 = 576;
pub(super) const LONGEST_V6: u32 = 1280;

/// The chains that others lead to; declared first.
pub(super) fn endings(ruleset: &mut Ruleset) {
    for counter in [
        "dropped_invalid",
        "dropped_forward",
        "dropped_related",
        "dropped_suspect",
        "cut",
    ] {
        ruleset.counter(counter);
    }
    ruleset.chain("stamp");
    // The front's packets on their way out carry the mark that leads a refusal back; an allowed one needs it no more.
    ruleset.rule([set_mark(0)]);
    ruleset.rule([
        mark_is(mark::GENERATION, 0),
        set_ct_mark_by(STAMPS),
        add_to_ct_mark(mark::UNCOUNTED),
        accept(),
    ]);
    ruleset.rule([set_ct_mark_by(STAMPS), accept()]);

    ruleset.chain("suspect");
    ruleset.rule([
        add_to_ct_mark(mark::SUSPECT),
        count("dropped_suspect"),
        drop(),
    ]);

    // Answers go only to sources that have passed the first chain.
    ruleset.chain("refuse");
    // The end that is silent wants to know, too: the packet that is on its way to it becomes the reset. The other
    // end is told at its next packet.
    ruleset.rule([
        protocol("tcp"),
        direction("reply"),
        mark_has(mark::GENERATION),
        add_to_ct_mark(mark::CUT),
        set_tcp_flags(flag::RST | flag::ACK),
        accept(),
    ]);
    ruleset.rule([
        protocol("tcp"),
        mark_has(mark::GENERATION),
        add_to_ct_mark(mark::CUT),
    ]);
    ruleset.rule([protocol("tcp"), reset()]);
    ruleset.rule([refuse(RejectCode::AdminProhibited)]);

    ruleset.chain("cut");
    ruleset.rule([count("cut")]);
    ruleset.rule([protocol("tcp"), reset()]);
    ruleset.rule([drop()]);

    ruleset.chain("nobodys");
    let reason = Reason::UnknownSource;
    ruleset.rule([limit(10, 20), log(name::log_prefix(0, reason))]);
    ruleset.rule([count(name::anonymous_counter(reason)), drop()]);

    // Errors of flows that are allowed now, and nothing else that calls itself related.
    ruleset.chain("related");
    for (v6, types, longest) in errors() {
        ruleset.rule([
            is(
                payload(if v6 { "icmpv6" } else { "icmp" }, "type"),
                numbers(types),
            ),
            at_most(longest),
            is_fast(),
            limit(500, 500),
            accept(),
        ]);
    }
    ruleset.rule([count("dropped_related"), drop()]);
}

/// A live flow's first denial: see `mark::SUSPECT`.
pub(super) fn first_denial() -> Vec<serde_json::Value> {
    vec![
        mark_has(mark::GENERATION),
        mark_is(mark::SUSPECT, 0),
        goto("suspect"),
    ]
}

pub(super) fn errors() -> [(bool, Vec<u16>, u32); 2] {
    [
        (false, ERRORS_V4.to_vec(), LONGEST_V4),
        (true, ERRORS_V6.to_vec(), LONGEST_V6),
    ]
}

/// The maps by source, and the chain that asks them.
pub(super) fn judges(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    for v6 in [false, true] {
        let kind = Kind::of(v6);
        let map = |name: &str| format!("{name}{}", if v6 { 6 } else { 4 });
        ruleset.verdicts(
            &map("principals"),
            kind,
            frame.by_source(v6, |_| true, |who| name::chain(who.id)),
        );
        ruleset.verdicts(
            &map("fronts"),
            kind,
            frame.by_source(
                v6,
                |who| who.scope.judges_names_on_the_wire,
                |who| name::front_chain(who.id),
            ),
        );
        ruleset.verdicts(
            &map("strangers"),
            kind,
            frame.by_source(
                v6,
                |_| true,
                |who| name::denied(who.id, Reason::NotAllowlisted),
            ),
        );
    }
    for (chain, map) in [("judge", "principals"), ("judge_front", "fronts")] {
        ruleset.chain(chain);
        if map == "fronts" {
            ruleset.rule([direction("original"), set_mark(FRONT_MARK)]);
        }
        for v6 in [false, true] {
            let map = format!("{map}{}", if v6 { 6 } else { 4 });
            ruleset.rule([super::statement::verdict_by(original_source(v6), map)]);
        }
        ruleset.rule(first_denial());
        // A live flow whose principal is no more, or is judged otherwise now.
        ruleset.rule([mark_has(mark::GENERATION), goto("refuse")]);
        ruleset.rule([goto("nobodys")]);
    }
}

pub(super) fn add(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    ruleset.base_chain(
        "forward",
        NfChainType::Filter,
        NfHook::Forward,
        0,
        NfChainPolicy::Drop,
    );
    ruleset.rule([state("invalid"), count("dropped_invalid"), drop()]);
    ruleset.rule([state("related"), goto("related")]);
    if !frame.lan.is_empty() && !frame.wan.is_empty() {
        // Not on any other pair of cards: a route may have moved since the flow was let through.
        for (way, from, to) in [
            ("original", &frame.lan, &frame.wan),
            ("reply", &frame.wan, &frame.lan),
        ] {
            ruleset.rule([
                is_fast(),
                direction(way),
                arrives_on(from),
                leaves_by(to),
                accept(),
            ]);
        }
        // A new flow between the ports of one that was cut.
        let fresh = tcp_flags(flag::ALL, flag::SYN);
        ruleset.rule([
            mark_has(mark::CUT),
            direction("original"),
            protocol("tcp"),
            fresh,
            set_ct_mark(0),
        ]);
        ruleset.rule([mark_has(mark::CUT), goto("cut")]);
        // Of a flow whose beginning nobody saw.
        ruleset.rule([
            state("new"),
            protocol("tcp"),
            statement_not(tcp_flags(flag::ALL, flag::SYN)),
            arrives_on(&frame.lan),
            reset(),
        ]);
        ruleset.rule([
            direction("original"),
            arrives_on(&frame.lan),
            leaves_by(&frame.wan),
            goto("judge"),
        ]);
        ruleset.rule([
            direction("reply"),
            arrives_on(&frame.wan),
            leaves_by(&frame.lan),
            goto("judge"),
        ]);
    }
    if !frame.lan.is_empty() {
        // To other agents or to the operators: that is no way outside, whatever the policy's networks hold.
        for v6 in [false, true] {
            let strangers = if v6 { "strangers6" } else { "strangers4" };
            ruleset.rule([
                direction("original"),
                arrives_on(&frame.lan),
                super::statement::verdict_by(original_source(v6), strangers),
            ]);
        }
    }
    ruleset.rule([count("dropped_forward"), drop()]);
    translate(ruleset, frame);
    classify(ruleset, frame);
}

fn translate(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    ruleset.base_chain(
        "prerouting_nat",
        NfChainType::NAT,
        NfHook::Prerouting,
        -100,
        NfChainPolicy::Accept,
    );
    if !frame.lan.is_empty() {
        ruleset.rule([
            arrives_on(&frame.lan),
            is(meta(MetaKey::L4proto), tcp_or_udp()),
            is(payload("th", "dport"), number(53)),
            redirect(port::DNS),
        ]);
        for (wire, listens) in WIRE_PORTS {
            for v6 in [false, true] {
                ruleset.rule([
                    arrives_on(&frame.lan),
                    is(payload("tcp", "dport"), number(u32::from(wire))),
                    is(ip(v6, "saddr"), named_set(wire_sources(wire, v6))),
                    redirect(listens),
                ]);
            }
        }
    }
    ruleset.base_chain(
        "postrouting",
        NfChainType::NAT,
        NfHook::Postrouting,
        100,
        NfChainPolicy::Accept,
    );
    if !frame.wan.is_empty() {
        ruleset.rule([
            leaves_by(&frame.wan),
            mark_has(mark::GENERATION),
            masquerade(),
        ]);
    }
}

/// Which class of the outside card's queue a packet goes to. The box's own packets go past the classes.
fn classify(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    ruleset.base_chain(
        "postrouting_class",
        NfChainType::Filter,
        NfHook::Postrouting,
        -150,
        NfChainPolicy::Accept,
    );
    if frame.wan.is_empty() {
        return;
    }
    if frame.index.egress_kbps().is_some() {
        // What agents send by way of the gateway is below the ceiling like all of theirs.
        ruleset.rule([
            leaves_by(&frame.wan),
            mark_has(mark::GENERATION | mark::GATEWAY),
            set_class(super::layout::class::OTHERS),
        ]);
    }
    for v6 in [false, true] {
        let limited = frame.sources(v6, |who| super::shaping::own_limit(who).is_some());
        let classes: Vec<_> = limited
            .map(|(who, source)| {
                let holder = frame.index.holder(who);
                (source, super::shaping::class_of(holder.id))
            })
            .collect();
        if !classes.is_empty() {
            ruleset.rule([
                leaves_by(&frame.wan),
                set_class_by(&original_source(v6), classes),
            ]);
        }
    }
    super::proxied::classify(ruleset, frame);
}
