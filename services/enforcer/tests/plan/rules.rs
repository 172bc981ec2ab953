//! The rules of agents in the plan: the chain of each principal, walked packet by packet, against the decision that the
//! proxy would make.

use std::net::IpAddr;

use clawgress_config::access::{
    Access, Action, Agent, AuthType, IdentityMatch, Rule, RuleMode, Status,
};
use clawgress_config::policy::DomainPattern;
use clawgress_enforcer::plan::{self, Blocked, Carry};
use clawgress_policy::{Host, Index, Moment, Principal, Request, Revision};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::revisions::{FRIDAY, cidr, pin, revision};
use crate::walk::{Flow, Table};

pub(crate) fn agent(team: &str, sources: &[&str]) -> Agent {
    Agent {
        team_id: team.to_owned(),
        project_id: "crawler".to_owned(),
        environment: "production".to_owned(),
        auth_type: AuthType::ApiKey,
        status: Status::Active,
        sources: sources.iter().map(|source| cidr(source)).collect(),
        bound: false,
    }
}

pub(crate) fn rule(action: Action, priority: u32, domains: &[&str]) -> Rule {
    Rule {
        version: 1,
        priority,
        enabled: true,
        mode: RuleMode::Enforce,
        identity: IdentityMatch::default(),
        domains: domains
            .iter()
            .map(|name| DomainPattern::parse(name).unwrap())
            .collect(),
        networks: [].into(),
        ports: [].into(),
        methods: [].into(),
        path_prefixes: [].into(),
        time_window: None,
        action,
        alert: false,
        plain_tunnel: false,
        upgrade: false,
        label: None,
    }
}

const NAMES: [&str; 5] = [
    "x.example",
    "a.x.example",
    "listed.example",
    "y.example",
    "z.net",
];
const PATTERNS: [&str; 6] = [
    "x.example",
    "*.x.example",
    "*.example",
    "y.example",
    "z.net",
    "*.net",
];
const NETWORKS: [&str; 6] = [
    "192.0.2.0/24",
    "192.0.2.1/32",
    "192.0.2.128/25",
    "0.0.0.0/0",
    "2001:db8::/32",
    "2001:db8::1/128",
];
const ADDRESSES: [&str; 5] = [
    "192.0.2.1",
    "192.0.2.200",
    "198.51.100.1",
    "2001:db8::1",
    "2001:db8:1::1",
];
const PORTS: [u16; 5] = [22, 80, 443, 8443, 9000];

fn set<T: Ord + Clone + std::fmt::Debug + 'static>(
    all: &'static [T],
    most: usize,
) -> impl Strategy<Value = std::collections::BTreeSet<T>> {
    btree_set(select(all), 0..most)
}

prop_compose! {
    fn some_rule()(
        action in select(vec![Action::Allow, Action::Deny]),
        priority in 0_u32..4,
        report in prop::bool::weighted(0.2),
        domains in set(&PATTERNS, 3),
        networks in set(&NETWORKS, 2),
        ports in set(&PORTS, 3),
        methods in set(&["CONNECT", "GET"], 2),
        team in select(vec!["", "", "research", "other", "*"]),
    ) -> Rule {
        let domains: Vec<&str> = domains.into_iter().collect();
        let mut rule = rule(action, priority, &domains);
        rule.networks = networks.into_iter().map(cidr).collect();
        rule.ports = ports;
        rule.methods = methods.into_iter().map(str::to_owned).collect();
        rule.mode = if report { RuleMode::Report } else { RuleMode::Enforce };
        rule.identity.teams = Some(team).filter(|team| !team.is_empty()).map(str::to_owned).into_iter().collect();
        rule
    }
}

