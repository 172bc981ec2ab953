//! What is said of all ports of a destination at once, against the decision on each of them.

use std::net::IpAddr;

use clawgress_config::access::{Access, Action, RuleMode, Status};
use clawgress_config::policy::{
    Allow, DomainPattern, Host as PolicyHost, Policy, PortRule, Protocol, Proxy, ProxyMode, Scope,
};
use clawgress_policy::rules::{DEFAULT_DENY, POLICY_JSON};
use clawgress_policy::{Host, Index, IndexError, Moment, Ports, Principal, Reach, Reason, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::made::{NOW, agent, cidr, listed, pattern, revision, rule};
use crate::naive;

const PORTS: [u16; 6] = [0, 22, 80, 443, 8443, 65_535];

/// As whoever has this address would ask the proxy for a tunnel.
fn tunnel<'a>(
    who: &'a Principal,
    host: Host<'a>,
    port: u16,
    resolved: &'a [IpAddr],
) -> Request<'a> {
    let agent = who.agent.as_deref();
    Request {
        agent_id: agent.map_or("", |_| &who.name),
        team_id: agent.map_or("", |agent| &agent.team_id),
        project_id: agent.map_or("", |agent| &agent.project_id),
        environment: agent.map_or("", |agent| &agent.environment),
        source: who.sources[0].address,
        host,
        port,
        method: Some("CONNECT"),
        path: None,
        tunnel: true,
        resolved,
    }
}

fn judged<'i>(
    index: &'i Index,
    who: &Principal,
    host: Host<'_>,
    resolved: &[IpAddr],
    moment: Moment,
) -> Option<Reach<'i>> {
    match host {
        Host::Name(name) => index.reach_name(who, name, resolved, moment),
        Host::Address(address) => index.reach_address(who, address, moment),
    }
}

