//! Revisions of the golden files: each is a way in which boxes are really set up.

use std::collections::BTreeSet;

use clawgress_config::Cidr;
use clawgress_config::access::{Action, Status};
use clawgress_config::policy::Policy;
use clawgress_enforcer::plan::{self, CarriedPin, Carry, Plan};
use clawgress_policy::{Card, Index, Logging, Moment, Network, Revision};

use crate::rules::{agent, rule};

/// A Friday, 08:00 UTC.
pub(crate) const FRIDAY: i64 = 1_800_000_000;

pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) revision: Revision,
    pub(crate) moment: Moment,
    pub(crate) carry: Carry,
}

impl Scene {
    pub(crate) fn index(&self) -> Index {
        Index::of(&self.revision).unwrap()
    }

    pub(crate) fn plan(&self) -> Plan {
        plan::compile(&self.revision, &self.index(), self.moment, 7, &self.carry)
    }
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
        addresses: addresses.iter().map(|address| cidr(address)).collect(),
    }
}

pub(crate) fn pin(principal: &str, name: &str, addresses: &[&str]) -> CarriedPin {
    CarriedPin {
        principal: principal.to_owned(),
        name: name.to_owned(),
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect::<BTreeSet<_>>(),
        leaving: false,
    }
}

pub(crate) fn revision(policy: &str) -> Revision {
    Revision {
        number: 7,
        created: 0,
        enabled: true,
        policy: Policy::from_json(policy.as_bytes()).unwrap(),
        network: Network {
            wan: vec![card("eth0", &[])],
            lan: vec![card("eth1", &["192.168.10.1/24", "fd10::1/64"])],
            ..Network::default()
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: false,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: vec!["9.9.9.9".parse().unwrap()],
        access: clawgress_config::access::Access::default(),
    }
}

fn scene(name: &'static str, revision: Revision, pins: Vec<CarriedPin>) -> Scene {
    Scene {
        name,
        revision,
        moment: Moment::trusted(FRIDAY),
        carry: Carry {
            pins,
            ..Carry::default()
        },
    }
}

pub(crate) fn all() -> Vec<Scene> {
    vec![
        nothing(),
        plain(),
        hosts(),
        wire(),
        next_gateway(),
        office(),
        untrusted(),
        services(),
        ruled(),
        proxied(),
    ]
}

/// Enabled, and nothing allowed.
fn nothing() -> Scene {
    scene("nothing", revision(r#"{"version": 2}"#), Vec::new())
}

/// One list for everybody, by address.
fn plain() -> Scene {
    let policy = r#"{"version": 1,
        "allow": {"domains": ["api.openai.com", "*.anthropic.com"], "ips": ["1.2.3.0/24", "2001:db8::/32"], "ports": [53, 443]},
        "labels": {"api.openai.com": "llm-provider"}}"#;
    let pins = vec![
        pin(
            "lan/eth1",
            "api.openai.com",
            &["198.51.100.10", "2001:db8:1::10"],
        ),
        // Allowed no more.
        pin("lan/eth1", "gone.example.com", &["198.51.100.66"]),
    ];
    scene("plain", revision(policy), pins)
}

/// Hosts with caps, limits and windows; an address that two capped names share.
fn hosts() -> Scene {
    let policy = r#"{"version": 2,
        "allow": {"domains": ["everybody.example.com"]},
        "limits": {"egress_kbps": 8000},
        "hosts": {
            "agent-1": {"sources": ["192.168.10.10/32", "fd10::10/128"],
                "allow": {"domains": ["one.example.com", "two.example.com"], "ports": [443]},
                "limits": {"egress_kbps": 2000},
                "exfil": {"domains": {"one.example.com": {"bytes": 1048576, "period": "hour"},
                                      "two.example.com": {"bytes": 5000000000, "period": "day"}}}},
            "office": {"sources": ["192.168.10.32/27"],
                "allow": {"domains": ["work.example.com", "always.example.com"], "ips": ["203.0.113.0/24"],
                          "ports": [443, {"port": 4433, "protocol": "udp"}]},
                "time_window": {"days": ["mon", "tue"], "start": "09:00", "end": "17:00"},
                "domain_time_windows": {"always.example.com": {"days": ["fri"], "start": "00:00", "end": "24:00"}}}}}"#;
    let mut scene = scene(
        "hosts",
        revision(policy),
        vec![
            pin(
                "agent-1",
                "one.example.com",
                &["198.51.100.10", "2001:db8:1::10"],
            ),
            pin("agent-1", "two.example.com", &["198.51.100.10"]),
            pin("office", "work.example.com", &["198.51.100.20"]),
            pin("office", "always.example.com", &["198.51.100.21"]),
        ],
    );
    let key = ("agent-1".to_owned(), "one.example.com".to_owned());
    scene.carry.used.insert(key, 1_000_000);
    scene
}

/// Names judged on the wire for everybody, by address for one.
fn wire() -> Scene {
    let policy = r#"{"version": 2,
        "allow": {"domains": ["api.example.com"], "ports": [80, 443, 22]},
        "proxy": {"mode": "sni-allowlist"},
        "hosts": {
            "by-address": {"sources": ["192.168.10.10/32"], "allow": {"domains": ["api.example.com"]}},
            "own-list": {"sources": ["192.168.10.11/32"], "allow": {"domains": ["told.example.com"]},
                "proxy": {"mode": "sni-allowlist", "domains": ["wire.example.com"]},
                "exfil": {"domains": {"wire.example.com": {"bytes": 1000, "period": "minute"}}}}}}"#;
    scene(
        "wire",
        revision(policy),
        vec![
            pin("sni", "api.example.com", &["198.51.100.10"]),
            pin("sni", "wire.example.com", &["198.51.100.11"]),
            pin("lan/eth1", "api.example.com", &["198.51.100.10"]),
        ],
    )
}

