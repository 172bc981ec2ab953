//! TLS between the box's own services: both sides show a certificate of the box's authority, and each says which roles
//! it speaks to. Names of hosts and public authorities mean nothing here.
//!
//! Certificates are replaced under running connections' feet: a new connection uses the new one, no restart.

mod credentials;
pub mod http;
mod verify;

use std::sync::Arc;

use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use credentials::Showing;
pub(crate) use credentials::store;
pub use credentials::{Credentials, CredentialsError, Stored};
use verify::Peer;

/// What a service is to its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Policy,
    Enforcer,
    Dns,
    Gateway,
    Identity,
    Quota,
    Audit,
    AdminApi,
    AdminUi,
}

impl Role {
    pub const ALL: [Self; 9] = [
        Self::Policy,
        Self::Enforcer,
        Self::Dns,
        Self::Gateway,
        Self::Identity,
        Self::Quota,
        Self::Audit,
        Self::AdminApi,
        Self::AdminUi,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Enforcer => "enforcer",
            Self::Dns => "dns",
            Self::Gateway => "gateway",
            Self::Identity => "identity",
            Self::Quota => "quota",
            Self::Audit => "audit",
            Self::AdminApi => "admin-api",
            Self::AdminUi => "admin-ui",
        }
    }

    /// As it stands in a certificate.
    pub fn uri(self) -> String {
        format!("clawgress:{}", self.word())
    }

    fn of_uri(uri: &str) -> Option<Self> {
        let word = uri.strip_prefix("clawgress:")?;
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// Accepts connections of these roles alone.
pub fn server(own: &Arc<Credentials>, allowed: &[Role]) -> Result<TlsAcceptor, CredentialsError> {
    let peer = Arc::new(Peer::new(own, allowed));
    let mut config = ServerConfig::builder_with_provider(own.provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(CredentialsError::Tls)?
        .with_client_cert_verifier(peer)
        .with_cert_resolver(Arc::new(Showing(Arc::clone(own))));
    // A resumed session would carry an old certificate past its end.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Connects to these roles alone.
pub fn client(own: &Arc<Credentials>, allowed: &[Role]) -> Result<TlsConnector, CredentialsError> {
    let peer = Arc::new(Peer::new(own, allowed));
    let mut config = ClientConfig::builder_with_provider(own.provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(CredentialsError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(peer)
        .with_client_cert_resolver(Arc::new(Showing(Arc::clone(own))));
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The role of the peer of an accepted or made connection.
pub fn peer_role(connection: &CommonState) -> Option<Role> {
    let certificate = connection.peer_certificates()?.first()?;
    verify::role_of(certificate)
}
