//! What is asked of clawgress-identity: one JSON line each way over a unix socket that knows who is calling, and what
//! gateways tell it. Both sides' words, and the client.
//!
//! A key's secret is in exactly one reply, once.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Owner clawgress-identity, group clawgress, mode 0660; root and the configured user ids are answered.
pub const SOCKET: &str = "/run/clawgress/identity/admin.sock";
pub const LONGEST_REQUEST: u64 = 64 * 1024;
pub const LONGEST_REPLY: u64 = 64 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask", deny_unknown_fields)]
pub enum Request {
    CreateKey(Wish),
    ListKeys {
        agent: Option<String>,
    },
    RevokeKey {
        prefix: String,
    },
    /// A new key of the same kind; the old one ends after so many seconds.
    RotateKey {
        prefix: String,
        grace_seconds: u32,
    },
    /// By the appliance's own issuer.
    IssueToken {
        agent: String,
        /// Its name in the configuration; may be left out if there is one alone.
        #[serde(default)]
        issuer: Option<String>,
        lifetime_seconds: u32,
        #[serde(default)]
        workload_fingerprint: Option<String>,
    },
    RevokeToken {
        issuer: String,
        id: String,
        /// When it ends; it is remembered until then.
        until: i64,
    },
    /// Every token of this agent that was issued before this second.
    RevokeTokens {
        agent: String,
    },
    RevokeCertificate {
        /// In hex, as in events.
        serial: String,
    },
    /// The own issuer signs with a new key; what the old ones signed stays good until its end.
    RotateSigningKey,
    Status,
}

/// A key to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    pub agent: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Networks from which alone it may be used.
    #[serde(default)]
    pub sources: Vec<String>,
    #[serde(default)]
    pub lifetime_seconds: Option<u32>,
    #[serde(default)]
    pub workload_fingerprint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Reply {
    NewKey {
        key: String,
        about: Key,
    },
    Keys {
        keys: Vec<Key>,
    },
    Key {
        about: Key,
    },
    Token {
        token: String,
        id: String,
        expires: i64,
    },
    Done,
    Status(Box<Status>),
    Error {
        error: String,
    },
}

/// A key as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub prefix: String,
    pub agent: String,
    pub name: String,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Epoch and number of the snapshot that gateways are offered.
    pub snapshot: Option<(u64, u64)>,
    pub agents: usize,
    pub keys: usize,
    /// What could not be read; whoever depends on it is denied.
    pub faults: Vec<String>,
}

/// What a gateway reports: when each key was last used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uses {
    pub uses: Vec<(String, i64)>,
}

/// Where a gateway tells that tokens named keys that their issuers' sets do not have: POST.
pub const MISSED: &str = "/missed";

/// By the configuration's names. The sets are fetched anew, as far as they are fetched and not more often than is good
/// for their servers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missed {
    pub issuers: BTreeSet<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(
        "asking clawgress-identity on {socket}: {why}; is the service running, and may this user ask it?"
    )]
    Talk { socket: String, why: String },
    #[error("{0}")]
    Refused(String),
}

/// Asks once.
pub async fn ask(socket: &Path, request: &Request, deadline: Duration) -> Result<Reply, AskError> {
    let failed = |why: String| AskError::Talk {
        socket: socket.display().to_string(),
        why,
    };
    let exchange = async {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        BufReader::new(stream.take(LONGEST_REPLY))
            .read_until(b'\n', &mut answer)
            .await?;
        Ok::<Reply, std::io::Error>(serde_json::from_slice(&answer)?)
    };
    match tokio::time::timeout(deadline, exchange).await {
        Err(_) => Err(failed(format!(
            "no answer within {} ms",
            deadline.as_millis()
        ))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(Reply::Error { error })) => Err(AskError::Refused(error)),
        Ok(Ok(reply)) => Ok(reply),
    }
}
