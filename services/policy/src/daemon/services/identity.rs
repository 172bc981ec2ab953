//! The way to clawgress-identity: keys and tokens of agents, and how it stands.
//!
//! What is secret of a reply passes through here once and is kept nowhere.

use std::{path::PathBuf, time::Duration};

use clawgress_link::agents::AgentKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ServiceError, WORK, change, question};

const UNIT: &str = "clawgress-identity";

#[derive(Debug, Clone)]
pub(crate) struct Identity {
    socket: PathBuf,
}

/// A key to be made, as the identity service is asked for it.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Wish {
    pub(crate) agent: String,
    pub(crate) name: String,
    pub(crate) sources: Vec<String>,
    pub(crate) lifetime_seconds: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
enum Reply {
    NewKey {
        key: String,
        about: AgentKey,
    },
    Keys {
        keys: Vec<AgentKey>,
    },
    Key {},
    Token {
        token: String,
        id: String,
        expires: i64,
    },
    Done,
    Status {
        snapshot: Option<(u64, u64)>,
        faults: Vec<String>,
    },
    Error {
        error: String,
    },
}

impl Identity {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(crate) async fn create_key(&self, wish: &Wish) -> Result<(String, AgentKey), ServiceError> {
        let mut question = json!(wish);
        question["ask"] = "create_key".into();
        self.new_key(question).await
    }

    /// The old one is good for `keep` seconds more.
    pub(crate) async fn rotate_key(
        &self,
        prefix: &str,
        keep: u32,
    ) -> Result<(String, AgentKey), ServiceError> {
        let question = json!({"ask": "rotate_key", "prefix": prefix, "grace_seconds": keep});
        self.new_key(question).await
    }

    async fn new_key(&self, question: Value) -> Result<(String, AgentKey), ServiceError> {
        match self.change(&question).await? {
            Reply::NewKey { key, about } => Ok((key, about)),
            _ => Err(ServiceError::Unfit { unit: UNIT }),
        }
    }

    /// None: of all agents.
    pub(crate) async fn keys(&self, agent: Option<&str>) -> Result<Vec<AgentKey>, ServiceError> {
        let question = json!({"ask": "list_keys", "agent": agent});
        match self.ask(&question, WORK).await? {
            Reply::Keys { keys } => Ok(keys),
            _ => Err(ServiceError::Unfit { unit: UNIT }),
        }
    }

    pub(crate) async fn revoke_key(&self, prefix: &str) -> Result<(), ServiceError> {
        let question = json!({"ask": "revoke_key", "prefix": prefix});
        match self.change(&question).await? {
            Reply::Key {} | Reply::Done => Ok(()),
            _ => Err(ServiceError::Unfit { unit: UNIT }),
        }
    }

    /// The token, its id, and its end.
    pub(crate) async fn token(
        &self,
        agent: &str,
        lifetime: u32,
    ) -> Result<(String, String, i64), ServiceError> {
        let question = json!({"ask": "issue_token", "agent": agent, "lifetime_seconds": lifetime});
        match self.change(&question).await? {
            Reply::Token { token, id, expires } => Ok((token, id, expires)),
            _ => Err(ServiceError::Unfit { unit: UNIT }),
        }
    }

    /// How it stands, in words.
    pub(crate) async fn standing(&self, deadline: Duration) -> Result<String, ServiceError> {
        match self.ask(&json!({"ask": "status"}), deadline).await? {
            Reply::Status { faults, .. } if !faults.is_empty() => {
                Err(ServiceError::Refused(faults.join("; ")))
            }
            Reply::Status { snapshot: None, .. } => Err(ServiceError::Refused(
                "it offers no credentials to gateways yet".to_owned(),
            )),
            Reply::Status {
                snapshot: Some((epoch, number)),
                ..
            } => Ok(format!("offers credentials {epoch}.{number}")),
            _ => Err(ServiceError::Unfit { unit: UNIT }),
        }
    }

    async fn ask(&self, asked: &Value, deadline: Duration) -> Result<Reply, ServiceError> {
        judge(question(&self.socket, UNIT, asked, deadline).await?)
    }

    async fn change(&self, asked: &Value) -> Result<Reply, ServiceError> {
        judge(change(&self.socket, UNIT, asked).await?)
    }
}

fn judge(reply: Reply) -> Result<Reply, ServiceError> {
    match reply {
        Reply::Error { error } => Err(ServiceError::Refused(error)),
        reply => Ok(reply),
    }
}
