//! What the box's own services say to others than the box: the gateway to agents and to sites, the audit trail to its
//! collectors. Opens nothing that the revision does not ask for.
//!
//! The gateway judges each flow itself and dials an address only after it has judged that; the rules here are the wall
//! behind it. Neither service can open a flow to an address inside that nobody named.

use std::collections::BTreeSet;

use clawgress_config::access::GatewaySettings;
use clawgress_policy::inside::named_inside;
use nftables::expr::MetaKey;
use serde_json::Value;

use super::{
    frame::{Frame, disjoint},
    layout::{mark, uid},
    named::inside_blocks,
    own::own_address,
    raw::sources,
    ruleset::Ruleset,
    statement::{
        accept, add_to_ct_mark, address, arrives_on, direction, ip, is, is_not, leaves_by,
        mark_has, meta, named_set, networks, number, numbers, payload, protocol, state,
    },
};

/// The gateway, if the revision wants it to serve.
fn gateway<'f>(frame: &'f Frame<'_>) -> Option<&'f GatewaySettings> {
    let revision = frame.revision;
    let gateway = &revision.access.gateway;
    (revision.enabled && gateway.enabled).then_some(gateway)
}

/// The ports on which agents find the gateway.
pub(super) fn proxy_ports(frame: &Frame<'_>) -> BTreeSet<u16> {
    gateway(frame)
        .map(|gateway| [Some(gateway.port), gateway.tls_port])
        .into_iter()
        .flatten()
        .flatten()
        .collect()
}

/// Where collectors may be: nowhere that only agents are.
fn collectors_behind(frame: &Frame<'_>) -> Vec<String> {
    let mut cards = frame.wan.clone();
    cards.extend(frame.management.iter().cloned());
    cards.sort_unstable();
    cards.dedup();
    cards
}

/// What services have open, each with its mark and the cards that its flows may use. A revision that takes a service
/// away takes its flows with it.
fn open(frame: &Frame<'_>) -> Vec<(u32, Vec<String>)> {
    let mut open = Vec::new();
    if gateway(frame).is_some() {
        open.push((mark::GATEWAY, frame.wan.clone()));
    }
    if frame.revision.access.audit.collectors().next().is_some() {
        open.push((mark::TRAIL, collectors_behind(frame)));
    }
    open.retain(|(_, cards)| !cards.is_empty());
    open
}

/// Input: agents asking the gateway, and what services opened being answered.
pub(super) fn input(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    let ports = proxy_ports(frame);
    if !ports.is_empty() && !frame.lan.is_empty() {
        for v6 in [false, true] {
            // Whoever is nobody's on the packet path is nobody here, too: link-local addresses, and others on a card that
            // is shared.
            ruleset.rule([
                arrives_on(&frame.lan),
                own_address(),
                protocol("tcp"),
                is(payload("tcp", "dport"), numbers(ports.iter().copied())),
                is(ip(v6, "saddr"), named_set(sources(v6))),
                accept(),
            ]);
        }
    }
    for (mark, cards) in open(frame) {
        ruleset.rule([
            arrives_on(&cards),
            state("established"),
            direction("reply"),
            mark_has(mark),
            accept(),
        ]);
    }
}

/// Output: sites for the gateway, collectors for the audit trail.
pub(super) fn output(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    let by = |uid: u32| is(meta(MetaKey::Skuid), number(uid));
    if gateway(frame).is_some() && !frame.wan.is_empty() {
        let dials = || vec![leaves_by(&frame.wan), by(uid::GATEWAY), protocol("tcp")];
        let opened = || vec![add_to_ct_mark(mark::GATEWAY), accept()];
        let named = named_inside(frame.index, &frame.revision.access);
        for v6 in [false, true] {
            let to = || ip(v6, "daddr");
            let outside = is_not(to(), networks(&inside_blocks(v6)));
            ruleset.rule([dials(), vec![outside], opened()].concat());
            let named = disjoint(&named, v6);
            if !named.is_empty() {
                ruleset.rule([dials(), vec![is(to(), networks(&named))], opened()].concat());
            }
        }
    }
    let cards = collectors_behind(frame);
    if !cards.is_empty() {
        for collector in frame.revision.access.audit.collectors() {
            let mut sends = vec![
                leaves_by(&cards),
                by(uid::AUDIT),
                protocol("tcp"),
                is(payload("tcp", "dport"), number(u32::from(collector.port))),
            ];
            sends.extend(collector.address().map(only_to));
            ruleset.rule([sends, vec![add_to_ct_mark(mark::TRAIL), accept()]].concat());
        }
    }
    // What the kernel sends for such a flow after its service has closed it has no uid.
    for (mark, cards) in open(frame) {
        ruleset.rule([
            leaves_by(&cards),
            state("established"),
            direction("original"),
            mark_has(mark),
            accept(),
        ]);
    }
}

fn only_to(to: std::net::IpAddr) -> Value {
    is(ip(to.is_ipv6(), "daddr"), address(to))
}
