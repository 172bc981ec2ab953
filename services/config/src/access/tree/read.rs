//! Words to agents, rules, quotas and settings. Single values are judged by the table; whatever is wrong is left out, so
//! that the rest can be judged all the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::bounds;
use crate::access::model::{
    Access, Action, Agent, AuditSettings, AuthType, Durability, Environment, FailMode, Forward,
    GatewaySettings, IdentityMatch, Issuer, KeySource, Quota, QuotaMode, Quotas, Rule, RuleMode,
    Status, WhenFull,
};
use crate::access::parts;
use crate::access::tree::ROOT;
use crate::cidr::Wrong;
use crate::policy::Period;
use crate::policy::parts as values_of;
use crate::policy::tree::{Reader, one, text, values};
use crate::problem::Problem;
use crate::table::ALGORITHMS;
use crate::tree::{Node, Tree};

/// What a tree holds of it, and why it is not whole.
pub(crate) fn read(tree: &Tree) -> (Access, Vec<Problem>) {
    let mut access = Access::default();
    let mut reader = Reader::at(&ROOT);
    let Some(node) = tree.get(&ROOT) else {
        return (access, Vec::new());
    };
    reader.below("identity", node, |reader, node| {
        identity(reader, node, &mut access);
    });
    access.environments = named(
        &mut reader,
        node,
        "environment",
        parts::identifier,
        |_, _, node| {
            let mode = |word| one(node, word, FailMode::parse).unwrap_or_default();
            Some(Environment {
                identity: mode("identity-fail-mode"),
                policy: mode("policy-fail-mode"),
            })
        },
    );
    access.agents = named(&mut reader, node, "agent", parts::agent_id, agent);
    access.rules = named(&mut reader, node, "rule", parts::policy_id, rule);
    reader.below("quota", node, |reader, node| {
        access.quotas = quotas(reader, node);
    });
    if let Some(node) = node.get("gateway") {
        access.gateway = gateway(node);
    }
    reader.below("audit", node, |reader, node| {
        access.audit = audit(reader, node);
    });
    (access, reader.problems)
}

/// The named parts below a word, without those that are not whole.
fn named<T>(
    reader: &mut Reader,
    node: &Node,
    word: &str,
    sound: fn(&str) -> Result<(), Wrong>,
    each: impl Fn(&mut Reader, &str, &Node) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut read = BTreeMap::new();
    reader.below(word, node, |reader, node| {
        for (name, child) in node.in_order() {
            let value = reader.below_node(name, child, |reader, child| each(reader, name, child));
            if let Some(value) = value
                && sound(name).is_ok()
            {
                read.insert(name.to_owned(), value);
            }
        }
    });
    read
}

fn has(node: &Node, word: &str) -> bool {
    node.get(word).is_some()
}

fn id(node: &Node, word: &str) -> Option<String> {
    one(node, word, text(parts::identifier))
}

fn number(node: &Node, word: &str, least: u32, most: u32) -> Option<u32> {
    one(node, word, |text| parts::number(text, least, most))
}

fn words(node: &Node, word: &str, sound: fn(&str) -> Result<(), Wrong>) -> BTreeSet<String> {
    values(node, word)
        .into_iter()
        .filter(|(text, _)| sound(text).is_ok())
        .map(|(text, _)| text.to_owned())
        .collect()
}

fn identity(reader: &mut Reader, node: &Node, access: &mut Access) {
    access.strict = has(node, "strict");
    access.client_ca = one(node, "client-ca", text(values_of::file));
    access.client_crl = one(node, "client-crl", text(values_of::file));
    access.issuers = named(
        reader,
        node,
        "issuer",
        parts::identifier,
        |reader, _, node| issuer(reader, node),
    );
}

