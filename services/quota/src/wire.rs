//! What a gateway and the quota service say to each other: one JSON line each way over a stream socket, for each question
//! a connection of its own.

use std::{io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::{Share, Snapshot};

/// Owner clawgress-quota, group clawgress, mode 0660.
pub const SOCKET: &str = "/run/clawgress/quota/lease.sock";
/// The counts of all agents, teams and projects that a configuration can hold.
pub const LONGEST_LINE: u64 = 64 * 1024 * 1024;

/// A gateway renews its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    pub gateway: String,
    pub holds: Share,
    /// What has changed since the last renewal.
    pub used: Snapshot,
    /// It has just begun and wants to know what it had used before.
    pub fresh: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    Lease {
        /// `count` 0: give up what you hold, and ask again.
        share: Share,
        /// Counted from when the question was sent.
        lease_ms: u64,
        others: Snapshot,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remembered: Option<Snapshot>,
    },
    Error {
        error: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("asking clawgress-quota on {socket}: {error}")]
    Io { socket: String, error: io::Error },
    #[error("asking clawgress-quota on {socket}: {what}")]
    Answer { socket: String, what: String },
}

/// Asks once; an answer that is an `Error` is an error here.
pub async fn renew(
    socket: &Path,
    renewal: &Renewal,
    deadline: Duration,
) -> Result<Reply, LeaseError> {
    let answer = |what: String| LeaseError::Answer {
        socket: socket.display().to_string(),
        what,
    };
    let mut line = serde_json::to_vec(renewal).map_err(|error| answer(error.to_string()))?;
    line.push(b'\n');
    let talk = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(&line).await?;
        let mut text = Vec::new();
        BufReader::new(stream.take(LONGEST_LINE))
            .read_until(b'\n', &mut text)
            .await?;
        Ok(text)
    };
    let text = timeout(deadline, talk)
        .await
        .map_err(|_| answer(format!("no answer within {} ms", deadline.as_millis())))?
        .map_err(|error| LeaseError::Io {
            socket: socket.display().to_string(),
            error,
        })?;
    match serde_json::from_slice(&text) {
        Ok(Reply::Error { error }) => Err(answer(error)),
        Ok(reply) => Ok(reply),
        Err(error) => Err(answer(format!(
            "{} bytes that are no reply: {error}",
            text.len()
        ))),
    }
}
