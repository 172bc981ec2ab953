//! Agents, their keys, what they have open and what is decided about them: the words between the console and the policy
//! API. A key's secret and a token are in exactly one answer each, once.
//!
//! Holds no opinion: who an agent is says the committed revision, whom it may prove itself by the identity service.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Every agent of the revision in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agents {
    pub revision: u64,
    pub agents: Vec<Agent>,
    /// The kill switch for everybody. None: the gateway does not say.
    pub all_blocked: Option<bool>,
    /// What could not be found out.
    pub notes: Vec<String>,
}

/// One agent, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub agent_id: String,
    pub team_id: String,
    pub project_id: String,
    pub environment: String,
    pub auth_type: String,
    pub status: String,
    /// Addresses that are this agent on the transparent path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Its credentials count from these addresses alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bound: bool,
    /// Keys that are good now. None: the identity service does not say.
    pub keys: Option<usize>,
    /// None: the gateway does not say.
    pub blocked: Option<bool>,
}

/// All that is known of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    pub revision: u64,
    pub agent: Agent,
    /// Everybody is blocked.
    pub all_blocked: Option<bool>,
    pub keys: Option<Vec<AgentKey>>,
    /// What it has open at this moment.
    pub flows: Option<usize>,
    pub notes: Vec<String>,
}

/// A key as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentKey {
    /// By what it is recognised.
    pub prefix: String,
    pub agent: String,
    #[serde(default)]
    pub name: String,
    /// Networks from which alone it may be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_fingerprint: Option<String>,
    /// Seconds since 1970, as all times here.
    pub created: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<i64>,
}

impl AgentKey {
    pub fn is_good(&self, now: i64) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|end| end > now)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentKeys {
    pub keys: Vec<AgentKey>,
}

/// The only time that the key is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewAgentKey {
    pub key: String,
    #[serde(flatten)]
    pub about: AgentKey,
    /// What an agent's environment needs, whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Of a rotation: until when the old key is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_ends: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The only time that the token is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub token: String,
    pub id: String,
    pub expires: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Who is blocked, as the gateway keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Blocked {
    pub all: bool,
    pub agents: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What is open at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    pub flows: Vec<Flow>,
    /// Of which `flows` may be the first ones.
    pub total: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub request_id: String,
    pub agent_id: String,
    pub source: String,
    pub destination: String,
    pub tunnel: bool,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

/// A decision, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // each is an answer of its own
pub struct Explained {
    pub revision: u64,
    /// As it was understood: who, what, where, when.
    pub agent: Agent,
    pub destination: String,
    pub port: u16,
    pub method: String,
    /// None: it can't be seen.
    pub path: Option<String>,
    pub tunnel: bool,
    pub at: i64,
    /// In which windows are written.
    pub time_zone: String,
    pub clock_trusted: bool,
    pub allowed: bool,
    pub policy_id: String,
    pub version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The rule in report mode that would have denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce_would_deny: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alert: bool,
    /// In the order in which they were asked; the last one decides.
    pub considered: Vec<Considered>,
    /// Why it is not known where the name leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<String>,
    /// Where it leads at this moment.
    #[serde(default)]
    pub addresses: Vec<Led>,
    /// What becomes of it on each way that an agent's traffic can take.
    #[serde(default)]
    pub paths: Vec<OnPath>,
    /// What it would be counted against.
    #[serde(default)]
    pub limits: Vec<Limit>,
    pub notes: Vec<String>,
}

/// An address that a name leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    pub address: String,
    /// `public`, `private`, `own`, and so on.
    pub class: String,
    /// Why the gateway would not dial it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnPath {
    /// `proxy`, `name` (of a TLS hello or a Host header) or `address`.
    pub path: String,
    /// None: this way does not lead there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Such as `team-rpm`, or `cap`.
    pub limit: String,
    /// Whose, or on what.
    pub of: String,
    pub most: u64,
    /// `requests a second`, `bytes a day`.
    pub unit: String,
    /// None: nobody who may be asked knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// What happens beyond it.
    pub beyond: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    pub policy_id: String,
    pub version: u32,
    /// None: not a rule, but what stands behind all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    pub action: String,
    pub mode: String,
    pub why: String,
}