fn issuer(reader: &mut Reader, node: &Node) -> Option<Issuer> {
    let whole = reader.complete(node, &["issuer", "audience", "algorithm"]);
    let given: Vec<&str> = ["key-file", "key-url", "own"]
        .into_iter()
        .filter(|word| has(node, word))
        .collect();
    if given.len() != 1 {
        let what = if given.is_empty() {
            "nothing says where its keys are".to_owned()
        } else {
            format!(
                "its keys are given in {} ways: {}",
                given.len(),
                given.join(", ")
            )
        };
        reader.report(node, what, "write one of: key-file, key-url, own");
        return None;
    }
    let keys = if has(node, "own") {
        KeySource::Own
    } else if let Some(file) = one(node, "key-file", text(values_of::file)) {
        KeySource::File(file)
    } else {
        KeySource::Url(one(node, "key-url", text(parts::url))?)
    };
    if has(node, "key-ca") && !matches!(keys, KeySource::Url(_)) {
        reader.report(
            node,
            "authorities are given for keys that nobody fetches".to_owned(),
            "write key-url beside key-ca, or remove key-ca",
        );
        return None;
    }
    let algorithms: BTreeSet<String> = values(node, "algorithm")
        .into_iter()
        .filter(|(word, _)| ALGORITHMS.contains(word))
        .map(|(word, _)| word.to_owned())
        .collect();
    let mut claims = BTreeMap::new();
    if let Some(node) = node.get("claim") {
        for (word, field) in CLAIMS {
            if let Some(claim) = one(node, word, text(parts::token)) {
                claims.insert((*field).to_owned(), claim);
            }
        }
    }
    (whole && !algorithms.is_empty()).then_some(())?;
    Some(Issuer {
        issuer: one(node, "issuer", text(parts::token))?,
        audience: one(node, "audience", text(parts::token))?,
        algorithms,
        keys,
        key_ca: one(node, "key-ca", text(values_of::file)),
        leeway_seconds: number(node, "leeway", 0, bounds::MAX_LEEWAY).unwrap_or(DEFAULT_LEEWAY),
        claims,
    })
}

/// The words of the configuration, and the fields of the model, that claims are given for.
pub(super) const CLAIMS: &[(&str, &str)] = &[
    ("agent", "agent_id"),
    ("team", "team_id"),
    ("project", "project_id"),
    ("environment", "environment"),
];
pub(super) const DEFAULT_LEEWAY: u32 = 30;
pub(super) const DEFAULT_PRIORITY: u32 = 1_000;

fn agent(reader: &mut Reader, _: &str, node: &Node) -> Option<Agent> {
    let whole = reader.complete(node, &["team", "project", "environment", "auth-type"]);
    let sources = reader.networks(node, "source", values_of::source);
    Some(Agent {
        team_id: id(node, "team")?,
        project_id: id(node, "project")?,
        environment: id(node, "environment")?,
        auth_type: one(node, "auth-type", AuthType::parse)?,
        status: one(node, "status", Status::parse).unwrap_or(Status::Active),
        sources,
        bound: has(node, "source-bound"),
    })
    .filter(|_| whole)
}

fn rule(reader: &mut Reader, _: &str, node: &Node) -> Option<Rule> {
    let whole = reader.complete(node, &["action"]);
    let time_window = reader.window(node);
    let mut identity = IdentityMatch::default();
    if let Some(node) = node.get("identity") {
        let ids = |word| words(node, word, parts::identity);
        identity = IdentityMatch {
            agents: ids("agent"),
            teams: ids("team"),
            projects: ids("project"),
            environments: ids("environment"),
        };
        // An allowance whose last agent was deleted must not become everybody's.
        if identity == IdentityMatch::default() {
            reader.below_node("identity", node, |reader, node| {
                reader.report(
                    node,
                    "it names nobody, which would mean everybody".to_owned(),
                    "add the agents, teams, projects or environments that are meant, or delete identity".to_owned(),
                );
            });
        }
    }
    let domains = reader.domains(node, |_, _, _| ()).into_keys().collect();
    let networks = reader.networks(node, "network", values_of::network);
    let ports = values(node, "port")
        .into_iter()
        .filter_map(|(text, _)| crate::value::port(text).ok())
        .collect();
    // A window that could not be read must not become a rule that holds at all times.
    let whole = whole && (time_window.is_some() || !has(node, "time-window"));
    Some(Rule {
        version: number(node, "version", 1, u32::MAX).unwrap_or(1),
        priority: number(node, "priority", 0, bounds::MAX_PRIORITY).unwrap_or(DEFAULT_PRIORITY),
        enabled: !has(node, "disable"),
        mode: one(node, "mode", RuleMode::parse).unwrap_or(RuleMode::Enforce),
        identity,
        domains,
        networks,
        ports,
        methods: words(node, "method", parts::method),
        path_prefixes: words(node, "path-prefix", parts::path_prefix),
        time_window,
        action: one(node, "action", Action::parse)?,
        alert: has(node, "alert"),
        plain_tunnel: has(node, "plain-tunnel"),
        upgrade: has(node, "upgrade"),
        label: one(node, "label", text(values_of::label)),
    })
    .filter(|_| whole)
}

