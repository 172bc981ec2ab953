//! The way to clawgress-audit: questions about events, the live stream, the proof of the chain.

use std::{path::PathBuf, time::Duration};

use axum::http::StatusCode;
use clawgress_link::{
    ProbeError,
    admin::Refused,
    unix_http::{self, Answer},
};
use serde_json::{Value, json};

use super::ServiceError;
use crate::daemon::http::Refusal;

const UNIT: &str = "clawgress-audit";
/// Ten thousand events.
const LARGEST_ANSWER: usize = 330 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct Trail {
    socket: PathBuf,
}

impl Trail {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The answer's text; what the audit service refuses is refused in its words.
    pub(crate) async fn ask(
        &self,
        path: &str,
        question: &Value,
        deadline: Duration,
    ) -> Result<Vec<u8>, Refusal> {
        let asking = async {
            let mut answer = self.open(path, question).await?;
            let text = answer.whole(LARGEST_ANSWER).await;
            text.map_err(|error| silent(error).into())
        };
        tokio::time::timeout(deadline, asking)
            .await
            .unwrap_or_else(|_| {
                Err(silent(ProbeError::Deadline {
                    doing: self.doing(),
                    deadline,
                })
                .into())
            })
    }

    /// The answer as it comes.
    pub(crate) async fn open(&self, path: &str, question: &Value) -> Result<Answer, Refusal> {
        let body = question.to_string().into_bytes();
        let mut answer = unix_http::send(&self.socket, &self.doing(), path, body)
            .await
            .map_err(silent)?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let text = answer.whole(64 * 1024).await.map_err(silent)?;
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
        match serde_json::from_slice::<Refused>(&text) {
            // This service may not ask: no fault of who asked it.
            Ok(refused) if status == StatusCode::FORBIDDEN => Err(Refusal::new(
                StatusCode::BAD_GATEWAY,
                "service unavailable",
                format!("{UNIT} does not answer the policy API: {}", refused.reason),
            )),
            Ok(refused) => Err(Refusal::new(status, "wrong question", refused.reason)),
            Err(_) => Err(ServiceError::Unfit { unit: UNIT }.into()),
        }
    }

    /// How it stands, in words.
    pub(crate) async fn standing(&self, deadline: Duration) -> Result<String, Refusal> {
        let text = self.ask("/audit/status", &json!({}), deadline).await?;
        let status: Value = serde_json::from_slice(&text)
            .map_err(|_| Refusal::from(ServiceError::Unfit { unit: UNIT }))?;
        if let Some(why) = status["store"]["broken"].as_str() {
            let why = format!("it takes no events any more: {why}; see journalctl -u {UNIT}");
            return Err(ServiceError::Refused(why).into());
        }
        let number = |name: &str| status["store"][name].as_u64();
        Ok(match (number("events"), number("segments")) {
            (Some(events), Some(segments)) => {
                format!("keeps {events} events in {segments} segments")
            }
            _ => "answers".to_owned(),
        })
    }

    fn doing(&self) -> String {
        format!("asking {UNIT} on {}", self.socket.display())
    }
}

fn silent(error: ProbeError) -> ServiceError {
    ServiceError::Silent { error, unit: UNIT }
}
