//! How a service of this box gets its certificate: it asks clawgress-identity on a unix socket, which knows it by its
//! user id, and asks again long before the certificate ends.
//!
//! The private key is made here and stays here.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};

use crate::error::ProbeError;
use crate::hex;
use crate::line;
use crate::mtls::{Credentials, CredentialsError, Role, Stored};

/// Owner clawgress-identity, group clawgress, mode 0660.
pub const SOCKET: &str = "/run/clawgress/identity/enrol.sock";
/// No line of either side is longer.
pub const LONGEST: u64 = 64 * 1024;
const DEADLINE: Duration = Duration::from_secs(5);
/// A certificate is looked at so often; a clock that was set may have ended it meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// A point of P-256 in hex.
    pub public_key: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Reply {
    Enrolled(Box<Enrolled>),
    Error { error: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Enrolled {
    pub role: Role,
    /// PEM.
    pub certificate: String,
    pub authorities: String,
    /// Seconds since 1970.
    pub expires: i64,
    pub bundle_keys: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_key: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(transparent)]
    Ask(#[from] ProbeError),
    #[error("making a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(
        "{} took this service for {}, and it is {}; put its user id right in identity.toml",
        socket.display(), told.word(), own.word()
    )]
    Role {
        socket: PathBuf,
        told: Role,
        own: Role,
    },
}

/// Where a service keeps its credentials and whom it asks for them.
#[derive(Debug, Clone)]
pub struct Place {
    pub role: Role,
    pub directory: PathBuf,
    pub socket: PathBuf,
}

impl Place {
    /// What this service has, or else gets now.
    pub async fn credentials(&self) -> Result<Arc<Credentials>, EnrolError> {
        // What can't be read is no reason to stay away: there is more where it came from.
        let kept = Credentials::open(&self.directory)
            .inspect_err(|error| tracing::warn!("{error}; enrolling anew"))
            .unwrap_or_default()
            .filter(|kept| kept.stored().role == self.role);
        if let Some(kept) = kept {
            if is_due(&kept.stored(), now()) {
                match self.ask().await {
                    Ok(stored) => kept.replace(&self.directory, stored)?,
                    // Until its end the old one is as good.
                    Err(error) => tracing::warn!("renewing a certificate: {error}"),
                }
            }
            return Ok(kept);
        }
        let stored = self.ask().await?;
        crate::mtls::store(&self.directory, &stored)?;
        Ok(Credentials::of(stored)?)
    }

    /// Renews them for as long as it is polled.
    pub async fn keep(&self, credentials: &Credentials) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if !is_due(&credentials.stored(), now()) {
                continue;
            }
            let renewed = match self.ask().await {
                Ok(stored) => credentials
                    .replace(&self.directory, stored)
                    .map_err(EnrolError::from),
                Err(error) => Err(error),
            };
            match renewed {
                Ok(()) => {
                    tracing::info!("a new certificate until {}", credentials.stored().expires)
                }
                Err(error) => tracing::warn!("renewing a certificate: {error}"),
            }
        }
    }

    /// A new key and a certificate for it.
    pub async fn ask(&self) -> Result<Stored, EnrolError> {
        let (key, public_key) = new_key()?;
        let request = Request {
            public_key: hex::encode(&public_key),
        };
        let enrolled = ask(&self.socket, &request).await?;
        if enrolled.role != self.role {
            return Err(EnrolError::Role {
                socket: self.socket.clone(),
                told: enrolled.role,
                own: self.role,
            });
        }
        Ok(Stored {
            role: enrolled.role,
            key,
            certificate: enrolled.certificate,
            authorities: enrolled.authorities,
            issued: now(),
            expires: enrolled.expires,
            bundle_keys: enrolled.bundle_keys,
            credential_key: enrolled.credential_key,
        })
    }
}

/// A private key in PEM and its public half.
pub fn new_key() -> Result<(String, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((key.serialize_pem(), key.public_key_raw().to_vec()))
}

/// When two thirds of its life are over, and whenever it was made in what is now the future.
pub fn is_due(stored: &Stored, now: i64) -> bool {
    let life = stored.expires.saturating_sub(stored.issued);
    now < stored.issued || now >= stored.issued.saturating_add(life / 3 * 2)
}

async fn ask(socket: &Path, request: &Request) -> Result<Enrolled, ProbeError> {
    let doing = format!("asking clawgress-identity on {}", socket.display());
    // Root, or whose directory it is: anybody else's certificate authority would be nobody's.
    let owner = socket
        .parent()
        .and_then(|directory| std::fs::metadata(directory).ok())
        .map(|directory| directory.uid());
    let is_server = |user| user == 0 || Some(user) == owner;
    match line::ask_one(socket, &doing, request, LONGEST, DEADLINE, is_server).await? {
        Reply::Enrolled(enrolled) => Ok(*enrolled),
        Reply::Error { error } => Err(ProbeError::answer(&doing, error)),
    }
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_asked_of_a_server_that_is_somebody_else() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("enrol.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let request = Request {
            public_key: "00".to_owned(),
        };
        let asked: Result<Reply, _> =
            line::ask_one(&socket, "asking", &request, LONGEST, DEADLINE, |_| false).await;
        let error = asked.unwrap_err().to_string();
        assert!(error.contains("whose socket it is not"), "{error}");
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut heard)
            .await
            .unwrap();
        assert!(heard.is_empty());
    }

    #[test]
    fn a_certificate_is_renewed_in_its_last_third_and_after_the_clock_went_back() {
        let stored = Stored {
            role: Role::Gateway,
            key: String::new(),
            certificate: String::new(),
            authorities: String::new(),
            issued: 1000,
            expires: 4000,
            bundle_keys: Vec::new(),
            credential_key: None,
        };
        for (now, due) in [
            (1000, false),
            (2999, false),
            (3000, true),
            (5000, true),
            (999, true),
        ] {
            assert_eq!(is_due(&stored, now), due, "{now}");
        }
    }
}
