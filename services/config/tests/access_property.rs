//! A property: all agents, rules, quotas and settings survive tree, text and JSON.

use std::collections::BTreeMap;

use clawgress_config::access::{
    Access, Action, Agent, AuditSettings, AuthType, Durability, Environment, FailMode, Forward,
    GatewaySettings, IdentityMatch, Issuer, KeySource, Quota, QuotaMode, Quotas, Rule, RuleMode,
    Status, WhenFull,
};
use clawgress_config::policy::{Day, DomainPattern, Period, TimeOfDay, TimeWindow};
use clawgress_config::{Cidr, Tree, curly, load, set_lines};
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use proptest::sample::select;

fn id() -> impl Strategy<Value = String> {
    "[a-z0-9][a-zA-Z0-9._-]{0,6}"
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    select(all.to_vec())
}

fn network() -> impl Strategy<Value = Cidr> {
    (any::<u32>(), 1_u8..=32).prop_map(|(bits, length)| {
        Cidr {
            // No loopback, no multicast: it must be good as a source, too.
            address: std::net::Ipv4Addr::from(bits & 0x3fff_ffff).into(),
            length,
        }
        .network()
    })
}

fn window() -> impl Strategy<Value = TimeWindow> {
    let days = btree_set(select(Day::ALL.to_vec()), 1..=7);
    (days, 0_u16..1440, 0_u16..=1440)
        .prop_filter("a window has a length", |(_, start, end)| start != end)
        .prop_map(|(days, start, end)| TimeWindow {
            days,
            start: TimeOfDay(start),
            end: TimeOfDay(end),
        })
}

prop_compose! {
    fn agent()(
        team_id in id(), project_id in id(), environment in id(),
        auth_type in one_of(AuthType::ALL), status in one_of(Status::ALL),
    ) -> Agent {
        Agent { team_id, project_id, environment, auth_type, status, sources: [].into(), bound: false }
    }
}

prop_compose! {
    fn identity()(
        agents in btree_set("[a-z*][a-z*-]{0,4}", 0..3), teams in btree_set(id(), 0..2),
        projects in btree_set(id(), 0..2), environments in btree_set(id(), 0..2),
    ) -> IdentityMatch {
        IdentityMatch { agents, teams, projects, environments }
    }
}

prop_compose! {
    fn rule()(
        numbers in (1_u32.., 0_u32..=1_000_000),
        flags in any::<[bool; 4]>(),
        mode in one_of(RuleMode::ALL), action in one_of(Action::ALL),
        identity in identity(),
        domains in btree_set("(\\*\\.)?[a-z]{1,5}\\.example", 0..3),
        networks in btree_set(network(), 0..3),
        ports in btree_set(1_u16.., 0..3),
        seen in prop_oneof![
            Just((Vec::new(), Vec::new())),
            Just((vec!["CONNECT"], Vec::new())),
            Just((vec!["GET", "POST"], vec!["/v1/", "/a%3Ab"])),
        ],
        time_window in prop::option::of(window()),
        label in prop::option::of("[a-zäöü][a-z \"\\\\{}/*#;]{0,10}"),
    ) -> Rule {
        // Method and path are for destinations without TLS alone.
        let judged = !seen.1.is_empty();
        Rule {
            version: numbers.0, priority: numbers.1, enabled: flags[0], mode, identity,
            domains: domains.iter().map(|name| DomainPattern::parse(name).unwrap()).collect(),
            networks,
            ports: if judged { [80, 8080].into() } else { ports },
            methods: seen.0.into_iter().map(str::to_owned).collect(),
            path_prefixes: seen.1.into_iter().map(str::to_owned).collect(),
            time_window, action, alert: flags[1], plain_tunnel: flags[2], upgrade: flags[3], label,
        }
    }
}

prop_compose! {
    fn quota()(
        rps in prop::option::of(1_u32..=10_000_000), rpm in prop::option::of(1_u32..=10_000_000),
        mode in one_of(QuotaMode::ALL), connections in prop::option::of(1_u32..=1_000_000),
        bytes in prop::option::of((1_u64..=1 << 60, select(Period::ALL.to_vec()))),
    ) -> Quota {
        Quota { rps, rpm, mode, connections, bytes }
    }
}

prop_compose! {
    fn issuer()(
        audience in "[!-~]{1,20}", leeway_seconds in 0_u32..=300,
        algorithms in btree_set(select(vec!["EdDSA", "ES256", "RS256"]), 1..=3),
        keys in prop_oneof![
            Just(KeySource::Own),
            Just(KeySource::File("/config/keys/login.jwks".to_owned())),
            Just(KeySource::Url("https://login.example.com/keys".to_owned())),
        ],
        ca in prop::option::of(Just("/config/keys/login.pem".to_owned())),
        claims in btree_map(
            select(vec!["agent_id", "team_id", "project_id", "environment"]), "[!-~]{1,20}", 0..4,
        ),
    ) -> Issuer {
        Issuer {
            issuer: String::new(), audience, leeway_seconds,
            key_ca: ca.filter(|_| matches!(keys, KeySource::Url(_))),
            keys,
            algorithms: algorithms.into_iter().map(str::to_owned).collect(),
            claims: claims.into_iter().map(|(field, claim)| (field.to_owned(), claim)).collect(),
        }
    }
}