fn policies() -> impl Strategy<Value = &'static str> {
    select(vec![
        r#"{"version": 2, "allow": {"domains": ["listed.example", "*.x.example"], "ips": ["192.0.2.0/25"]}}"#,
        r#"{"version": 2, "allow": {"domains": ["listed.example"], "ips": ["192.0.2.0/24"],
            "ports": [443, 8443, {"port": 9000, "protocol": "udp"}]}}"#,
        r#"{"version": 2, "allow": {"domains": ["listed.example"], "ips": ["192.0.2.0/24"], "ports": [443, 8443]},
            "proxy": {"mode": "sni-allowlist", "domains": ["listed.example", "z.net"]}}"#,
        r#"{"version": 2, "hosts": {"lab": {"sources": ["192.168.10.0/28"],
            "allow": {"domains": ["y.example"], "ports": [80]}}}}"#,
    ])
}

fn bound(policy: &str, rules: Vec<Rule>) -> Revision {
    let mut revision = revision(policy);
    revision.access = Access {
        agents: [
            ("one".to_owned(), agent("research", &["192.168.10.9/32"])),
            ("two".to_owned(), agent("other", &["192.168.10.10/32"])),
        ]
        .into(),
        rules: rules
            .into_iter()
            .enumerate()
            .map(|(at, rule)| (format!("r{at}"), rule))
            .collect(),
        ..Access::default()
    };
    revision
}

