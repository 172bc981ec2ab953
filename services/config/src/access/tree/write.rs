//! Agents, rules, quotas and settings to words, in one canonical way: what has its default is not written.

use std::collections::BTreeSet;

use crate::access::model::{
    Access, Agent, AuditSettings, Environment, FailMode, Forward, GatewaySettings, Issuer,
    KeySource, Quota, QuotaMode, Rule, RuleMode, Status,
};
use crate::access::tree::ROOT;
use crate::access::tree::read::{CLAIMS, DEFAULT_LEEWAY};
use crate::tree::Tree;

pub(super) fn write(tree: &mut Tree, access: &Access) {
    let mut writer = Writer {
        tree,
        path: ROOT.map(str::to_owned).into(),
    };
    writer.identity(access);
    for (name, environment) in &access.environments {
        writer.below(&["environment", name], |writer| {
            writer.environment(*environment)
        });
    }
    for (name, agent) in &access.agents {
        writer.below(&["agent", name], |writer| writer.agent(agent));
    }
    for (name, rule) in &access.rules {
        writer.below(&["rule", name], |writer| writer.rule(rule));
    }
    let quotas = &access.quotas;
    if quotas.fail != FailMode::default() {
        writer.add(&["quota", "fail-mode", quotas.fail.quota_word()]);
    }
    for (word, quotas) in [
        ("agent", &quotas.agents),
        ("team", &quotas.teams),
        ("project", &quotas.projects),
    ] {
        for (name, quota) in quotas {
            writer.below(&["quota", word, name], |writer| writer.quota(quota));
        }
    }
    writer.gateway(&access.gateway);
    writer.audit(&access.audit);
}

struct Writer<'t> {
    tree: &'t mut Tree,
    path: Vec<String>,
}

