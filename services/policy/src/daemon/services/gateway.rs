//! The way to clawgress-gateway: the kill switch, what is open, and what it judges by.

use std::{path::PathBuf, time::Duration};

use clawgress_link::agents::{Blocked, Flow, Flows};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ServiceError, WORK, change, question};

const UNIT: &str = "clawgress-gateway";

#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    socket: PathBuf,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// None: it has not got both halves of what it judges by, and admits nobody.
    pub(crate) revision: Option<u64>,
    pub(crate) connections: usize,
    pub(crate) flows: usize,
    pub(crate) blocked: Blocked,
    pub(crate) events_waiting: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
enum Reply {
    Blocked(Blocked),
    Flows {
        flows: Vec<Flow>,
        total: usize,
    },
    Status {
        revision: Option<u64>,
        connections: usize,
        flows: usize,
        blocked: Blocked,
        events_waiting: u64,
    },
    Error {
        error: String,
    },
}

impl Gateway {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// None: everybody. In force, and everything open is cut, when it returns.
    pub(crate) async fn block(&self, agent: Option<&str>) -> Result<Blocked, ServiceError> {
        self.switch(match agent {
            Some(agent) => json!({"ask": "block", "agent": agent}),
            None => json!({"ask": "block_all"}),
        })
        .await
    }

    pub(crate) async fn unblock(&self, agent: Option<&str>) -> Result<Blocked, ServiceError> {
        self.switch(match agent {
            Some(agent) => json!({"ask": "unblock", "agent": agent}),
            None => json!({"ask": "unblock_all"}),
        })
        .await
    }

    async fn switch(&self, question: Value) -> Result<Blocked, ServiceError> {
        match judge(change(&self.socket, UNIT, &question).await?)? {
            Reply::Blocked(blocked) => Ok(blocked),
            _ => Err(ServiceError::Unfit { unit: UNIT }),
        }
    }

    pub(crate) async fn flows(&self, agent: Option<&str>) -> Result<Flows, ServiceError> {
        let question = json!({"ask": "flows", "agent": agent});
        match self.ask(&question, WORK).await? {
            Reply::Flows { flows, total } => Ok(Flows { flows, total }),
            _ => Err(ServiceError::Unfit { unit: UNIT }),
        }
    }

    pub(crate) async fn standing(&self, deadline: Duration) -> Result<Standing, ServiceError> {
        match self.ask(&json!({"ask": "status"}), deadline).await? {
            Reply::Status {
                revision,
                connections,
                flows,
                blocked,
                events_waiting,
            } => Ok(Standing {
                revision,
                connections,
                flows,
                blocked,
                events_waiting,
            }),
            _ => Err(ServiceError::Unfit { unit: UNIT }),
        }
    }

    async fn ask(&self, asked: &Value, deadline: Duration) -> Result<Reply, ServiceError> {
        judge(question(&self.socket, UNIT, asked, deadline).await?)
    }
}

fn judge(reply: Reply) -> Result<Reply, ServiceError> {
    match reply {
        Reply::Error { error } => Err(ServiceError::Refused(error)),
        reply => Ok(reply),
    }
}
