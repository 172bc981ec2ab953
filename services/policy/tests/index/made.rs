//! Revisions made in a few words, for the tests.

use std::collections::BTreeMap;

use clawgress_config::{
    Cidr,
    policy::{
        Allow, Cap, Day, DomainPattern, Host, Limits, Period, Policy, Proxy, ProxyMode, Scope,
        TimeOfDay, TimeWindow,
    },
};
use clawgress_policy::{Card, Index, Logging, Network, Revision};

pub(crate) fn pattern(text: &str) -> DomainPattern {
    DomainPattern::parse(text).unwrap()
}

pub(crate) fn cidr(text: &str) -> Cidr {
    let (address, length) = text.split_once('/').unwrap();
    Cidr {
        address: address.parse().unwrap(),
        length: length.parse().unwrap(),
    }
}

pub(crate) fn card(name: &str, addresses: &[&str]) -> Card {
    Card {
        name: name.to_owned(),
        addresses: addresses.iter().map(|text| cidr(text)).collect(),
    }
}

pub(crate) fn scope(domains: &[&str]) -> Scope {
    Scope {
        allow: Allow {
            domains: domains.iter().map(|text| pattern(text)).collect(),
            ..Allow::default()
        },
        ..Scope::default()
    }
}

pub(crate) fn host(sources: &[&str], scope: Scope) -> Host {
    Host {
        sources: sources.iter().map(|text| cidr(text)).collect(),
        scope,
        exfil: BTreeMap::new(),
    }
}

pub(crate) fn sni(domains: &[&str]) -> Proxy {
    Proxy {
        mode: Some(ProxyMode::SniAllowlist),
        domains: domains.iter().map(|text| pattern(text)).collect(),
        ..Proxy::default()
    }
}

pub(crate) fn window(days: &[Day], start: &str, end: &str) -> TimeWindow {
    let time = |text: &str| {
        let (hour, minute) = text.split_once(':').unwrap();
        TimeOfDay(hour.parse::<u16>().unwrap() * 60 + minute.parse::<u16>().unwrap())
    };
    TimeWindow {
        days: days.iter().copied().collect(),
        start: time(start),
        end: time(end),
    }
}

pub(crate) const EVERY_DAY: [Day; 7] = [
    Day::Mon,
    Day::Tue,
    Day::Wed,
    Day::Thu,
    Day::Fri,
    Day::Sat,
    Day::Sun,
];

/// One LAN card, `eth1` with 192.168.10.1/24 and 2001:db8:10::1/64; UTC.
pub(crate) fn revision(policy: Policy) -> Revision {
    Revision {
        number: 7,
        created: 1_764_000_000,
        enabled: true,
        policy,
        network: Network {
            wan: vec![card("eth0", &[])],
            lan: vec![card("eth1", &["192.168.10.1/24", "2001:db8:10::1/64"])],
            management: vec![card("eth2", &["10.99.0.1/24"])],
            ssh: Some((22, vec![cidr("10.99.0.0/24")])),
            listen_addresses: vec!["192.168.10.1".parse().unwrap()],
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: false,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: vec!["192.0.2.53".parse().unwrap()],
        access: clawgress_config::access::Access::default(),
    }
}

pub(crate) fn global(scope: Scope) -> Policy {
    Policy {
        global: scope,
        ..Policy::default()
    }
}

pub(crate) fn index(policy: Policy) -> Index {
    Index::of(&revision(policy)).unwrap()
}

/// Something of everything.
pub(crate) fn full() -> Policy {
    let mut policy = global(scope(&["api.example.com", "*.cdn.example"]));
    policy.labels = [(pattern("api.example.com"), "llm".to_owned())].into();
    policy.global.allow.ips = [cidr("198.51.100.0/24")].into();
    policy.global.time_window = Some(window(&[Day::Mon, Day::Tue], "22:00", "24:00"));
    policy.global.limits = Limits {
        egress_kbps: Some(8_000),
    };
    let mut agent = host(&["192.168.10.10/32"], scope(&["api.example.com"]));
    agent.scope.proxy = Some(sni(&["api.example.com", "*.wire.example"]));
    agent.scope.domain_time_windows = [(
        pattern("api.example.com"),
        window(&[Day::Fri], "23:00", "01:00"),
    )]
    .into();
    agent.exfil = [(
        pattern("api.example.com"),
        Cap {
            bytes: 1 << 20,
            period: Period::Hour,
        },
    )]
    .into();
    policy.hosts.insert("agent-1".to_owned(), agent);
    policy
}