fn allows(index: &Index, who: &Principal, host: Host<'_>, port: u16, resolved: &[IpAddr]) -> bool {
    let agent = who.agent.as_deref();
    let request = Request {
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
    };
    index
        .rules()
        .decide(index, &request, Moment::trusted(FRIDAY))
        .allowed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// A flow passes by its address if the proxy would let it pass by that address, or by a name that led there.
    #[test]
    fn a_flow_passes_where_the_proxy_would_let_it(
        policy in policies(),
        rules in vec(some_rule(), 0..10),
        led in vec((select(NAMES.to_vec()), select(ADDRESSES.to_vec())), 0..5),
    ) {
        let revision = bound(policy, rules);
        let index = Index::of(&revision).unwrap();
        let carry = Carry {
            pins: index.principals().iter()
                .flat_map(|who| led.iter().map(|(name, to)| pin(&who.name, name, &[to])))
                .collect(),
            ..Carry::default()
        };
        let plan = plan::compile(&revision, &index, Moment::trusted(FRIDAY), 7, &carry);
        let table = Table::of(&plan);
        for who in index.principals() {
            let wire: &[u16] = if who.scope.judges_names_on_the_wire { &[80, 443] } else { &[] };
            for (to, port) in ADDRESSES.iter().flat_map(|to| PORTS.map(|port| (to.parse().unwrap(), port))) {
                let by_name = led.iter().filter(|(_, led)| led.parse::<IpAddr>().unwrap() == to)
                    .any(|(name, _)| allows(&index, who, Host::Name(name), port, &[to]));
                let expected = !wire.contains(&port)
                    && (by_name || allows(&index, who, Host::Address(to), port, &[]));
                let flow = Flow { transport: "tcp", to, port };
                let end = table.end(&format!("p{}", who.id), flow);
                prop_assert_eq!(end == "stamp", expected, "{} {:?} ended in {}", who.name, flow, end);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// The front takes a flow to an address and port if the proxy would let a name pass to that port that led there.
    #[test]
    fn the_fronts_leg_passes_where_the_proxy_would_let_its_name(
        rules in vec(some_rule(), 0..10),
        led in vec((select(NAMES.to_vec()), select(ADDRESSES.to_vec())), 0..5),
        ports in set(&PORTS, 5),
    ) {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let policy = format!(
            r#"{{"version": 2, "allow": {{"domains": ["listed.example"], "ips": ["192.0.2.0/24"], "ports": [{}]}},
                "proxy": {{"mode": "sni-allowlist", "domains": ["listed.example", "z.net"]}}}}"#,
            ports.join(", ")
        );
        let revision = bound(&policy, rules);
        let index = Index::of(&revision).unwrap();
        let carry = Carry {
            pins: led.iter().map(|(name, to)| pin("sni", name, &[to])).collect(),
            ..Carry::default()
        };
        let plan = plan::compile(&revision, &index, Moment::trusted(FRIDAY), 7, &carry);
        let table = Table::of(&plan);
        for who in index.principals() {
            for (to, port) in ADDRESSES.iter().flat_map(|to| PORTS.map(|port| (to.parse().unwrap(), port))) {
                let expected = [80, 443].contains(&port)
                    && led.iter().filter(|(_, led)| led.parse::<IpAddr>().unwrap() == to)
                        .any(|(name, _)| allows(&index, who, Host::Name(name), port, &[to]));
                let flow = Flow { transport: "tcp", to, port };
                let end = table.end(&format!("f{}", who.id), flow);
                prop_assert_eq!(end == "stamp", expected, "{} {:?} ended in {}", who.name, flow, end);
            }
        }
    }
}

#[test]
fn who_is_disabled_or_blocked_reaches_nothing_and_is_told_why() {
    let policy = r#"{"version": 2, "allow": {"ips": ["192.0.2.0/24"]}}"#;
    let mut revision = bound(policy, Vec::new());
    revision.access.agents.get_mut("two").unwrap().status = Status::Disabled;
    let index = Index::of(&revision).unwrap();
    let end = |blocked: Blocked, who: &str| {
        let carry = Carry {
            blocked,
            ..Carry::default()
        };
        let plan = plan::compile(&revision, &index, Moment::trusted(FRIDAY), 7, &carry);
        let flow = Flow {
            transport: "tcp",
            to: "192.0.2.1".parse().unwrap(),
            port: 443,
        };
        let id = index.by_name(who).unwrap().id;
        let end = Table::of(&plan).end(&format!("p{id}"), flow);
        end.trim_start_matches(&format!("p{id}_")).to_owned()
    };
    let one = || Blocked {
        all: false,
        agents: ["one".to_owned()].into(),
    };
    assert_eq!(end(Blocked::default(), "one"), "stamp");
    assert_eq!(end(Blocked::default(), "two"), "agent_disabled");
    assert_eq!(end(one(), "one"), "blocked");
    assert_eq!(end(one(), "lan/eth1"), "stamp");
    let all = Blocked {
        all: true,
        ..Blocked::default()
    };
    assert_eq!(end(all, "lan/eth1"), "blocked");
}

/// The front looks up for everybody at once: where one is blocked, the others' flows go on.
#[test]
fn what_the_front_looks_up_has_its_sets_also_where_somebody_is_blocked() {
    let policy = r#"{"version": 2, "allow": {"domains": ["listed.example"]}, "proxy": {"mode": "sni-allowlist"}}"#;
    let revision = bound(policy, vec![rule(Action::Allow, 1, &["x.example"])]);
    let index = Index::of(&revision).unwrap();
    let carry = Carry {
        blocked: Blocked {
            all: false,
            agents: ["one".to_owned()].into(),
        },
        ..Carry::default()
    };
    let moment = Moment::trusted(FRIDAY);
    let plan = plan::compile(&revision, &index, moment, 7, &carry);
    let document: serde_json::Value = serde_json::from_str(&plan.transaction()).unwrap();
    let commands = document["nftables"].as_array().unwrap();
    let declared: Vec<&str> = commands
        .iter()
        .filter_map(|command| command["add"]["set"]["name"].as_str())
        .collect();
    for name in ["listed.example", "x.example"] {
        for address in ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()) {
            let places = plan::places(&index, "sni", name, address, moment);
            assert!(places.len() >= 3, "{places:?}");
            for place in places {
                assert!(declared.contains(&place.set(address)), "{place:?}");
            }
        }
    }
}