fn quotas(reader: &mut Reader, node: &Node) -> Quotas {
    Quotas {
        agents: named(reader, node, "agent", parts::identifier, quota),
        teams: named(reader, node, "team", parts::identifier, quota),
        projects: named(reader, node, "project", parts::identifier, quota),
        fail: one(node, "fail-mode", FailMode::parse_quota).unwrap_or_default(),
    }
}

fn quota(reader: &mut Reader, _: &str, node: &Node) -> Option<Quota> {
    let mut bytes = None;
    if (has(node, "bytes") || has(node, "period")) && reader.complete(node, &["bytes", "period"]) {
        let most = one(node, "bytes", |text| {
            values_of::whole(text).and_then(values_of::cap_bytes)
        });
        bytes = Some((most?, one(node, "period", Period::parse)?));
    }
    Some(Quota {
        rps: number(node, "rps", 1, bounds::MAX_RATE),
        rpm: number(node, "rpm", 1, bounds::MAX_RATE),
        mode: one(node, "mode", QuotaMode::parse).unwrap_or_default(),
        connections: number(node, "connections", 1, bounds::MAX_CONNECTIONS),
        bytes,
    })
}

fn gateway(node: &Node) -> GatewaySettings {
    let default = GatewaySettings::default();
    let port = |word| one(node, word, crate::value::port);
    let within = |word, least, most, default| number(node, word, least, most).unwrap_or(default);
    GatewaySettings {
        enabled: has(node, "enable"),
        port: port("port").unwrap_or(default.port),
        tls_port: port("tls-port"),
        contact: one(node, "contact", |word| {
            crate::value::Value::Text
                .check(word)
                .map(|()| word.to_owned())
        }),
        connections: within(
            "connections",
            1,
            bounds::MAX_CONNECTIONS,
            default.connections,
        ),
        connections_per_agent: within(
            "connections-per-agent",
            1,
            bounds::MAX_CONNECTIONS,
            default.connections_per_agent,
        ),
        connect_timeout_seconds: within("connect-timeout", 1, 300, default.connect_timeout_seconds),
        idle_timeout_seconds: within("idle-timeout", 1, 86_400, default.idle_timeout_seconds),
        drain_seconds: within("drain", 0, 3_600, default.drain_seconds),
    }
}

fn audit(reader: &mut Reader, node: &Node) -> AuditSettings {
    let default = AuditSettings::default();
    let mut forward = |word, parse: fn(&str) -> Result<String, Wrong>| {
        let mut read = None;
        reader.below(word, node, |reader, node| {
            if reader.complete(node, &["to"]) {
                read = one(node, "to", parse).map(|to| Forward {
                    address: to.parse().ok(),
                    to,
                    ca: one(node, "ca", text(values_of::file)),
                });
            }
        });
        read
    };
    AuditSettings {
        syslog: forward("syslog", values_of::backend),
        otlp: forward("otlp", |word| parts::url(word).map(|()| word.to_owned())),
        durability: one(node, "durability", Durability::parse).unwrap_or_default(),
        when_full: one(node, "when-full", WhenFull::parse).unwrap_or_default(),
        retain_days: number(node, "retain-days", 1, 36_500).unwrap_or(default.retain_days),
        retain_bytes: one(node, "retain-bytes", |text| {
            values_of::whole(text).and_then(values_of::cap_bytes)
        })
        .unwrap_or(default.retain_bytes),
    }
}
