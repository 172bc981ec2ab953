//! The console's way to the policy API: the same HTTP and JSON as at the front, over a unix socket that knows who
//! is calling. Holds the words of both sides, and the client.
//!
//! Judges no answer: a refusal is an answer like any other.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    control::{Report, Status},
    error::{ProbeError, within},
    health,
    unix_http::{self, Answer},
};

/// Where clawgress-policy listens for the console; group clawgress, mode 0660, and uid 0 alone is answered unless the
/// service's configuration names others.
pub const SOCKET: &str = "/run/clawgress/policy/admin.sock";

/// A ruleset or a policy of a million names fits.
const LARGEST_ANSWER: usize = 256 * 1024 * 1024;

/// What a key lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything that the API offers.
    Operator,
    /// Look, and have policies checked; change nothing.
    Viewer,
}

impl Role {
    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

/// A key as it may be shown; what is secret of it is not in here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The part between `cg_` and the secret.
    pub id: String,
    pub name: String,
    pub role: Role,
    /// Seconds since 1970, as all times here.
    pub created: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<i64>,
}

/// The only time that the secret is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    pub key: String,
    #[serde(flatten)]
    pub about: Key,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    pub keys: Vec<Key>,
}

/// One thing that is wrong with what was sent: where, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// As in `policy.allow.domains[3]`; empty: the text as a whole.
    pub path: String,
    /// In the text that was sent; both count from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    pub what: String,
    pub fix: String,
}

/// What became of a policy that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReply {
    pub ok: bool,
    /// False after a check, and whenever everything is as it was before.
    pub applied: bool,
    /// The number under which it is enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    pub report: Report,
    pub warnings: Vec<String>,
    pub note: String,
}

/// Any refusal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refused {
    /// A few words that stay the same.
    pub error: String,
    /// For people.
    pub reason: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Trouble>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// The answer of `/clawgress/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    #[serde(flatten)]
    pub report: health::Report,
    /// None: sealed, or the enforcer is silent.
    pub revision: Option<u64>,
    pub generation: Option<u32>,
    pub clock_trusted: Option<bool>,
    /// clawgress-dns denied a name that it must deny.
    pub dns: bool,
    /// Those who serve the gateway's agents. They are no part of the report: appliance-init seals a box that does not
    /// enforce, and starts these services on one that does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<health::Check>,
    /// The revision in force enables the gateway, so somebody depends on them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub services_wanted: bool,
}

impl Health {
    /// As people and their monitors are told it: where somebody depends on the services, they count like everything else.
    #[must_use]
    pub fn with_services(mut self) -> Self {
        if self.services_wanted {
            let services = std::mem::take(&mut self.services);
            let checks = self.report.checks.into_iter().chain(services);
            self.report = health::Report::of(checks.collect());
        }
        self
    }
}

/// The console's view of all there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    pub health: Health,
    /// None while the enforcer is silent; a check of `health` says why.
    pub enforcer: Option<Status>,
    /// What the next boot begins with.
    pub boot_revision: Option<u64>,
}

/// The policy that is enforced, as policy.json.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Enforced {
    pub revision: u64,
    pub policy: serde_json::Value,
}

/// Posts to the policy API and returns status and body.
pub async fn post(
    socket: &Path,
    path: &str,
    body: Vec<u8>,
    deadline: Duration,
) -> Result<(u16, Vec<u8>), ProbeError> {
    let doing = doing(socket);
    within(deadline, &doing, async {
        let mut answer = unix_http::send(socket, &doing, path, body).await?;
        let text = answer.whole(LARGEST_ANSWER).await?;
        Ok((answer.status, text))
    })
    .await
}

/// Posts, and returns as soon as the answer has begun. It may go on for as long as somebody reads it.
pub async fn open(
    socket: &Path,
    path: &str,
    body: Vec<u8>,
    deadline: Duration,
) -> Result<Answer, ProbeError> {
    let doing = doing(socket);
    let sending = unix_http::send(socket, &doing, path, body);
    within(deadline, &doing, sending).await
}

fn doing(socket: &Path) -> String {
    format!("asking the policy API on {}", socket.display())
}
