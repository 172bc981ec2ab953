//! What the policy API and the console ask of clawgress-enforcer: one JSON line each way over a stream socket.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{error::ProbeError, line};

/// Owner clawgress-enforcer, group clawgress-policy, mode 0660.
pub const SOCKET: &str = "/run/clawgress/enforcer/control.sock";

/// Where revisions lie, each as `<number>.json`; written by clawgress-policy alone, readable by group clawgress.
pub const REVISIONS: &str = "/var/lib/clawgress/revisions";

/// A link, replaced atomically, to the file of the revision that a boot begins with; absent: stay sealed.
pub const BOOT_REVISION: &str = "/var/lib/clawgress/revisions/boot.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Request {
    /// Compile the revision in this file and check every part; change nothing.
    Check {
        file: String,
    },
    /// Check and apply it; all or nothing.
    Apply {
        file: String,
    },
    Status,
    /// Seal the box at once, and stay sealed until told otherwise.
    Seal,
    /// The kill switch: from now on these agents, or all, reach nothing, and nobody else is held by it. It outlives
    /// restarts. The report says whether it is kept.
    Block {
        agents: Vec<String>,
        all: bool,
    },
    /// Every daemon is well again: put the last good revision back into force if the box was sealed meanwhile.
    Resume,
    Telemetry {
        window: Window,
    },
    /// The ruleset as the kernel has it now, as text.
    Firewall,
    /// The policy zone as it is served now: at most `limit` of its names, and how many there are.
    Zone {
        limit: usize,
    },
}

/// No reply is longer.
pub const LONGEST_REPLY: u64 = 64 * 1024 * 1024;

/// Asks once; an answer that is an `Error` is an error here.
pub async fn ask(
    socket: &Path,
    request: &Request,
    deadline: Duration,
) -> Result<Reply, ProbeError> {
    let doing = format!("asking clawgress-enforcer on {}", socket.display());
    match line::ask(socket, &doing, request, LONGEST_REPLY, deadline).await? {
        Reply::Error { error } => Err(ProbeError::answer(&doing, error)),
        reply => Ok(reply),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Window {
    #[serde(rename = "1m")]
    Minute,
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "24h")]
    Day,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Reply {
    Report(Report),
    Status(Box<Status>),
    Telemetry(Box<Telemetry>),
    Text {
        text: String,
    },
    Zone {
        names: Vec<String>,
        total: usize,
    },
    /// The request itself was wrong or the enforcer can't answer; for people.
    Error {
        error: String,
    },
}

/// What became of a check or an application, stage by stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub revision: u64,
    pub ok: bool,
    pub applied: bool,
    pub stages: Vec<Stage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// `compile`, `nft`, `named`, `haproxy`, `dns`, `verify`, and `rollback` when it came to that.
    pub name: String,
    pub ok: bool,
    pub took_ms: u64,
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// None: sealed.
    pub revision: Option<u64>,
    /// The generation stamped on flows.
    pub generation: u32,
    pub enforcing: bool,
    pub detail: String,
    pub principals: usize,
    pub domains: usize,
    pub pins: usize,
    pub clock_trusted: bool,
    /// Seconds since 1970, when a window next opens or closes.
    pub next_change: Option<i64>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Telemetry {
    pub window: String,
    pub principals: BTreeMap<String, PrincipalTelemetry>,
    /// Most denied first: name or address, and how often.
    pub top_denied: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PrincipalTelemetry {
    pub queries: u64,
    pub cache_hits: u64,
    pub flows: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    /// By reason.
    pub denied: BTreeMap<String, u64>,
    pub domains: BTreeMap<String, DomainTelemetry>,
    pub caps: Vec<CapUse>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DomainTelemetry {
    pub queries: u64,
    pub cache_hits: u64,
    pub denied: u64,
    pub flows: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapUse {
    pub domain: String,
    pub period: String,
    pub limit: u64,
    pub used: u64,
    pub resets_at: i64,
}
