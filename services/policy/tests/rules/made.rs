//! Rules, agents and requests made in a few words.

use std::net::IpAddr;

use clawgress_config::access::{
    Access, Action, Agent, AuthType, IdentityMatch, Rule, RuleMode, Status,
};
use clawgress_config::policy::{Allow, DomainPattern, Policy, Scope};
use clawgress_policy::{
    Card, Decision, Host, Index, Logging, Moment, Network, Request, Revision, Rules, Zone,
};

pub(crate) fn pattern(text: &str) -> DomainPattern {
    DomainPattern::parse(text).unwrap()
}

pub(crate) fn cidr(text: &str) -> clawgress_config::Cidr {
    let (address, length) = text.split_once('/').unwrap();
    clawgress_config::Cidr {
        address: address.parse().unwrap(),
        length: length.parse().unwrap(),
    }
}

pub(crate) fn agent(team: &str, project: &str, environment: &str) -> Agent {
    Agent {
        team_id: team.to_owned(),
        project_id: project.to_owned(),
        environment: environment.to_owned(),
        auth_type: AuthType::ApiKey,
        status: Status::Active,
        sources: [].into(),
        bound: false,
    }
}

pub(crate) fn rule(action: Action, priority: u32, domains: &[&str]) -> Rule {
    Rule {
        version: 3,
        priority,
        enabled: true,
        mode: RuleMode::Enforce,
        identity: IdentityMatch::default(),
        domains: domains.iter().map(|name| pattern(name)).collect(),
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

pub(crate) fn revision(policy: Policy, access: Access) -> Revision {
    Revision {
        number: 7,
        created: 1_764_000_000,
        enabled: true,
        policy,
        network: Network {
            lan: vec![Card {
                name: "eth1".to_owned(),
                addresses: vec![cidr("192.168.10.1/24")],
            }],
            ..Network::default()
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: false,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: Vec::new(),
        access,
    }
}

pub(crate) struct World {
    pub(crate) index: Index,
    pub(crate) rules: Rules,
}

impl World {
    pub(crate) fn of(policy: Policy, access: Access) -> Self {
        let revision = revision(policy, access);
        Self {
            index: Index::of(&revision).unwrap(),
            rules: Rules::compile(&revision.access, &zone()).unwrap(),
        }
    }

    /// With these rules, and policy.json allowing `listed.example` alone.
    pub(crate) fn with(rules: &[(&str, Rule)]) -> Self {
        let access = Access {
            agents: [(
                "agent-1".to_owned(),
                agent("research", "crawler", "production"),
            )]
            .into(),
            rules: rules
                .iter()
                .map(|(id, rule)| ((*id).to_owned(), rule.clone()))
                .collect(),
            ..Access::default()
        };
        Self::of(listed(), access)
    }

    pub(crate) fn decide(&self, request: &Request<'_>) -> Decision<'_> {
        self.rules
            .decide(&self.index, request, Moment::trusted(NOW))
    }
}

/// Thursday noon, 1 January 1970.
pub(crate) const NOW: i64 = 43_200;

pub(crate) fn zone() -> Zone {
    Zone::named("UTC").unwrap()
}

pub(crate) fn listed() -> Policy {
    Policy {
        global: Scope {
            allow: Allow {
                domains: [pattern("listed.example")].into(),
                ips: [cidr("198.51.100.0/24")].into(),
                ..Allow::default()
            },
            ..Scope::default()
        },
        labels: [(pattern("listed.example"), "on the list".to_owned())].into(),
        ..Policy::default()
    }
}

/// CONNECT to port 443 of a name, from nowhere in particular.
pub(crate) fn tunnel(name: &str) -> Request<'_> {
    Request {
        agent_id: "agent-1",
        team_id: "research",
        project_id: "crawler",
        environment: "production",
        source: IpAddr::from([203, 0, 113, 9]),
        host: Host::Name(name),
        port: 443,
        method: Some("CONNECT"),
        path: None,
        tunnel: true,
        resolved: &[],
    }
}

/// A request to port 80 of a name.
pub(crate) fn plain<'a>(name: &'a str, method: &'a str, path: &'a str) -> Request<'a> {
    Request {
        port: 80,
        method: Some(method),
        path: Some(path),
        tunnel: false,
        ..tunnel(name)
    }
}
