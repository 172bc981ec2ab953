//! What is right in each of its parts and yet wrong, or hardly meant, in agents, rules, quotas and settings together.
//!
//! An error is what would leave somebody less restricted than the configuration reads; what is only useless is a
//! warning. Method and path of what runs inside TLS can't be seen: a rule that relies on them is refused, not skipped.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::model::{
    Access, Action, Agent, AuthType, IdentityMatch, KeySource, Quota, Rule, RuleMode,
};
use crate::cidr::{Cidr, Wrong};
use crate::parse::MAX_PROBLEMS;
use crate::policy::Policy;

/// Where TLS is spoken, so that nothing but the name can be seen.
const TLS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;
const DNS_PORT: u16 = 53;

#[derive(Debug, Clone)]
pub(crate) struct Finding {
    /// Words below `service clawgress`.
    pub(crate) path: Vec<String>,
    /// An error, or else a warning.
    pub(crate) grave: bool,
    pub(crate) wrong: Wrong,
}

/// With `doubt` something was written that could not be understood: then nothing is said about what is missing.
pub(crate) fn findings(access: &Access, policy: &Policy, doubt: bool) -> Vec<Finding> {
    let mut check = Check {
        doubt,
        findings: Vec::new(),
    };
    check.sources(access, policy);
    check.credentials(access);
    for (id, rule) in &access.rules {
        check.rule(id, rule, access);
    }
    check.quotas(access, policy);
    check.gateway(access);
    check.findings
}

struct Check {
    doubt: bool,
    findings: Vec<Finding>,
}

impl Check {
    fn add(&mut self, grave: bool, path: &[&str], what: impl Into<String>, fix: impl Into<String>) {
        let known = self.findings.iter().filter(|known| known.grave == grave);
        if known.count() < MAX_PROBLEMS {
            self.findings.push(Finding {
                path: path.iter().map(|&word| word.to_owned()).collect(),
                grave,
                wrong: Wrong::new(what, fix),
            });
        }
    }

    fn error(&mut self, path: &[&str], what: impl Into<String>, fix: impl Into<String>) {
        self.add(true, path, what, fix);
    }

    /// Of what is missing or useless; not while something could not be understood.
    fn warn(&mut self, path: &[&str], what: impl Into<String>, fix: impl Into<String>) {
        if !self.doubt {
            self.add(false, path, what, fix);
        }
    }

    /// Of overlapping sources the more specific wins; of equal ones neither could.
    fn sources(&mut self, access: &Access, policy: &Policy) {
        let mut owners: BTreeMap<Cidr, &str> = BTreeMap::new();
        for (name, host) in &policy.hosts {
            for &source in &host.sources {
                owners.entry(source).or_insert(name);
            }
        }
        for (id, agent) in &access.agents {
            for &source in &agent.sources {
                // An agent of the same name as a host is that host.
                if let Some(owner) = owners.insert(source, id).filter(|owner| owner != id) {
                    self.error(
                        &["agent", id, "source", &source.to_string()],
                        format!(
                            "{source} is a source of {owner}, too: nothing says whose a packet is"
                        ),
                        format!("keep it in {owner} or in {id}, or write a longer prefix"),
                    );
                }
            }
            self.scattered(id, agent, policy);
            if agent.bound && agent.sources.is_empty() && !self.doubt {
                self.error(
                    &["agent", id, "source-bound"],
                    "the agent is bound to its sources, and has none",
                    "add a source, or remove source-bound",
                );
            }
        }
    }

    /// The lists of the host around an agent's address bind the agent: all of its addresses must lie in the same one.
    fn scattered(&mut self, id: &str, agent: &Agent, policy: &Policy) {
        if policy.hosts.contains_key(id) {
            return;
        }
        let around = |source: &Cidr| {
            let sources = policy.hosts.iter().flat_map(|(name, host)| {
                let all = host.sources.iter();
                all.map(move |outer| (outer, name.as_str()))
            });
            sources
                .filter(|(outer, _)| outer.length <= source.length && outer.overlaps(source))
                .max_by_key(|(outer, _)| outer.length)
                .map(|(_, name)| name)
        };
        let mut sources = agent.sources.iter().map(|source| (source, around(source)));
        let Some((first, place)) = sources.next() else {
            return;
        };
        if let Some((second, other)) = sources.find(|(_, other)| *other != place) {
            let told = |host: Option<&str>| {
                host.map_or("no host".to_owned(), |name| format!("host {name}"))
            };
            self.error(
                &["agent", id, "source", &second.to_string()],
                format!(
                    "{second} lies in {}, and {first} in {}: nothing says whose lists bind the agent",
                    told(other),
                    told(place)
                ),
                "keep its sources in one place, or make two agents of it",
            );
        }
    }