/// Lists by address or by name on the wire, for everybody and for a host; ports that differ.
fn policies() -> impl Strategy<Value = Policy> {
    (any::<[bool; 4]>(), vec(select(naive::NAMES), 0..3)).prop_map(
        |([wire, own, udp, host], names)| {
            let mut policy = listed();
            let list = |names: &[&str]| names.iter().map(|name| pattern(name)).collect();
            policy
                .global
                .allow
                .domains
                .extend::<std::collections::BTreeSet<DomainPattern>>(list(&names));
            if udp {
                policy.global.allow.ports = [
                    (443, Protocol::Udp),
                    (8443, Protocol::Tcp),
                    (443, Protocol::Tcp),
                ]
                .map(|(port, protocol)| PortRule { port, protocol })
                .into();
            }
            if wire {
                policy.global.proxy = Some(Proxy {
                    mode: Some(ProxyMode::SniAllowlist),
                    domains: if own {
                        list(&["listed.example", "z.net"])
                    } else {
                        list(&[])
                    },
                    ..Proxy::default()
                });
            }
            if host {
                let scope = Scope {
                    allow: Allow {
                        domains: list(&["*.example"]),
                        ..Allow::default()
                    },
                    ..Scope::default()
                };
                policy.hosts.insert(
                    "lab".to_owned(),
                    PolicyHost {
                        sources: [cidr("192.168.10.64/26")].into(),
                        scope,
                        exfil: [].into(),
                    },
                );
            }
            policy
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn all_ports_at_once_are_what_each_is_alone(
        policy in policies(),
        rules in vec(naive::rule(), 0..24),
        agents in naive::agents(),
        near in any::<bool>(),
        hosts in vec(prop_oneof![
            3 => select(naive::NAMES).prop_map(Ok),
            1 => naive::address().prop_map(Err),
        ], 1..12),
        resolved in vec(naive::address(), 0..3),
        trusted in prop::bool::weighted(0.8),
        hour in 0_i64..24,
    ) {
        let mut access = Access {
            agents,
            rules: rules.into_iter().enumerate().map(|(at, rule)| (format!("r{at}"), rule)).collect(),
            ..Access::default()
        };
        for (agent, at) in access.agents.values_mut().zip(if near { 70.. } else { 5.. }) {
            agent.sources = [cidr(&format!("192.168.10.{at}/32"))].into();
        }
        let revision = revision(policy, access);
        let index = Index::of(&revision).unwrap();
        let moment = Moment { now: NOW - 43_200 + hour * 3_600, trusted };
        for (who, host) in index.principals().iter().flat_map(|who| hosts.iter().map(move |host| (who, host))) {
            let host = match host {
                Ok(name) => Host::Name(name),
                Err(address) => Host::Address(*address),
            };
            let resolved: &[IpAddr] = if matches!(host, Host::Name(_)) { &resolved } else { &[] };
            let reach = judged(&index, who, host, resolved, moment);
            for port in PORTS {
                let request = tunnel(who, host, port, resolved);
                let alone = index.rules().decide(&index, &request, moment);
                let Some(reach) = &reach else {
                    prop_assert!([POLICY_JSON, DEFAULT_DENY].contains(&alone.policy_id), "{:?}", request);
                    continue;
                };
                prop_assert_eq!(reach.tcp.contains(port), alone.allowed, "{} {:?} {:?}", who.name, request, reach);
            }
            if let Some(reach) = reach {
                prop_assert_eq!(reach.decision.allowed, !(reach.tcp.is_empty() && reach.udp.is_empty()));
                prop_assert_eq!(reach.decision.allowed, reach.decision.reason.is_none());
            }
        }
    }
}

fn bound(sources: &[&str]) -> clawgress_config::access::Agent {
    let mut agent = agent("research", "crawler", "production");
    agent.sources = sources.iter().map(|source| cidr(source)).collect();
    agent
}

fn host(sources: &[&str], names: &[&str]) -> PolicyHost {
    PolicyHost {
        sources: sources.iter().map(|source| cidr(source)).collect(),
        scope: Scope {
            allow: Allow {
                domains: names.iter().map(|name| pattern(name)).collect(),
                ..Allow::default()
            },
            ..Scope::default()
        },
        exfil: [].into(),
    }
}

#[test]
fn an_agent_with_sources_is_a_principal_with_the_lists_of_the_host_around_it() {
    let mut policy = listed();
    policy.hosts.insert(
        "lab".to_owned(),
        host(&["192.168.10.64/26"], &["lab.example"]),
    );
    let access = Access {
        agents: [
            ("free".to_owned(), bound(&["192.168.10.9/32"])),
            ("inside".to_owned(), bound(&["192.168.10.65/32"])),
            ("lab".to_owned(), bound(&["192.168.10.200/32"])),
            (
                "unbound".to_owned(),
                agent("research", "crawler", "production"),
            ),
        ]
        .into(),
        ..Access::default()
    };
    let index = Index::of(&revision(policy, access)).unwrap();
    let who = |last: u8| {
        index
            .principal_of(IpAddr::from([192, 168, 10, last]))
            .unwrap()
    };
    let names: Vec<&str> = [9, 65, 66, 200, 7]
        .map(|last| who(last).name.as_str())
        .into();
    assert_eq!(names, ["free", "inside", "lab", "lab", "lan/eth1"]);
    assert_eq!(who(65).agent.as_ref().unwrap().team_id, "research");
    let lists = |last: u8, name: &str| {
        index
            .judge_name(who(last), name, Moment::trusted(NOW))
            .is_allowed()
    };
    assert!(lists(65, "lab.example") && !lists(65, "listed.example"));
    assert!(lists(9, "listed.example") && !lists(9, "lab.example"));
    assert_eq!(index.holder(who(65)).name, "lab");
    assert_eq!(index.holder(who(9)).name, "free");
    assert!(index.by_name("unbound").is_none());
    // The proxy goes by the same lists.
    let on_proxy = index.scope_on_proxy(IpAddr::from([192, 168, 10, 65]));
    assert_eq!(on_proxy.scope, who(66).scope);
}

#[test]
fn sources_in_two_places_and_sources_of_two_are_refused() {
    let mut policy = listed();
    policy.hosts.insert(
        "lab".to_owned(),
        host(&["192.168.10.64/26"], &["lab.example"]),
    );
    let of = |sources: &[&str]| {
        let access = Access {
            agents: [("a".to_owned(), bound(sources))].into(),
            ..Access::default()
        };
        Index::of(&revision(policy.clone(), access))
            .map(|_| ())
            .unwrap_err()
    };
    let scattered = of(&["192.168.10.65/32", "192.168.10.9/32"]).to_string();
    assert!(
        scattered.contains("agent a has a source in no host, and another one in host lab"),
        "{scattered}"
    );
    assert!(matches!(
        of(&["192.168.10.64/26"]),
        IndexError::EqualSources { .. }
    ));
}

#[test]
fn a_star_is_any_agent_and_denies_whoever_is_none() {
    let mut star = rule(Action::Allow, 1, &["star.example"]);
    star.identity.teams = ["*".to_owned()].into();
    let mut named = rule(Action::Allow, 1, &["team.example"]);
    named.identity.teams = ["research".to_owned()].into();
    let mut nobody = rule(Action::Deny, 1, &["listed.example"]);
    nobody.identity.agents = ["*".to_owned()].into();
    let access = Access {
        agents: [("a".to_owned(), bound(&["192.168.10.9/32"]))].into(),
        rules: [
            ("star".to_owned(), star),
            ("team".to_owned(), named),
            ("nobody".to_owned(), nobody),
        ]
        .into(),
        ..Access::default()
    };
    let index = Index::of(&revision(listed(), access)).unwrap();
    let reaches = |who: &str, name: &str| {
        index
            .reach_name(index.by_name(who).unwrap(), name, &[], Moment::trusted(NOW))
            .is_some_and(|reach| reach.decision.allowed)
    };
    assert!(reaches("a", "star.example") && !reaches("lan/eth1", "star.example"));
    assert!(!reaches("a", "listed.example") && !reaches("lan/eth1", "listed.example"));
    assert!(reaches("a", "team.example") && !reaches("lan/eth1", "team.example"));
    let patterns: std::collections::BTreeSet<&str> = index.allowed_patterns().collect();
    assert_eq!(
        patterns,
        ["listed.example", "star.example", "team.example"].into()
    );
}

#[test]
fn ports_of_a_rule_are_its_own_and_a_disabled_agent_has_none() {
    let mut only = rule(Action::Allow, 1, &["x.example"]);
    only.ports = [8443].into();
    let mut not = rule(Action::Deny, 2, &["*.example"]);
    not.ports = [22].into();
    let every = rule(Action::Allow, 3, &["y.example"]);
    let mut tried = rule(Action::Deny, 4, &["w.example"]);
    tried.mode = RuleMode::Report;
    let mut off = bound(&["192.168.10.10/32"]);
    off.status = Status::Disabled;
    let access = Access {
        agents: [
            ("a".to_owned(), bound(&["192.168.10.9/32"])),
            ("off".to_owned(), off),
        ]
        .into(),
        rules: [
            ("only", only),
            ("not", not),
            ("every", every),
            ("tried", tried),
        ]
        .map(|(id, rule)| (id.to_owned(), rule))
        .into(),
        ..Access::default()
    };
    let index = Index::of(&revision(listed(), access)).unwrap();
    let reach = |who: &str, name| {
        index
            .reach_name(index.by_name(who).unwrap(), name, &[], Moment::trusted(NOW))
            .unwrap()
    };
    assert_eq!(reach("a", "x.example").tcp, Ports::of([8443]));
    assert_eq!(
        reach("a", "y.example").tcp,
        Ports::all().without(&Ports::of([22]))
    );
    assert_eq!(reach("a", "listed.example").tcp, Ports::of([80, 443]));
    let tried = reach("a", "w.example");
    assert_eq!(tried.decision.would_deny, Some("tried"));
    assert!(tried.tcp.contains(443) && !tried.tcp.contains(22));
    let off = reach("off", "y.example").decision.reason;
    assert_eq!(off, Some(Reason::AgentDisabled));
}
