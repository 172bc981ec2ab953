//! The ways to those who serve the gateway's agents: who they are, what they have open, what they did.
//!
//! Asks and passes on; decides nothing. Each question has its deadline.

mod gateway;
mod identity;
mod standing;
mod trail;

use std::time::Duration;

use axum::http::StatusCode;
use clawgress_link::ProbeError;

use crate::daemon::{config::Config, http::Refusal};

pub(crate) use gateway::Gateway;
pub(crate) use identity::{Identity, Wish};
pub(crate) use standing::measure;
pub(crate) use trail::Trail;

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
    /// It answered, and said no.
    #[error("{0}")]
    Refused(String),
    #[error("{unit} answered another question; are both of the same version?")]
    Unfit { unit: &'static str },
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        let (status, word) = match error {
            ServiceError::Silent { .. } => (StatusCode::SERVICE_UNAVAILABLE, "service unavailable"),
            ServiceError::Refused(_) => (StatusCode::CONFLICT, "refused"),
            ServiceError::Unfit { .. } => (StatusCode::BAD_GATEWAY, "service unavailable"),
        };
        Self::new(status, word, error.to_string())
    }
}
