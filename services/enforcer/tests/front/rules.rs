//! The rules of agents in the maps, looked up as haproxy does, against the index; and how they come and go.

use clawgress_config::Cidr;
use clawgress_config::access::{Action, Agent, AuthType, IdentityMatch, Rule, RuleMode, Status};
use clawgress_config::policy::DomainPattern;
use clawgress_enforcer::front::live::Live;
use clawgress_enforcer::front::log::Event;
use clawgress_enforcer::front::{MapName, Places, Rendered, Update, difference};
use clawgress_enforcer::plan::Blocked;
use clawgress_policy::{Index, Moment, Revision};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::maps::{key, looked_up};
use crate::scene::{NOON, entries, over, rendered_at, rendered_with, revision};

fn agent(last: u8, team: &str) -> Agent {
    let source = Cidr {
        address: [192, 168, 10, last].into(),
        length: 32,
    };
    Agent {
        team_id: team.to_owned(),
        project_id: "crawler".to_owned(),
        environment: "production".to_owned(),
        auth_type: AuthType::ApiKey,
        status: Status::Active,
        sources: [source].into(),
        bound: false,
    }
}

fn rule(action: Action, priority: u32, domains: &[&str]) -> Rule {
    let domains = domains
        .iter()
        .map(|name| DomainPattern::parse(name).unwrap());
    Rule {
        version: 1,
        priority,
        enabled: true,
        mode: RuleMode::Enforce,
        identity: IdentityMatch::default(),
        domains: domains.collect(),
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

fn with(policy: &str, rules: impl IntoIterator<Item = Rule>) -> Revision {
    let mut revision = revision(policy);
    revision.access.agents = [
        ("one".to_owned(), agent(9, "research")),
        ("two".to_owned(), agent(10, "other")),
        ("three".to_owned(), agent(11, "other")),
    ]
    .into();
    let rules = rules.into_iter().enumerate();
    revision.access.rules = rules.map(|(at, rule)| (format!("r{at}"), rule)).collect();
    revision
}

/// What haproxy decides of a flow from this address.
fn passes(front: &Rendered, source: &str, port: u16, name: &str) -> bool {
    let sources = entries(front, MapName::Sources);
    let value: Vec<&str> = sources[source].split('|').collect();
    let (letter, by_rules) = if port == 443 { ('s', 'S') } else { ('h', 'H') };
    if !value[2].contains([letter, by_rules]) {
        return false;
    }
    let wanted = format!("{}{letter}/{}", value.get(4).unwrap_or(&""), key(name));
    let lines = entries(front, MapName::Rules);
    let said = lines
        .iter()
        .filter(|(prefix, _)| wanted.starts_with(**prefix))
        .max_by_key(|(prefix, _)| prefix.len())
        .map_or("listed", |(_, word)| word);
    let listed = looked_up(front, value[1], name);
    match said {
        "open" => true,
        "listed" => listed.is_ok() && !value[2].contains(by_rules),
        "tried" => match listed {
            Ok(()) => !value[2].contains(by_rules),
            Err(reason) => reason == clawgress_policy::Reason::NotAllowlisted,
        },
        _ => false,
    }
}

const PATTERNS: [&str; 7] = [
    "a.test",
    "*.a.test",
    "b.a.test",
    "*.b.a.test",
    "*.test",
    "x.test",
    "*.net",
];
const NAMES: [&str; 7] = [
    "a.test",
    "b.a.test",
    "c.b.a.test",
    "c.a.test",
    "x.test",
    "y.net",
    "org",
];

prop_compose! {
    fn some_rule()(
        action in select(vec![Action::Allow, Action::Deny]),
        priority in 0_u32..4,
        report in prop::bool::weighted(0.2),
        domains in btree_set(select(&PATTERNS[..]), 0..3),
        ports in btree_set(select(vec![80_u16, 443, 22]), 0..2),
        team in select(vec!["", "", "research", "other"]),
    ) -> Rule {
        let domains: Vec<&str> = domains.into_iter().collect();
        let mut rule = rule(action, priority, &domains);
        rule.ports = ports;
        rule.mode = if report { RuleMode::Report } else { RuleMode::Enforce };
        rule.identity.teams = Some(team).filter(|team| !team.is_empty()).map(str::to_owned).into_iter().collect();
        rule
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_name_passes_the_front_where_the_index_lets_it(
        policy in select(vec![
            r#"{"version": 2, "allow": {"domains": ["*.a.test", "x.test"]}, "proxy": {"mode": "sni-allowlist"}}"#,
            r#"{"version": 2, "allow": {"domains": ["x.test"], "ports": [443]},
                "proxy": {"mode": "sni-allowlist", "domains": ["x.test", "*.net"]}}"#,
            r#"{"version": 2, "allow": {"domains": ["a.test"]}}"#,
            r#"{"version": 2, "proxy": {"mode": "sni-allowlist"},
                "hosts": {"lab": {"sources": ["192.168.10.0/26"], "allow": {"domains": ["*.test"]},
                    "proxy": {"mode": "sni-allowlist"}}}}"#,
        ]),
        rules in vec(some_rule(), 0..8),
    ) {
        let revision = with(policy, rules);
        let index = Index::of(&revision).unwrap();
        let moment = Moment::trusted(NOON);
        let front = rendered_at(&revision, moment, &[]);
        for (source, who) in [("192.168.10.9/32", "one"), ("192.168.10.10/32", "two"), ("192.168.10.0/24", "lan/eth1")] {
            let who = index.by_name(who).unwrap();
            if !who.scope.judges_names_on_the_wire {
                continue;
            }
            for (name, port) in NAMES.iter().flat_map(|name| [(name, 443), (name, 80)]) {
                // Where a scope's ports have none of it, nothing is led to the front.
                let expected = who.is_on_wire(port) && match index.reach_name(who, name, &[], moment) {
                    Some(reach) => reach.tcp.contains(port),
                    None => index.judge_wire_name(who, name, moment).is_allowed() && who.scope.has_tcp(port),
                };
                prop_assert_eq!(passes(&front, source, port, name), expected, "{} {} {}", who.name, name, port);
            }
        }
    }
}

const POLICY: &str =
    r#"{"version": 2, "allow": {"domains": ["a.test"]}, "proxy": {"mode": "sni-allowlist"}}"#;

#[test]
fn who_is_disabled_or_blocked_has_no_name_and_one_line() {
    let mut revision = with(POLICY, [rule(Action::Allow, 1, &["x.test"])]);
    revision.access.agents.get_mut("two").unwrap().status = Status::Disabled;
    let moment = Moment::trusted(NOON);
    let blocked = Blocked {
        all: false,
        agents: ["one".to_owned()].into(),
    };
    let before = rendered_at(&revision, moment, &[]);
    let front = rendered_with(&revision, moment, &[], &blocked);
    let may = |front, source, name| passes(front, source, 443, name);
    assert!(may(&before, "192.168.10.9/32", "x.test"));
    for name in ["x.test", "a.test"] {
        assert!(!may(&front, "192.168.10.9/32", name));
        assert!(!may(&front, "192.168.10.10/32", name));
        assert!(may(&front, "192.168.10.11/32", name));
    }
    let rules = entries(&front, MapName::Rules);
    assert_eq!(rules["=blocked=s/"], "blocked");
    assert_eq!(rules["=agent-disabled=h/"], "agent-disabled");
    // What shuts the one comes before its source leads there.
    let Update::Runtime(commands) = difference(&before, &front, &Places::default()) else {
        panic!("no reload is needed");
    };
    let at = |what: &str| commands.iter().position(|command| command.contains(what));
    assert!(at("=blocked=s/").unwrap() < at("one|g|-sh|straight|=blocked=").unwrap());
}

#[test]
fn agents_of_the_same_rules_share_their_lines() {
    let mut own = rule(Action::Allow, 1, &["x.test"]);
    own.identity.teams = ["research".to_owned()].into();
    let front = rendered_at(&with(POLICY, [own]), Moment::trusted(NOON), &[]);
    let sources = entries(&front, MapName::Sources);
    let list = |source: &str| sources[source].split('|').nth(4).map(str::to_owned);
    assert!(list("192.168.10.9/32").is_some());
    assert_eq!(list("192.168.10.10/32"), None);
    let both = with(POLICY, [rule(Action::Deny, 1, &["*.a.test"])]);
    let front = rendered_at(&both, Moment::trusted(NOON), &[]);
    assert_eq!(entries(&front, MapName::Rules).len(), 4);
}

#[test]
fn a_live_flow_is_judged_by_what_its_name_led_to_and_its_port() {
    let policy = r#"{"version": 2, "allow": {"domains": ["x.test"], "ports": [80, 443]},
        "proxy": {"mode": "sni-allowlist"}}"#;
    let mut deny = rule(Action::Deny, 1, &[]);
    deny.networks = [Cidr {
        address: [192, 0, 2, 0].into(),
        length: 24,
    }]
    .into();
    deny.ports = [443].into();
    let revision = with(policy, [deny]);
    let index = Index::of(&revision).unwrap();
    let mut live = Live::default();
    for (port, path, site) in [
        (1, "sni", "192.0.2.1"),
        (2, "sni", "198.51.100.1"),
        (3, "host", "192.0.2.1"),
    ] {
        let said = format!(
            "v1 event=open path={path} who=one src=192.168.10.9 sport={port} asked=- aport=- name=x.test reason=- \
             site={site} in=0 out=0 ms=0 end=-- status=0 id=-"
        );
        live.note(&Event::read(said.as_bytes()).unwrap()).unwrap();
    }
    let forbidden = live.forbidden(&index, Moment::trusted(NOON), &over(&[]));
    let ports: Vec<u16> = forbidden.iter().map(|(end, _)| end.source.port()).collect();
    assert_eq!(ports, [1], "{forbidden:?}");
}
