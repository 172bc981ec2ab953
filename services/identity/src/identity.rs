//! Who asks, once it is proved.

use std::fmt;
use std::sync::Arc;

use clawgress_config::access::AuthType;
use rustls::pki_types::CertificateDer;

/// The four fields of every decision, and what they were proved by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub agent_id: Arc<str>,
    pub team_id: Arc<str>,
    pub project_id: Arc<str>,
    pub environment: Arc<str>,
    pub auth_type: AuthType,
    pub credential: CredentialId,
    pub workload_fingerprint: Option<Arc<str>>,
    /// Seconds since 1970, when the credential ends.
    pub expires: Option<i64>,
    pub(crate) proof: Proof,
}

/// Which credential it was, for events: a key's prefix, a token's `jti`, a certificate's serial number. Never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialId(pub Arc<str>);

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is needed to judge a credential again that was accepted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    Key(crate::api_key::Prefix),
    Token {
        /// Name of the issuer in the configuration.
        issuer: Arc<str>,
        /// Digest of the key that signed it.
        key: [u8; 32],
        id: Arc<str>,
        issued: Option<i64>,
    },
    Certificate(Arc<[CertificateDer<'static>]>),
}