/// Flows are handed on, by name and by address.
fn next_gateway() -> Scene {
    let policy = r#"{"version": 2,
        "hosts": {
            "by-name": {"sources": ["192.168.10.10/32"], "allow": {"domains": ["api.example.com"]},
                "proxy": {"mode": "sni-allowlist", "backend": "next.example.net:3129"}},
            "by-address": {"sources": ["192.168.10.11/32"], "allow": {"domains": ["api.example.com"]},
                "proxy": {"mode": "sni-allowlist", "backend": "203.0.113.99:3129"}}}}"#;
    let pins = vec![pin("sni", "next.example.net", &["203.0.113.50"])];
    scene("next-gateway", revision(policy), pins)
}

/// Several cards of each kind, operators among them, a source inside another.
fn office() -> Scene {
    let policy = r#"{"version": 2,
        "allow": {"ips": ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "::/0"], "ports": [443, 853]},
        "limits": {"egress_kbps": 100000},
        "hosts": {
            "lab": {"sources": ["192.168.20.0/24"], "allow": {"domains": ["lab.example.com"]}},
            "bench": {"sources": ["192.168.20.128/25"], "allow": {"domains": ["bench.example.com"]},
                "limits": {"egress_kbps": 1000}}}}"#;
    let mut revision = revision(policy);
    revision.network.wan.push(card("eth5", &["203.0.113.2/30"]));
    revision
        .network
        .lan
        .push(card("eth2", &["192.168.20.1/23"]));
    revision.network.management = vec![card("eth3", &["172.16.0.1/24", "fd16::1/64"])];
    revision.network.ssh = Some((2222, vec![cidr("172.16.0.0/28"), cidr("fd16::/64")]));
    revision.name_servers.clear();
    scene("office", revision, Vec::new())
}

/// The clock can't be trusted: whatever has a window is shut.
fn untrusted() -> Scene {
    let policy = r#"{"version": 2,
        "allow": {"domains": ["day.example.com", "any.example.com"]},
        "domain_time_windows": {"day.example.com": {"days": ["fri"], "start": "00:00", "end": "24:00"}}}"#;
    let mut scene = scene(
        "untrusted",
        revision(policy),
        vec![
            pin("lan/eth1", "day.example.com", &["198.51.100.10"]),
            pin("lan/eth1", "any.example.com", &["198.51.100.11"]),
        ],
    );
    scene.moment = Moment::untrusted(FRIDAY);
    scene
}

/// The gateway for agents, and a trail of events that goes to collectors.
fn services() -> Scene {
    let mut revision = revision(
        r#"{"version": 1, "allow": {"domains": ["api.openai.com"], "ips": ["172.20.0.0/24"], "ports": [443]}}"#,
    );
    revision.access = serde_json::from_value(serde_json::json!({
        "agents": {"agent-1": {"team_id": "red", "project_id": "p", "environment": "prod",
            "auth_type": "api_key", "status": "active"}},
        "gateway": {"enabled": true, "tls_port": 3129},
        "issuers": {
            "login": {"issuer": "https://login.example.com/", "audience": "agents", "algorithms": ["ES256"],
                "keys": {"url": "https://Login.example.com/keys.json"}, "leeway_seconds": 30},
            "corp": {"issuer": "https://idp.corp/", "audience": "agents", "algorithms": ["RS256"],
                "keys": {"url": "https://10.0.0.7:8443/jwks"}, "key_ca": "/config/corp.pem", "leeway_seconds": 30},
        },
        "audit": {"syslog": {"to": "192.0.2.10:6514"}, "otlp": {"to": "https://Logs.example.com/v1/logs"}},
    }))
    .unwrap();
    scene("services", revision, Vec::new())
}

