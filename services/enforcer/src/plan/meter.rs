//! The second table: what is used up, what is counted, and who is whose neighbour. It outlives every plan, so that
//! none of it starts again at a commit. It sees packets after the main table has let them pass.
//!
//! **Neighbours.** The addresses of hosts are what their rights hang on, so an address is bound to the hardware address
//! that uses it first, until it has been silent for `SILENCE`: another machine on the wire that takes it meanwhile is
//! `spoofed-source`, and never answered. Bound are host sources of up to 256 addresses; larger ones are networks behind
//! a router, where the hardware address is the router's and says nothing. Addresses that only have the LAN's own
//! rights are not bound: taking a neighbour's wins nothing. But the hardware address of a host on the LAN itself stays
//! the host's for a day: from any other address, of either family, it is `spoofed-source`, or a host would leave its own
//! rights behind by taking a free address. Whoever is first to use an address that has been silent gets its rights, and
//! hardware addresses can be forged: where that matters, hosts belong on cards of their own, or nobody else is let in
//! (`identity strict`). When the table is full, new addresses are denied.
//!
//! **Caps.** Bytes of IP packets from the agent to an address of the capped name, on the forwarded path and on the
//! front's own leg alike, and on the gateway's legs by the name (see `proxied`). An address of several capped names counts
//! against each. The packet that would reach the cap does not pass any more; the flow is cut.

use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_policy::{Principal, Reason};
use nftables::{
    schema::SetType,
    types::{NfChainPolicy, NfChainType, NfHook, RejectCode},
};
use serde_json::Value;

use super::{
    frame::{Frame, disjoint},
    layout::{FRONT_MARK, METER, mark},
    name,
    pins::Pins,
    proxied,
    ruleset::{Kind, Ruleset},
    statement::{
        accept, add_to_ct_mark, arrives_on, concat, count, count_by, direction, drop, goto, ip, is,
        jump, jump_by, limit, log, mark_has, named_set, networks, original_destination,
        original_source, payload, protocol, quota, refuse, remember, reset, set_mark,
        take_from_ct_mark,
    },
};

/// Seconds after which an address may be another machine's.
const SILENCE: u32 = 15 * 60;
/// Seconds for which a hardware address is a host's after it was last heard from one of the host's own addresses.
const BELONGS: u32 = 24 * 60 * 60;
const HOST_HARDWARE: &str = "host_hardware";
const NEIGHBOURS: u32 = 65_536;

pub(super) fn compile(frame: &Frame<'_>, pins: &Pins) -> Ruleset {
    let mut ruleset = Ruleset::new(METER);
    neighbours(&mut ruleset, frame);
    cutting(&mut ruleset);
    for who in frame.index.principals() {
        for kind in ["out", "in", "flows"] {
            ruleset.counter(name::meter(kind, &who.name));
        }
        if !frame.index.caps(who).is_empty() {
            caps(&mut ruleset, frame, pins, who);
        }
    }
    proxied::caps(&mut ruleset, frame);
    counting(&mut ruleset, frame);
    ruleset
}

/// Sources of hosts and agents that are machines rather than networks behind a router.
fn machines(frame: &Frame<'_>, v6: bool) -> Vec<Cidr> {
    let longest = if v6 { 128 } else { 32 };
    let hosts = frame.index.principals().iter().filter(|who| !who.is_lan());
    let sources = hosts
        .flat_map(|who| &who.sources)
        .filter(|source| source.address.is_ipv6() == v6);
    sources
        .filter(|source| longest - source.length <= 8)
        .copied()
        .collect()
}

/// The networks of the LAN cards themselves. Link-local ones are everybody's.
fn lan_networks(frame: &Frame<'_>, v6: bool) -> Vec<Cidr> {
    let cards = &frame.revision.network.lan;
    let networks = cards.iter().flat_map(|card| &card.addresses).copied();
    let networks: Vec<Cidr> = networks
        .filter(|network| match network.address {
            IpAddr::V4(address) => !address.is_link_local(),
            IpAddr::V6(address) => !address.is_unicast_link_local(),
        })
        .map(|network| network.network())
        .collect();
    disjoint(&networks, v6)
}