    fn credentials(&mut self, access: &Access) {
        let mut issuers: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, issuer) in &access.issuers {
            if let Some(first) = issuers.insert(&issuer.issuer, name) {
                self.error(
                    &["identity", "issuer", name, "issuer"],
                    format!("`{}` is the issuer of {first}, too", issuer.issuer),
                    "keep one of them, with the algorithms and keys of both",
                );
            }
            if let KeySource::Url(url) = &issuer.keys
                && !url.starts_with("https://")
            {
                self.error(
                    &["identity", "issuer", name, "key-url"],
                    "keys fetched without TLS could be anybody's",
                    "write a URL that begins with https://",
                );
            }
            let here = issuer.keys.endpoint().and_then(|server| server.address());
            if here.is_some_and(|address| address.is_loopback() || address.is_unspecified()) {
                self.error(
                    &["identity", "issuer", name, "key-url"],
                    "this machine serves nobody's keys",
                    "write the URL of the issuer's own server, or key-file",
                );
            }
        }
        if access.client_crl.is_some() && access.client_ca.is_none() && !self.doubt {
            self.error(
                &["identity", "client-crl"],
                "certificates are revoked here, and none is trusted",
                "add identity client-ca",
            );
        }
        let first = |kind| {
            let of_kind = |(_, agent): &(&String, &Agent)| agent.auth_type == kind;
            access.agents.iter().find(of_kind).map(|(id, _)| id)
        };
        if let Some(id) = first(AuthType::Certificate)
            && access.client_ca.is_none()
        {
            self.warn(
                &["agent", id, "auth-type"],
                "no certificate is trusted, so that the agent can't say who it is",
                "add identity client-ca",
            );
        }
        if let Some(id) = first(AuthType::Jwt)
            && access.issuers.is_empty()
        {
            self.warn(
                &["agent", id, "auth-type"],
                "no issuer of tokens is trusted, so that the agent can't say who it is",
                "add identity issuer",
            );
        }
    }

    fn rule(&mut self, id: &str, rule: &Rule, access: &Access) {
        self.inspection(id, rule);
        let allows = rule.action == Action::Allow;
        if rule.mode == RuleMode::Report && allows {
            self.warn(
                &["rule", id, "mode"],
                "a rule that allows does so in mode report as well: only denials are softened",
                "remove the mode, or disable the rule to try the policy without it",
            );
        }
        for (word, set) in [
            ("plain-tunnel", rule.plain_tunnel),
            ("upgrade", rule.upgrade),
        ] {
            if set && !allows {
                self.warn(
                    &["rule", id, word],
                    format!("{word} is a permission, and the rule denies"),
                    format!("remove {word}, or write it in the rule that allows"),
                );
            }
        }
        let anywhere = rule.domains.is_empty() && rule.networks.is_empty();
        if anywhere && allows {
            self.warn(
                &["rule", id],
                "the rule allows every destination there is",
                "add the domains or networks that are meant",
            );
        }
        for name in &rule.domains {
            if let Some(Wrong { what, right }) = name.doubtful().filter(|_| allows) {
                self.warn(&["rule", id, "domain", name.as_str()], what, right);
            }
        }
        if !rule.domains.is_empty() && !rule.networks.is_empty() && allows {
            self.warn(
                &["rule", id, "network"],
                "networks of a rule that allows are for requests by address alone; its domains may lead anywhere",
                "write the networks that names must not lead to in a rule that denies",
            );
        }
        self.nobody(id, &rule.identity, access);
    }

    /// What a rule says of method and path must be visible wherever the rule is to hold.
    fn inspection(&mut self, id: &str, rule: &Rule) {
        let hidden = if rule.path_prefixes.is_empty() {
            let beyond_tunnels = rule.methods.iter().any(|method| method != "CONNECT");
            beyond_tunnels.then_some("method")
        } else {
            Some("path-prefix")
        };
        let Some(word) = hidden else { return };
        if rule.methods.iter().eq(["CONNECT"]) {
            self.error(
                &["rule", id, "path-prefix"],
                "a tunnel has no path: the rule cannot be enforced without inspection",
                "remove the path prefixes, or the method CONNECT",
            );
            return;
        }
        if rule.ports.is_empty() || rule.ports.contains(&TLS_PORT) {
            self.error(
                &["rule", id, word],
                format!(
                    "{word} of what runs inside TLS cannot be seen: on port 443 the rule cannot be enforced without \
                     inspection"
                ),
                if rule.ports.is_empty() {
                    "add port 80 for plain HTTP, or judge the destination alone"
                } else {
                    "remove port 443, or judge the destination alone"
                },
            );
        } else if let Some(port) = rule.ports.iter().find(|port| **port != HTTP_PORT) {
            let effect = match rule.action {
                Action::Allow => "the rule allows no tunnel there",
                Action::Deny => "the rule denies every tunnel there",
            };
            self.warn(
                &["rule", id, "port", &port.to_string()],
                format!("{word} of what runs in a tunnel to port {port} cannot be seen; {effect}"),
                "judge the destination alone, if that is not meant",
            );
        }
    }

    /// Ids without a star that no agent has are typos more often than plans.
    fn nobody(&mut self, id: &str, identity: &IdentityMatch, access: &Access) {
        if access.agents.is_empty() {
            return;
        }
        let unknown = |written: &BTreeSet<String>, field: fn(&Agent) -> &str| {
            let plain = written.iter().filter(|word| !word.contains('*'));
            plain
                .take(MAX_PROBLEMS)
                .find(|word| {
                    !access
                        .agents
                        .values()
                        .any(|agent| field(agent) == word.as_str())
                })
                .cloned()
        };
        let known_agent =
            |word: &&String| !word.contains('*') && !access.agents.contains_key(*word);
        for (word, found) in [
            ("agent", identity.agents.iter().find(known_agent).cloned()),
            ("team", unknown(&identity.teams, |agent| &agent.team_id)),
            (
                "project",
                unknown(&identity.projects, |agent| &agent.project_id),
            ),
            (
                "environment",
                unknown(&identity.environments, |agent| &agent.environment),
            ),
        ] {
            if let Some(found) = found {
                self.warn(
                    &["rule", id, "identity", word, &found],
                    format!("no agent has the {word} {found}"),
                    "check the spelling",
                );
            }
        }
    }

    fn quotas(&mut self, access: &Access, policy: &Policy) {
        for (word, quotas) in [
            ("agent", &access.quotas.agents),
            ("team", &access.quotas.teams),
            ("project", &access.quotas.projects),
        ] {
            for (id, quota) in quotas {
                if limits_nothing(quota) {
                    self.warn(
                        &["quota", word, id],
                        "the quota limits nothing",
                        "add rps, rpm, connections or bytes",
                    );
                }
            }
        }
        let known =
            |id: &&String| access.agents.contains_key(*id) || policy.hosts.contains_key(*id);
        if let Some(id) = access.quotas.agents.keys().find(|id| !known(id)) {
            self.warn(
                &["quota", "agent", id],
                format!("there is no agent and no host {id}"),
                "check the spelling",
            );
        }
    }

    fn gateway(&mut self, access: &Access) {
        let gateway = &access.gateway;
        if gateway.tls_port == Some(gateway.port) {
            self.error(
                &["gateway", "tls-port"],
                format!("port {} is that of the proxy without TLS", gateway.port),
                "write two different ports",
            );
        }
        for (word, port) in [("port", Some(gateway.port)), ("tls-port", gateway.tls_port)] {
            if port == Some(DNS_PORT) {
                self.error(
                    &["gateway", word],
                    "port 53 is that of this machine's resolver",
                    "write another port, such as 3128",
                );
            }
        }
        if gateway.connections_per_agent > gateway.connections {
            self.warn(
                &["gateway", "connections-per-agent"],
                "one agent alone may take all connections",
                "write a smaller number than connections",
            );
        }
        if gateway.enabled && access.agents.is_empty() {
            self.warn(
                &["gateway", "enable"],
                "the proxy has no agents: every request is denied",
                "add agent <id>",
            );
        }
        let otlp = access.audit.otlp.as_ref();
        if otlp.is_some_and(|forward| forward.to.starts_with("http://")) {
            self.warn(
                &["audit", "otlp", "to"],
                "events are sent without TLS: whoever is on the way can read and change them",
                "write a URL that begins with https://",
            );
        }
    }
}

fn limits_nothing(quota: &Quota) -> bool {
    quota.rps.is_none()
        && quota.rpm.is_none()
        && quota.connections.is_none()
        && quota.bytes.is_none()
}
