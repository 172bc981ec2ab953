//! A revision with something of everything, and the means to vary it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_config::policy::{DomainPattern, Policy};
use clawgress_enforcer::front::{Input, MapName, Places, Rendered, render};
use clawgress_enforcer::plan::Blocked;
use clawgress_policy::{Card, Index, Logging, Moment, Network, Revision};

pub(crate) const POLICY: &str = include_str!("policy.json");

/// Tuesday 2026-01-06, 12:00 in UTC.
pub(crate) const NOON: i64 = 1_767_700_800;

pub(crate) fn card(name: &str, addresses: &[(&str, u8)]) -> Card {
    let addresses = addresses.iter().map(|(address, length)| Cidr {
        address: address.parse().unwrap(),
        length: *length,
    });
    Card {
        name: name.to_owned(),
        addresses: addresses.collect(),
    }
}

pub(crate) fn revision(policy: &str) -> Revision {
    Revision {
        number: 7,
        created: NOON,
        enabled: true,
        policy: Policy::from_json(policy.as_bytes()).unwrap(),
        network: Network {
            wan: vec![card("eth0", &[])],
            lan: vec![
                card("eth1", &[("192.168.10.1", 24), ("2001:db8:a::1", 64)]),
                card("eth2", &[("192.168.11.1", 24)]),
            ],
            management: vec![card("eth3", &[("172.20.0.1", 16)])],
            ssh: None,
            listen_addresses: Vec::new(),
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: false,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: Vec::new(),
        access: clawgress_config::access::Access::default(),
    }
}

pub(crate) fn over(caps: &[(&str, &str)]) -> BTreeSet<(String, DomainPattern)> {
    let caps = caps
        .iter()
        .map(|(who, pattern)| ((*who).to_owned(), DomainPattern::parse(pattern).unwrap()));
    caps.collect()
}

pub(crate) fn rendered_at(revision: &Revision, moment: Moment, caps: &[(&str, &str)]) -> Rendered {
    rendered_with(revision, moment, caps, &Blocked::default())
}

pub(crate) fn rendered_with(
    revision: &Revision,
    moment: Moment,
    caps: &[(&str, &str)],
    blocked: &Blocked,
) -> Rendered {
    let index = Index::of(revision).unwrap();
    let own: [IpAddr; 1] = ["203.0.113.10".parse().unwrap()];
    let input = Input {
        revision,
        index: &index,
        moment,
        over_cap: &over(caps),
        blocked,
        own: &own,
    };
    render(&input, &Places::default())
}

pub(crate) fn rendered(revision: &Revision) -> Rendered {
    rendered_at(revision, Moment::trusted(NOON), &[])
}

/// What haproxy finds in a map for a key, exactly.
pub(crate) fn entries(rendered: &Rendered, map: MapName) -> BTreeMap<&str, &str> {
    let lines = rendered.maps[&map].lines();
    lines.map(|line| line.split_once(' ').unwrap()).collect()
}
