//! The ways to those who serve the gateway's agents: who they are, what they have open, what they did.
//!
//! Asks and passes on; decides nothing. Each question has its deadline.

mod gateway;
mod identity;
mod standing;
mod trail;

use std::{io::ErrorKind, path::Path, time::Duration};

use axum::http::StatusCode;
use clawgress_link::{ProbeError, line};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::daemon::{config::Config, http::Refusal};

pub(crate) use gateway::Gateway;
pub(crate) use identity::{Identity, Wish};
pub(crate) use standing::measure;
pub(crate) use trail::Trail;

/// All the keys that there are.
const LONGEST_REPLY: u64 = 64 * 1024 * 1024;
/// For what needs a disk and little more.
const WORK: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) identity: Identity,
    pub(crate) gateway: Gateway,
    pub(crate) trail: Trail,
}

impl Services {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            identity: Identity::new(config.identity_socket.clone()),
            gateway: Gateway::new(config.gateway_socket.clone()),
            trail: Trail::new(config.audit_socket.clone()),
        }
    }
}

/// Why a neighbour was of no help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error("{error}; see systemctl status {unit}")]
    Silent {
        error: ProbeError,
        unit: &'static str,
    },
    /// It was asked for a change and never said what became of it.
    #[error("{error}; whether it was done is not known, look before it is tried again")]
    Unknown { error: ProbeError },
    /// It answered, and said no.
    #[error("{0}")]
    Refused(String),
    #[error("{unit} answered another question; are both of the same version?")]
    Unfit { unit: &'static str },
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        let (status, word) = match error {
            ServiceError::Silent { .. } | ServiceError::Unknown { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "service unavailable")
            }
            ServiceError::Refused(_) => (StatusCode::CONFLICT, "refused"),
            ServiceError::Unfit { .. } => (StatusCode::BAD_GATEWAY, "service unavailable"),
        };
        Self::new(status, word, error.to_string())
    }
}

/// Asks for a change by one line. Nothing was done where nobody was there to be asked; anything else is not known.
async fn change<A: DeserializeOwned>(
    socket: &Path,
    unit: &'static str,
    question: &Value,
) -> Result<A, ServiceError> {
    let doing = format!("asking {unit} on {}", socket.display());
    let asked = line::ask(socket, &doing, question, LONGEST_REPLY, WORK).await;
    asked.map_err(|error| match &error {
        ProbeError::Io { source, .. }
            if [
                ErrorKind::NotFound,
                ErrorKind::ConnectionRefused,
                ErrorKind::PermissionDenied,
            ]
            .contains(&source.kind()) =>
        {
            ServiceError::Silent { error, unit }
        }
        _ => ServiceError::Unknown { error },
    })
}

/// Asks what changes nothing.
async fn question<A: DeserializeOwned>(
    socket: &Path,
    unit: &'static str,
    question: &Value,
    deadline: Duration,
) -> Result<A, ServiceError> {
    let doing = format!("asking {unit} on {}", socket.display());
    let asked = line::ask(socket, &doing, question, LONGEST_REPLY, deadline).await;
    asked.map_err(|error| ServiceError::Silent { error, unit })
}
