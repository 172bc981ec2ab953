//! Why a request has no identity: one word each, for answers, logs and events.
//!
//! What a credential lacks is told only after its secret or signature was proved; before that it is merely unknown.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Nothing was shown.
    NoCredential,
    /// Something was shown that is no credential of any kind.
    Malformed,
    /// No such API key, or not its secret.
    UnknownCredential,
    /// Proved, and of an agent that the committed revision does not have.
    UnknownAgent,
    /// The user beside the secret is not the agent that the secret belongs to.
    WrongAgent,
    /// The token says another team, project or environment than the committed revision.
    WrongTenant,
    /// The agent proves itself by another kind of credential.
    WrongAuthType,
    Disabled,
    Revoked,
    Expired,
    NotYetValid,
    /// Its validity has an end, and the clock can't be trusted yet.
    ClockUntrusted,
    /// Not to be used from this address.
    WrongSource,
    /// Signed by somebody whom the configuration does not name.
    WrongIssuer,
    WrongAudience,
    /// An algorithm that is not pinned for the issuer.
    WrongAlgorithm,
    /// The issuer has no such key.
    UnknownKey,
    BadSignature,
    /// A claim that is needed is absent or of the wrong kind.
    WrongClaims,
    /// What the credential would be judged by could not be read.
    Unavailable,
}

impl Refusal {
    pub const ALL: [Self; 20] = [
        Self::NoCredential,
        Self::Malformed,
        Self::UnknownCredential,
        Self::UnknownAgent,
        Self::WrongAgent,
        Self::WrongTenant,
        Self::WrongAuthType,
        Self::Disabled,
        Self::Revoked,
        Self::Expired,
        Self::NotYetValid,
        Self::ClockUntrusted,
        Self::WrongSource,
        Self::WrongIssuer,
        Self::WrongAudience,
        Self::WrongAlgorithm,
        Self::UnknownKey,
        Self::BadSignature,
        Self::WrongClaims,
        Self::Unavailable,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::NoCredential => "no-credential",
            Self::Malformed => "malformed-credential",
            Self::UnknownCredential => "unknown-credential",
            Self::UnknownAgent => "unknown-agent",
            Self::WrongAgent => "wrong-agent",
            Self::WrongTenant => "wrong-tenant",
            Self::WrongAuthType => "wrong-auth-type",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::ClockUntrusted => "clock-untrusted",
            Self::WrongSource => "wrong-source",
            Self::WrongIssuer => "wrong-issuer",
            Self::WrongAudience => "wrong-audience",
            Self::WrongAlgorithm => "wrong-algorithm",
            Self::UnknownKey => "unknown-key",
            Self::BadSignature => "bad-signature",
            Self::WrongClaims => "wrong-claims",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