fn neighbours(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    ruleset.counter(name::anonymous_counter(Reason::SpoofedSource));
    ruleset.chain("spoofed");
    ruleset.rule([
        limit(10, 20),
        log(name::log_prefix(0, Reason::SpoofedSource)),
    ]);
    ruleset.rule([
        count(name::anonymous_counter(Reason::SpoofedSource)),
        drop(),
    ]);
    ruleset.learned(HOST_HARDWARE, vec![SetType::EtherAddr], NEIGHBOURS);
    for (v6, digit, address) in [(false, 4, SetType::Ipv4Addr), (true, 6, SetType::Ipv6Addr)] {
        let (owned, bound) = (format!("owned{digit}"), format!("bound{digit}"));
        ruleset.learned(&owned, vec![address], NEIGHBOURS);
        ruleset.learned(&bound, vec![address, SetType::EtherAddr], NEIGHBOURS);
        let pair = concat([ip(v6, "saddr"), payload("ether", "saddr")]);
        let remember_both = || {
            vec![
                remember(&owned, &ip(v6, "saddr"), SILENCE),
                remember(&bound, &pair, SILENCE),
                accept(),
            ]
        };
        ruleset.chain(&format!("bind{digit}"));
        let lan = lan_networks(frame, v6);
        let mut near = machines(frame, v6);
        near.retain(|machine| lan.iter().any(|network| network.overlaps(machine)));
        if !near.is_empty() {
            ruleset.rule([
                is(pair.clone(), named_set(&bound)),
                is(ip(v6, "saddr"), networks(&near)),
                remember(HOST_HARDWARE, &payload("ether", "saddr"), BELONGS),
            ]);
        }
        ruleset.rule([vec![is(pair.clone(), named_set(&bound))], remember_both()].concat());
        ruleset.rule([is(ip(v6, "saddr"), named_set(&owned)), goto("spoofed")]);
        ruleset.rule(remember_both());
        // There was no room to remember.
        ruleset.rule([drop()]);
    }
    // After the first chain of the main table, which knows reverse paths and unknown sources.
    ruleset.base_chain(
        "neighbours",
        NfChainType::Filter,
        NfHook::Prerouting,
        -290,
        NfChainPolicy::Accept,
    );
    if frame.lan.is_empty() {
        return;
    }
    for (v6, chain) in [(false, "bind4"), (true, "bind6")] {
        let machines = machines(frame, v6);
        if !machines.is_empty() {
            ruleset.rule([
                arrives_on(&frame.lan),
                is(ip(v6, "saddr"), networks(&machines)),
                goto(chain),
            ]);
        }
    }
    for v6 in [false, true] {
        let lan = lan_networks(frame, v6);
        if !lan.is_empty() {
            ruleset.rule([
                arrives_on(&frame.lan),
                is(ip(v6, "saddr"), networks(&lan)),
                is(payload("ether", "saddr"), named_set(HOST_HARDWARE)),
                goto("spoofed"),
            ]);
        }
    }
}

fn cutting(ruleset: &mut Ruleset) {
    ruleset.chain("over");
    ruleset.rule([protocol("tcp"), add_to_ct_mark(mark::CUT), reset()]);
    ruleset.rule([refuse(RejectCode::AdminProhibited)]);
}

fn caps(ruleset: &mut Ruleset, frame: &Frame<'_>, pins: &Pins, who: &Principal) {
    let counter = name::meter("over", &who.name);
    ruleset.counter(&counter);
    let over = name::meter("over", &who.name);
    ruleset.chain(&over);
    ruleset.rule([
        limit(10, 20),
        log(name::log_prefix(who.id.0, Reason::OverCap)),
    ]);
    ruleset.rule([count(counter), goto("over")]);

    let holder = frame.index.holder(who);
    let mut rules: Vec<[Value; 3]> = Vec::new();
    for (pattern, cap) in frame.index.caps(who) {
        let pattern = pattern.as_str();
        let object = name::cap(&holder.name, pattern);
        let own = holder.id == who.id;
        if own {
            let key = (who.name.clone(), pattern.to_owned());
            let used = frame.carry.used.get(&key).copied().unwrap_or(0);
            ruleset.quota(object.clone(), cap.bytes, used);
        }
        for v6 in [false, true] {
            let set = name::cap_set(&holder.name, pattern, v6);
            if own {
                ruleset.addresses(&set, Kind::of(v6), pins.in_set(&set));
            }
            rules.push([
                is(original_destination(v6), named_set(set)),
                quota(object.clone()),
                goto(&over),
            ]);
        }
    }
    ruleset.chain(&name::meter("caps", &who.name));
    for rule in rules {
        ruleset.rule(rule);
    }
}

fn counting(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    let capped = |who: &Principal| !frame.index.caps(who).is_empty();
    let counters =
        |v6: bool, kind: &str| frame.by_source(v6, |_| true, |who| name::meter(kind, &who.name));
    let families = || {
        [false, true]
            .into_iter()
            .filter(|v6| frame.sources(*v6, |_| true).next().is_some())
    };

    ruleset.chain("count");
    for v6 in families() {
        let source = original_source(v6);
        ruleset.rule([
            direction("reply"),
            count_by(&source, counters(v6, "in")),
            accept(),
        ]);
    }
    for v6 in families() {
        let chains = frame.by_source(v6, capped, |who| name::meter("caps", &who.name));
        if !chains.is_empty() {
            ruleset.rule([jump_by(&original_source(v6), chains)]);
        }
    }
    for v6 in families() {
        ruleset.rule([count_by(&original_source(v6), counters(v6, "out"))]);
    }
    for v6 in families() {
        let source = original_source(v6);
        ruleset.rule([
            mark_has(mark::UNCOUNTED),
            count_by(&source, counters(v6, "flows")),
            take_from_ct_mark(mark::UNCOUNTED),
        ]);
    }

    for (chain, hook) in [("forward", NfHook::Forward), ("input", NfHook::Input)] {
        ruleset.base_chain(chain, NfChainType::Filter, hook, 10, NfChainPolicy::Accept);
        ruleset.rule([mark_has(mark::GENERATION), jump("count")]);
    }
    ruleset.base_chain(
        "output",
        NfChainType::Filter,
        NfHook::Output,
        10,
        NfChainPolicy::Accept,
    );
    proxied::count_output(ruleset, frame);
    // Here the front has to be told when a flow is cut: see the main table.
    ruleset.rule([
        mark_has(mark::GENERATION),
        direction("original"),
        set_mark(FRONT_MARK),
        jump("count"),
    ]);
    ruleset.rule([
        mark_has(mark::GENERATION),
        direction("original"),
        set_mark(0),
    ]);
}
