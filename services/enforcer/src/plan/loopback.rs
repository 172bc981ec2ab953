//! Loopback: the ports of the box's own services are open to the users whose business they are, all others to everybody
//! on the box. The sealed ruleset says the same.

use nftables::expr::MetaKey;
use serde_json::Value;

use super::{
    layout::OWN_PORTS,
    own::is_reset,
    raw::prefix,
    ruleset::Ruleset,
    statement::{
        accept, concat, count, direction, drop, flag, ip, is, meta, number, payload, protocol,
        services, set_of, state, statement_not, tcp_flags, text,
    },
};

/// All else, between programs of this box.
pub(super) fn rest(ruleset: &mut Ruleset, key: MetaKey) {
    for (v6, network) in [(false, "127.0.0.0/8"), (true, "::1")] {
        // By card and by address: an own outside address reached over lo is not loopback.
        ruleset.rule([
            is(meta(key), text("lo")),
            is(ip(v6, "saddr"), prefix(network)),
            is(ip(v6, "daddr"), prefix(network)),
            accept(),
        ]);
    }
    // The front is told of a refused flow over loopback, with the addresses of that flow.
    ruleset.rule([
        is(meta(key), text("lo")),
        state("related"),
        is_reset(),
        accept(),
    ]);
}

/// Who may begin to speak to the box's own services, before `rest` lets everybody speak to everybody else.
pub(super) fn own_ports(ruleset: &mut Ruleset) {
    let over = |v6: bool, network: &'static str| {
        vec![
            is(meta(MetaKey::Oif), text("lo")),
            is(ip(v6, "saddr"), prefix(network)),
            is(ip(v6, "daddr"), prefix(network)),
        ]
    };
    let port = || [meta(MetaKey::L4proto), payload("th", "dport")];
    let transports = ["tcp", "udp"];
    for (v6, network) in [(false, "127.0.0.0/8"), (true, "::1")] {
        let goes_on = |way: Vec<Value>| {
            let established = vec![state("established"), accept()];
            [over(v6, network), way, established].concat()
        };
        ruleset.rule(goes_on(vec![direction("reply")]));
        // What the kernel sends for a flow whose socket is closed has no user. A datagram always has one, and whoever comes
        // after another on the same port is not that other.
        ruleset.rule(goes_on(vec![
            direction("original"),
            protocol("tcp"),
            statement_not(tcp_flags(flag::SYN, flag::SYN)),
        ]));
        let whose = concat([port().to_vec(), vec![meta(MetaKey::Skuid)]].concat());
        let users = OWN_PORTS.iter().flat_map(|(port, users)| {
            users.iter().flat_map(move |user| {
                transports.map(|transport| {
                    concat([text(transport), number(u32::from(*port)), number(*user)])
                })
            })
        });
        let may = is(whose, set_of(users));
        ruleset.rule([over(v6, network), vec![may, accept()]].concat());
    }
    let ports = OWN_PORTS
        .iter()
        .flat_map(|(port, _)| transports.map(|transport| (transport, *port)));
    let ports: Vec<(&str, u16)> = ports.collect();
    ruleset.rule([
        is(meta(MetaKey::Oif), text("lo")),
        is(concat(port()), services(&ports)),
        count("dropped_output"),
        drop(),
    ]);
}
