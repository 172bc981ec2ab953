//! What the box's own services say to others than the box: the gateway to agents and to sites, the audit trail to its
//! collectors, the identity service to servers of issuers' keys. Opens nothing that the revision does not ask for.
//!
//! Each judges an address itself before it dials it; the rules here are the wall behind that. None of them can open a
//! flow to an address inside that nobody named.

use std::collections::BTreeSet;

use clawgress_config::{
    Cidr,
    access::{Endpoint, GatewaySettings},
};
use clawgress_policy::{address::serving_nobody, inside::named_inside};
use nftables::expr::MetaKey;

use super::{
    frame::{Frame, disjoint},
    layout::{mark, uid},
    named::inside_blocks,
    own::own_address,
    raw::sources,
    ruleset::Ruleset,
    statement::{
        accept, add_to_ct_mark, address, arrives_on, direction, flag, ip, is, is_not, leaves_by,
        mark_has, meta, named_set, networks, number, numbers, payload, protocol, state, tcp_flags,
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

/// Where collectors and issuers may be: nowhere that only agents are.
fn servers_behind(frame: &Frame<'_>) -> Vec<String> {
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
        open.push((mark::TRAIL, servers_behind(frame)));
    }
    if key_servers(frame).next().is_some() {
        open.push((mark::KEYS, servers_behind(frame)));
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
        // A flow that the kernel has forgotten is not taken up again in its middle: it would come back without its number.
        let dials = || {
            vec![
                leaves_by(&frame.wan),
                by(uid::GATEWAY),
                tcp_flags(flag::ALL, flag::SYN),
            ]
        };
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
    for server in frame.revision.access.audit.collectors() {
        let never = [false, true].map(serving_nobody);
        to_server(ruleset, frame, (uid::AUDIT, mark::TRAIL), &server, &never);
    }
    for server in key_servers(frame) {
        // A key that is inside is named by its address.
        let never = [false, true].map(inside_blocks);
        to_server(ruleset, frame, (uid::IDENTITY, mark::KEYS), &server, &never);
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

/// A sealed box asks nobody for keys.
fn key_servers<'f>(frame: &'f Frame<'_>) -> impl Iterator<Item = Endpoint> + use<'f> {
    let servers = frame.revision.access.key_servers();
    servers.filter(|_| frame.revision.enabled)
}

/// To the address that is configured, wherever that is; by name, to none of `never`, of either family: where a name
/// leads is not the operator's word.
fn to_server(
    ruleset: &mut Ruleset,
    frame: &Frame<'_>,
    (user, mark): (u32, u32),
    server: &Endpoint,
    never: &[Vec<Cidr>; 2],
) {
    let cards = servers_behind(frame);
    if cards.is_empty() {
        return;
    }
    let to = match server.address() {
        Some(to) => vec![is(ip(to.is_ipv6(), "daddr"), address(to))],
        None => [false, true]
            .into_iter()
            .zip(never)
            .map(|(v6, never)| is_not(ip(v6, "daddr"), networks(never)))
            .collect(),
    };
    for to in to {
        ruleset.rule([
            leaves_by(&cards),
            is(meta(MetaKey::Skuid), number(user)),
            tcp_flags(flag::ALL, flag::SYN),
            is(payload("tcp", "dport"), number(u32::from(server.port))),
            to,
            add_to_ct_mark(mark),
            accept(),
        ]);
    }
}
