//! The services around the gateway, asked how they are. Each is asked on its own socket for what only it can say.
//!
//! None of them enforces anything on the packet's way: without them the gateway admits less, never more.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{admin, error::ProbeError, line};

/// No status is longer.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Identity,
    Quota,
    Audit,
    Gateway,
}

impl Service {
    /// In the order in which they are of use to each other.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Audit, Self::Quota, Self::Gateway];

    pub fn word(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Quota => "quota",
            Self::Audit => "audit",
            Self::Gateway => "gateway",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Identity => "clawgress-identity.service",
            Self::Quota => "clawgress-quota.service",
            Self::Audit => "clawgress-audit.service",
            Self::Gateway => "clawgress-gateway.service",
        }
    }

    /// Below `run`, which is `/run/clawgress` on the box.
    fn socket(self) -> &'static str {
        match self {
            Self::Identity => "identity/admin.sock",
            Self::Quota => "quota/lease.sock",
            Self::Audit => "audit/api.sock",
            Self::Gateway => "gateway/control.sock",
        }
    }

    /// Asks once; the answer in a few words.
    pub async fn probe(self, run: &Path, deadline: Duration) -> Result<String, ProbeError> {
        let socket = run.join(self.socket());
        let doing = format!("asking {} on {}", self.unit(), socket.display());
        let status = json!({"ask": "status"});
        let ask = |question: Value| {
            let (socket, doing) = (socket.clone(), doing.clone());
            async move { line::ask::<Value>(&socket, &doing, &question, LONGEST, deadline).await }
        };
        match self {
            Self::Identity => {
                let said = ask(status).await?;
                refused(&doing, &said)?;
                Ok("the identity service answers".to_owned())
            }
            // It has nothing to say but to gateways; that it says so is its answer.
            Self::Quota => ask(json!({}))
                .await
                .map(|_| "the quota service answers".to_owned()),
            Self::Audit => {
                let asked = admin::post(&socket, "/audit/status", Vec::new(), deadline);
                match asked.await? {
                    (200, _) => Ok("the audit trail answers".to_owned()),
                    (status, _) => Err(ProbeError::answer(&doing, format!("answer {status}"))),
                }
            }
            Self::Gateway => {
                let said = ask(status).await?;
                refused(&doing, &said)?;
                Ok(match said.get("revision").and_then(Value::as_u64) {
                    Some(revision) => format!("the gateway judges by revision {revision}"),
                    None => "the gateway answers and admits nobody yet".to_owned(),
                })
            }
        }
    }
}

fn refused(doing: &str, said: &Value) -> Result<(), ProbeError> {
    match said.get("error").and_then(Value::as_str) {
        Some(error) => Err(ProbeError::answer(doing, error.to_owned())),
        None => Ok(()),
    }
}
