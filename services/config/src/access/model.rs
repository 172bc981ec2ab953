//! The typed model of agents, rules, quotas and the gateway's settings. Whatever is in here has been checked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::access::json;
use crate::cidr::Cidr;
use crate::policy::{DomainPattern, Period, TimeWindow};

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// By agent id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<String, Agent>,
    /// By policy id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, Rule>,
    #[serde(skip_serializing_if = "is_default")]
    pub quotas: Quotas,
    /// Issuers of tokens, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub issuers: BTreeMap<String, Issuer>,
    /// PEM files below /config: who signs agents' client certificates, and what was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_crl: Option<String>,
    /// Fail modes by environment name; every other one is closed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environments: BTreeMap<String, Environment>,
    /// `identity strict`: an address of the LAN that belongs to nobody is denied, too.
    #[serde(skip_serializing_if = "json::is_not")]
    pub strict: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: GatewaySettings,
    #[serde(skip_serializing_if = "is_default")]
    pub audit: AuditSettings,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    pub team_id: String,
    pub project_id: String,
    pub environment: String,
    pub auth_type: AuthType,
    pub status: Status,
    /// Addresses that are this agent on the transparent path; no credential may be used from elsewhere if any is
    /// written and `bound` is set.
    #[serde(
        default,
        deserialize_with = "json::networks",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub sources: BTreeSet<Cidr>,
    #[serde(default, skip_serializing_if = "json::is_not")]
    pub bound: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthType {
    ApiKey,
    Jwt,
    Certificate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Active,
    Disabled,
}

/// First match by ascending priority, then deny before allow, then by id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Each is a flag of its own in the configuration.
pub struct Rule {
    /// Rises with each change of the rule; told in events.
    pub version: u32,
    pub priority: u32,
    pub enabled: bool,
    pub mode: RuleMode,
    pub identity: IdentityMatch,
    /// Empty, all three: every destination.
    pub domains: BTreeSet<DomainPattern>,
    pub networks: BTreeSet<Cidr>,
    pub ports: BTreeSet<u16>,
    /// Upper case; empty: every method. `CONNECT` means tunnels.
    pub methods: BTreeSet<String>,
    /// Canonical, each beginning with `/`; empty: every path.
    pub path_prefixes: BTreeSet<String>,
    pub time_window: Option<TimeWindow>,
    pub action: Action,
    /// A match raises an alert, whatever the action.
    pub alert: bool,
    /// A tunnel may carry something else than TLS.
    pub plain_tunnel: bool,
    /// A request may change its protocol (WebSocket).
    pub upgrade: bool,
    pub label: Option<String>,
}

/// Every written field must match; a field matches by any of its words; `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityMatch {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub agents: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub teams: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub projects: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub environments: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleMode {
    Enforce,
    /// Its denial lets pass and is told as `enforce_would_deny`.
    Report,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<String, Quota>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub teams: BTreeMap<String, Quota>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub projects: BTreeMap<String, Quota>,
    /// `quota fail-mode`: what a gateway does while the quota service can't be reached.
    pub fail: FailMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    #[serde(rename = "rps_limit", skip_serializing_if = "Option::is_none")]
    pub rps: Option<u32>,
    #[serde(rename = "rpm_limit", skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u32>,
    pub mode: QuotaMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Both directions together.
    #[serde(with = "json::bytes", skip_serializing_if = "Option::is_none")]
    pub bytes: Option<(u64, Period)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QuotaMode {
    #[default]
    HardStop,
    /// Delays up to a bound, then as hard.
    SoftStop,
    AlertOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailMode {
    /// Whatever can't be decided is denied.
    #[default]
    Closed,
    /// What was known goes on; never admits a request without identity.
    Open,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The `iss` claim, exactly.
    pub issuer: String,
    pub audience: String,
    /// `EdDSA`, `ES256`, `RS256`; never empty.
    pub algorithms: BTreeSet<String>,
    pub keys: KeySource,
    /// PEM file below /config that the server of a key URL is checked against; absent: the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_ca: Option<String>,
    pub leeway_seconds: u32,
    /// Which claim holds which field; absent: `agent_id`, `team_id`, `project_id`, `environment`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeySource {
    /// A JWKS file below /config.
    File(String),
    Url(String),
    /// The appliance's own issuer of short-lived tokens.
    Own,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Environment {
    pub identity: FailMode,
    pub policy: FailMode,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySettings {
    pub enabled: bool,
    /// Plain HTTP proxy; default port 3128.
    pub port: u16,
    /// TLS proxy (HTTP/1.1 and HTTP/2 CONNECT); absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_port: Option<u16>,
    /// Whom a denied agent is told to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    pub connections: u32,
    pub connections_per_agent: u32,
    pub connect_timeout_seconds: u32,
    pub idle_timeout_seconds: u32,
    pub drain_seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    pub durability: Durability,
    pub when_full: WhenFull,
    pub retain_days: u32,
    pub retain_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog: Option<Forward>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<Forward>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Appended before the connection, on disk within a tenth of a second.
    #[default]
    Batch,
    /// On disk before the connection.
    Strict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    #[default]
    Refuse,
    DropCounted,
}

/// Where events are sent on to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// `host:port` of a syslog server over TLS, or the URL of a collector.
    pub to: String,
    /// PEM file below /config; absent: the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Resolved when the configuration was read, if `to` is an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            enabled: false,
            port: 3128,
            tls_port: None,
            contact: None,
            connections: 16_000,
            connections_per_agent: 4_000,
            connect_timeout_seconds: 10,
            idle_timeout_seconds: 3_600,
            drain_seconds: 30,
        }
    }
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            when_full: WhenFull::default(),
            retain_days: 90,
            retain_bytes: 20_000_000_000,
            syslog: None,
            otlp: None,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
