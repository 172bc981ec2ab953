//! What the gateway tells clawgress-enforcer of flows that count against a host's limits: one JSON line each way over a
//! stream socket. The kernel counts them from then on; nobody here does.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{error::ProbeError, line};

/// Owner clawgress-enforcer, group clawgress, mode 0660.
pub const SOCKET: &str = "/run/clawgress/enforcer/counted.sock";

/// No question is longer, and no answer.
pub const LONGEST_LINE: u64 = 4096;

/// May this go, and count it from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The agent's address.
    pub source: IpAddr,
    /// Canonical. None: it asked for an address.
    pub name: Option<String>,
    /// The gateway's own leg, connected and silent as yet. None: there is none yet.
    pub flow: Option<Leg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leg {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// What it is counted as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// The principal whose limits they are.
    pub holder: String,
    /// The most specific of its caps that mean the name.
    pub pattern: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", deny_unknown_fields)]
pub enum Answer {
    /// It may go; a flow that was told is counted.
    Counted(Class),
    /// The revision in force has no limit for it.
    Uncounted,
    /// A cap is used up.
    OverCap,
    /// It can't be counted; for people.
    Error { error: String },
}

/// Asks once; an answer that is an `Error` is an error here.
pub async fn ask(
    socket: &Path,
    question: &Question,
    deadline: Duration,
) -> Result<Answer, ProbeError> {
    let doing = format!(
        "asking clawgress-enforcer on {} to count a flow",
        socket.display()
    );
    match line::ask(socket, &doing, question, LONGEST_LINE, deadline).await? {
        Answer::Error { error } => Err(ProbeError::answer(&doing, error)),
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_answered_reads_like_this() {
        let question = Question {
            source: "192.168.10.10".parse().unwrap(),
            name: Some("api.example.net".to_owned()),
            flow: Some(Leg {
                local: "203.0.113.10:40000".parse().unwrap(),
                remote: "192.0.2.1:443".parse().unwrap(),
            }),
        };
        let text = serde_json::to_string(&question).unwrap();
        assert_eq!(
            text,
            r#"{"source":"192.168.10.10","name":"api.example.net","flow":{"local":"203.0.113.10:40000","remote":"192.0.2.1:443"}}"#
        );
        let answer = Answer::Counted(Class {
            holder: "agent-1".to_owned(),
            pattern: Some("*.example.net".to_owned()),
        });
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(
            text,
            r#"{"is":"counted","holder":"agent-1","pattern":"*.example.net"}"#
        );
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
        let over: Answer = serde_json::from_str(r#"{"is":"over_cap"}"#).unwrap();
        assert_eq!(over, Answer::OverCap);
    }
}