fn issuers() -> impl Strategy<Value = BTreeMap<String, Issuer>> {
    btree_map(id(), issuer(), 0..3).prop_map(|mut issuers| {
        for (name, issuer) in &mut issuers {
            issuer.issuer = format!("https://{name}.example/");
        }
        issuers
    })
}

prop_compose! {
    fn settings()(
        enabled in any::<bool>(), tls_port in prop::option::of(4_000_u16..),
        contact in prop::option::of("[a-z][a-z @.]{0,12}"),
        numbers in (1_u32..=1_000_000, 1_u32..=1_000_000, 1_u32..=300, 1_u32..=86_400, 0_u32..=3_600),
        durability in one_of(Durability::ALL), when_full in one_of(WhenFull::ALL),
        retain in (1_u32..=36_500, 1_u64..=1 << 60),
        forwards in any::<[bool; 2]>(),
        default in any::<[bool; 2]>(),
    ) -> (GatewaySettings, AuditSettings) {
        let forward = |to: &str| Forward {
            to: to.to_owned(), ca: Some("/config/ca.pem".to_owned()), address: to.parse().ok(),
        };
        let gateway = GatewaySettings {
            enabled, port: 3_999, tls_port, contact, connections: numbers.0, connections_per_agent: numbers.1,
            connect_timeout_seconds: numbers.2, idle_timeout_seconds: numbers.3, drain_seconds: numbers.4,
        };
        let audit = AuditSettings {
            durability, when_full, retain_days: retain.0, retain_bytes: retain.1,
            syslog: forwards[0].then(|| forward("192.0.2.7:6514")),
            otlp: forwards[1].then(|| forward("https://collector.example/v1/logs")),
        };
        (
            if default[0] { GatewaySettings::default() } else { gateway },
            if default[1] { AuditSettings::default() } else { audit },
        )
    }
}

prop_compose! {
    fn access()(
        mut agents in btree_map(id(), agent(), 0..4),
        sources in btree_set(network(), 0..8), bound in any::<bool>(),
        rules in btree_map(id(), rule(), 0..5),
        quotas in (btree_map(id(), quota(), 0..3), btree_map(id(), quota(), 0..3), btree_map(id(), quota(), 0..3)),
        fail in one_of(FailMode::ALL),
        issuers in issuers(),
        files in any::<[bool; 2]>(), strict in any::<bool>(),
        environments in btree_map(id(), (one_of(FailMode::ALL), one_of(FailMode::ALL)), 0..3),
        (gateway, audit) in settings(),
    ) -> Access {
        let count = agents.len();
        for (number, source) in sources.into_iter().enumerate() {
            if let Some(agent) = number.checked_rem(count).and_then(|at| agents.values_mut().nth(at)) {
                agent.sources.insert(source);
                agent.bound = bound;
            }
        }
        Access {
            agents,
            rules: rules.into_iter().filter(|(id, _)| id != "policy.json" && id != "default-deny").collect(),
            quotas: Quotas { agents: quotas.0, teams: quotas.1, projects: quotas.2, fail },
            issuers,
            client_ca: files[0].then(|| "/config/agents.pem".to_owned()),
            client_crl: (files[0] && files[1]).then(|| "/config/agents.crl".to_owned()),
            environments: environments
                .into_iter()
                .map(|(name, (identity, policy))| (name, Environment { identity, policy }))
                .collect(),
            strict, gateway, audit,
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_lost(access in access()) {
        let mut tree = Tree::default();
        tree.set(&["service", "clawgress", "enable"]).unwrap();
        tree.set_access(&access);
        for text in [curly(&tree), set_lines(&tree)] {
            let loaded = load(text.as_bytes())
                .map_err(|invalid| TestCaseError::fail(format!("{invalid}\n{text}")))?;
            let read = loaded.document.clawgress.unwrap().access;
            prop_assert_eq!(&read, &access);
            prop_assert_eq!(&loaded.tree, &tree);
        }
        // Written over what was there, it is the same tree.
        let before = tree.clone();
        tree.set_access(&access);
        prop_assert_eq!(&tree, &before);
        let json = serde_json::to_string(&access).unwrap();
        let read = Access::from_json(&json)
            .map_err(|error| TestCaseError::fail(format!("{error}\n{json}")))?;
        prop_assert_eq!(&read, &access);
        prop_assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }

    #[test]
    fn no_json_makes_the_reader_panic(text in "[\\[\\]{}\":,a-z0-9_./*]{0,80}") {
        Access::from_json(&text).ok();
    }
}