impl Writer<'_> {
    fn add(&mut self, words: &[&str]) {
        let path = self.path.iter().map(String::as_str);
        let path = path.chain(words.iter().copied());
        self.tree.insert(path.map(|word| (word, None)));
    }

    fn below(&mut self, words: &[&str], write: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.extend(words.iter().map(|&word| word.to_owned()));
        self.add(&[]);
        write(self);
        self.path.truncate(length);
    }

    fn flag(&mut self, words: &[&str], set: bool) {
        if set {
            self.add(words);
        }
    }

    fn text(&mut self, words: &[&str], value: Option<&str>) {
        if let Some(value) = value {
            self.add(&[words, &[value]].concat());
        }
    }

    /// Written unless it is the default.
    fn number<T: PartialEq + ToString>(&mut self, words: &[&str], value: &T, default: &T) {
        if value != default {
            self.add(&[words, &[&value.to_string()]].concat());
        }
    }

    fn all<T: ToString>(&mut self, words: &[&str], values: &BTreeSet<T>) {
        for value in values {
            self.add(&[words, &[&value.to_string()]].concat());
        }
    }

    fn identity(&mut self, access: &Access) {
        self.flag(&["identity", "strict"], access.strict);
        self.text(&["identity", "client-ca"], access.client_ca.as_deref());
        self.text(&["identity", "client-crl"], access.client_crl.as_deref());
        for (name, issuer) in &access.issuers {
            self.below(&["identity", "issuer", name], |writer| {
                writer.issuer(issuer)
            });
        }
    }

    fn issuer(&mut self, issuer: &Issuer) {
        self.add(&["issuer", &issuer.issuer]);
        self.add(&["audience", &issuer.audience]);
        self.all(&["algorithm"], &issuer.algorithms);
        match &issuer.keys {
            KeySource::File(file) => self.add(&["key-file", file]),
            KeySource::Url(url) => self.add(&["key-url", url]),
            KeySource::Own => self.add(&["own"]),
        }
        self.text(&["key-ca"], issuer.key_ca.as_deref());
        self.number(&["leeway"], &issuer.leeway_seconds, &DEFAULT_LEEWAY);
        for (word, field) in CLAIMS {
            let claim = issuer.claims.get(*field).map(String::as_str);
            self.text(&["claim", *word], claim);
        }
    }

    fn environment(&mut self, environment: Environment) {
        for (word, mode) in [
            ("identity-fail-mode", environment.identity),
            ("policy-fail-mode", environment.policy),
        ] {
            if mode != FailMode::default() {
                self.add(&[word, mode.word()]);
            }
        }
    }

    fn agent(&mut self, agent: &Agent) {
        self.add(&["team", &agent.team_id]);
        self.add(&["project", &agent.project_id]);
        self.add(&["environment", &agent.environment]);
        self.add(&["auth-type", agent.auth_type.word()]);
        if agent.status != Status::Active {
            self.add(&["status", agent.status.word()]);
        }
        self.all(&["source"], &agent.sources);
        self.flag(&["source-bound"], agent.bound);
    }

    fn rule(&mut self, rule: &Rule) {
        self.add(&["priority", &rule.priority.to_string()]);
        self.add(&["version", &rule.version.to_string()]);
        if rule.mode != RuleMode::Enforce {
            self.add(&["mode", rule.mode.word()]);
        }
        self.flag(&["disable"], !rule.enabled);
        self.add(&["action", rule.action.word()]);
        self.flag(&["alert"], rule.alert);
        self.text(&["label"], rule.label.as_deref());
        self.all(&["identity", "agent"], &rule.identity.agents);
        self.all(&["identity", "team"], &rule.identity.teams);
        self.all(&["identity", "project"], &rule.identity.projects);
        self.all(&["identity", "environment"], &rule.identity.environments);
        self.all(&["domain"], &rule.domains);
        self.all(&["network"], &rule.networks);
        self.all(&["port"], &rule.ports);
        self.all(&["method"], &rule.methods);
        self.all(&["path-prefix"], &rule.path_prefixes);
        if let Some(window) = &rule.time_window {
            for day in &window.days {
                self.add(&["time-window", "day", day.word()]);
            }
            self.add(&["time-window", "start", &window.start.to_string()]);
            self.add(&["time-window", "end", &window.end.to_string()]);
        }
        self.flag(&["plain-tunnel"], rule.plain_tunnel);
        self.flag(&["upgrade"], rule.upgrade);
    }

    fn quota(&mut self, quota: &Quota) {
        for (word, most) in [
            ("rps", quota.rps),
            ("rpm", quota.rpm),
            ("connections", quota.connections),
        ] {
            if let Some(most) = most {
                self.add(&[word, &most.to_string()]);
            }
        }
        if quota.mode != QuotaMode::default() {
            self.add(&["mode", quota.mode.word()]);
        }
        if let Some((bytes, period)) = quota.bytes {
            self.add(&["bytes", &bytes.to_string()]);
            self.add(&["period", period.word()]);
        }
    }

    fn gateway(&mut self, gateway: &GatewaySettings) {
        let default = GatewaySettings::default();
        if *gateway == default {
            return;
        }
        self.below(&["gateway"], |writer| {
            writer.flag(&["enable"], gateway.enabled);
            writer.number(&["port"], &gateway.port, &default.port);
            if let Some(port) = gateway.tls_port {
                writer.add(&["tls-port", &port.to_string()]);
            }
            writer.text(&["contact"], gateway.contact.as_deref());
            for (word, value, default) in [
                ("connections", gateway.connections, default.connections),
                (
                    "connections-per-agent",
                    gateway.connections_per_agent,
                    default.connections_per_agent,
                ),
                (
                    "connect-timeout",
                    gateway.connect_timeout_seconds,
                    default.connect_timeout_seconds,
                ),
                (
                    "idle-timeout",
                    gateway.idle_timeout_seconds,
                    default.idle_timeout_seconds,
                ),
                ("drain", gateway.drain_seconds, default.drain_seconds),
            ] {
                writer.number(&[word], &value, &default);
            }
        });
    }

    fn audit(&mut self, audit: &AuditSettings) {
        let default = AuditSettings::default();
        if *audit == default {
            return;
        }
        self.below(&["audit"], |writer| {
            if audit.durability != default.durability {
                writer.add(&["durability", audit.durability.word()]);
            }
            if audit.when_full != default.when_full {
                writer.add(&["when-full", audit.when_full.word()]);
            }
            writer.number(&["retain-days"], &audit.retain_days, &default.retain_days);
            writer.number(
                &["retain-bytes"],
                &audit.retain_bytes,
                &default.retain_bytes,
            );
            writer.forward("syslog", audit.syslog.as_ref());
            writer.forward("otlp", audit.otlp.as_ref());
        });
    }

    fn forward(&mut self, word: &str, forward: Option<&Forward>) {
        if let Some(forward) = forward {
            self.add(&[word, "to", &forward.to]);
            self.text(&[word, "ca"], forward.ca.as_deref());
        }
    }
}