#[test]
fn names_of_rules_are_in_the_policy_zones_and_too_many_ports_are_told() {
    let mut many = rule(Action::Allow, 1, &["many.example.com"]);
    many.ports = (1000..1100).collect();
    let mut tried = rule(Action::Deny, 2, &["*.tried.example.com"]);
    tried.mode = RuleMode::Report;
    let denied = rule(Action::Deny, 3, &["denied.example.com"]);
    let revision = bound(r#"{"version": 2}"#, vec![many, tried, denied]);
    let index = Index::of(&revision).unwrap();
    let carry = Carry {
        pins: vec![pin("one", "many.example.com", &["192.0.2.1"])],
        ..Carry::default()
    };
    let plan = plan::compile(&revision, &index, Moment::trusted(FRIDAY), 7, &carry);
    let zone = &plan.zones.zones[0].text;
    for name in ["many.example.com", "*.tried.example.com"] {
        assert!(
            zone.contains(&format!("\n{name} CNAME rpz-passthru.")),
            "{zone}"
        );
    }
    assert!(!zone.contains("denied"));
    let told = |warning: &&String| warning.starts_with("one: its rules name more ports");
    assert!(plan.warnings.iter().any(|warning| told(&warning)));
    let id = index.by_name("one").unwrap().id;
    let open = (1000..1100).filter(|port| {
        let flow = Flow {
            transport: "tcp",
            to: "192.0.2.1".parse().unwrap(),
            port: *port,
        };
        Table::of(&plan).end(&format!("p{id}"), flow) == "stamp"
    });
    assert_eq!(open.count(), 62);
}

#[test]
fn what_these_paths_cannot_see_or_count_is_told() {
    let mut method = rule(Action::Deny, 1, &["api.example.com"]);
    method.methods = ["POST".to_owned()].into();
    method.ports = [80].into();
    let mut revision = bound(
        r#"{"version": 2, "allow": {"domains": ["api.example.com"]}}"#,
        vec![method],
    );
    let quota = clawgress_config::access::Quota {
        rps: Some(5),
        ..clawgress_config::access::Quota::default()
    };
    revision
        .access
        .quotas
        .teams
        .insert("research".to_owned(), quota);
    let index = Index::of(&revision).unwrap();
    let moment = Moment::trusted(FRIDAY);
    let plan = plan::compile(&revision, &index, moment, 7, &Carry::default());
    for told in [
        "rule r0: agents that do not come by the proxy show neither method nor path; to them it denies its destinations",
        "one: quotas bind what comes by the proxy",
    ] {
        assert!(
            plan.warnings
                .iter()
                .any(|warning| warning.starts_with(told)),
            "{:?}",
            plan.warnings
        );
    }
    // As it is told: the whole name at that port.
    let reach = index
        .reach_name(
            index.by_name("one").unwrap(),
            "api.example.com",
            &[],
            moment,
        )
        .unwrap();
    assert!(!reach.tcp.contains(80) && reach.tcp.contains(443));
}

#[test]
fn a_rule_that_closes_is_when_the_plan_next_changes() {
    let mut office = rule(Action::Allow, 1, &["api.example.com"]);
    office.time_window = Some(clawgress_config::policy::TimeWindow {
        days: clawgress_config::policy::Day::ALL.into(),
        start: clawgress_config::policy::TimeOfDay(7 * 60),
        end: clawgress_config::policy::TimeOfDay(9 * 60),
    });
    let revision = bound(r#"{"version": 2}"#, vec![office]);
    let index = Index::of(&revision).unwrap();
    let carry = Carry {
        pins: vec![pin("one", "api.example.com", &["192.0.2.1"])],
        ..Carry::default()
    };
    let id = index.by_name("one").unwrap().id;
    let end = |now: i64| {
        let plan = plan::compile(&revision, &index, Moment::trusted(now), 7, &carry);
        let flow = Flow {
            transport: "tcp",
            to: "192.0.2.1".parse().unwrap(),
            port: 443,
        };
        (
            Table::of(&plan).end(&format!("p{id}"), flow),
            plan.next_change,
        )
    };
    assert_eq!(end(FRIDAY), ("stamp".to_owned(), Some(FRIDAY + 3600)));
    assert_eq!(end(FRIDAY + 3600).0, format!("p{id}_outside_window"));
}