/// Agents with addresses of their own, and rules that open and shut ports and networks; one is disabled.
fn ruled() -> Scene {
    let policy = r#"{"version": 2,
        "allow": {"domains": ["api.example.com"], "ips": ["203.0.113.0/24"],
            "ports": [443, {"port": 4433, "protocol": "udp"}]},
        "hosts": {"lab": {"sources": ["192.168.10.64/26"], "allow": {"domains": ["lab.example.com"]},
            "limits": {"egress_kbps": 1000},
            "exfil": {"domains": {"lab.example.com": {"bytes": 1000000, "period": "day"}}}}}}"#;
    let mut revision = revision(policy);
    let mut ports = rule(Action::Allow, 10, &["git.example.com"]);
    ports.ports = [22, 443].into();
    ports.identity.teams = ["research".to_owned()].into();
    let mut anything = rule(Action::Allow, 20, &["*.any.example.com"]);
    anything.identity.agents = ["one".to_owned()].into();
    let mut network = rule(Action::Deny, 5, &[]);
    network.networks = [cidr("203.0.113.128/25"), cidr("2001:db8:bad::/48")].into();
    let mut inner = rule(Action::Allow, 4, &[]);
    inner.networks = [cidr("203.0.113.200/32")].into();
    inner.ports = [8443].into();
    let mut off = agent("research", &["192.168.10.11/32"]);
    off.status = Status::Disabled;
    revision.access.agents = [
        (
            "one".to_owned(),
            agent("research", &["192.168.10.9/32", "fd10::9/128"]),
        ),
        ("inside".to_owned(), agent("other", &["192.168.10.70/32"])),
        ("off".to_owned(), off),
    ]
    .into();
    revision.access.rules = [
        ("ports", ports),
        ("anything", anything),
        ("network", network),
        ("inner", inner),
    ]
    .map(|(id, rule)| (id.to_owned(), rule))
    .into();
    scene(
        "ruled",
        revision,
        vec![
            pin("one", "git.example.com", &["198.51.100.10", "2001:db8::10"]),
            pin("one", "www.any.example.com", &["198.51.100.11"]),
            pin(
                "one",
                "api.example.com",
                &["198.51.100.12", "203.0.113.129"],
            ),
            pin("inside", "lab.example.com", &["198.51.100.13"]),
            pin("off", "api.example.com", &["198.51.100.14"]),
        ],
    )
}

/// Hosts with limits of their own, and a gateway for all. One cap lies around another.
fn proxied() -> Scene {
    let policy = r#"{"version": 2,
        "allow": {"domains": ["everybody.example.com"]},
        "limits": {"egress_kbps": 8000},
        "hosts": {
            "both": {"sources": ["192.168.10.10/31"],
                "allow": {"domains": ["api.example.com", "*.example.com"], "ports": [443]},
                "limits": {"egress_kbps": 2000},
                "exfil": {"domains": {"api.example.com": {"bytes": 1000000, "period": "hour"},
                                      "*.example.com": {"bytes": 5000000, "period": "day"}}}},
            "free": {"sources": ["192.168.10.12/32"], "allow": {"domains": ["api.example.com"]}},
            "slow": {"sources": ["192.168.10.13/32"], "allow": {"domains": ["api.example.com"]},
                "limits": {"egress_kbps": 1000}}}}"#;
    let mut revision = revision(policy);
    revision.access = serde_json::from_value(serde_json::json!({
        "agents": {"inside": {"team_id": "red", "project_id": "p", "environment": "prod", "auth_type": "api_key",
            "status": "active", "sources": ["192.168.10.10/32"]}},
        "gateway": {"enabled": true},
    }))
    .unwrap();
    let mut scene = scene("proxied", revision, Vec::new());
    let index = scene.index();
    scene.carry.proxied = plan::proxied::proxied(&index).zip(11..).collect();
    scene
}
