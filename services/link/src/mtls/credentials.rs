//! A service's own certificate and key, and the authorities that its peers must lead to: one file, replaced whole.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::Role;
use super::verify::role_of;
use crate::durable::{self, FileError};

const FILE: &str = "credentials.json";
const LARGEST: u64 = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is no credential of this box ({why}); remove it, and the service enrols anew", path.display())]
    Content { path: PathBuf, why: String },
    #[error("setting up TLS: {0}")]
    Tls(rustls::Error),
}

/// As on disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    pub role: Role,
    /// PEM, all three.
    pub key: String,
    pub certificate: String,
    pub authorities: String,
    /// Seconds since 1970.
    pub issued: i64,
    pub expires: i64,
    /// Who signs bundles: Ed25519 keys in hex.
    pub bundle_keys: Vec<String>,
    /// For those who judge API keys: the server's half of their hashes, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_key: Option<String>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({:?}, until {})", self.role, self.expires)
    }
}

pub struct Credentials {
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<Current>>,
}

pub(super) struct Current {
    pub(super) stored: Stored,
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    certified: Arc<CertifiedKey>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({:?})", self.current().stored)
    }
}

impl Credentials {
    pub fn of(stored: Stored) -> Result<Arc<Self>, CredentialsError> {
        Self::at(stored, Path::new("what was just signed"))
    }

    /// None: this directory has none yet.
    pub fn open(directory: &Path) -> Result<Option<Arc<Self>>, CredentialsError> {
        let path = directory.join(FILE);
        let Some(bytes) = durable::read(&path, LARGEST)? else {
            return Ok(None);
        };
        let stored = serde_json::from_slice(&bytes).map_err(|error| CredentialsError::Content {
            path: path.clone(),
            why: error.to_string(),
        })?;
        Self::at(stored, &path).map(Some)
    }

    fn at(stored: Stored, path: &Path) -> Result<Arc<Self>, CredentialsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let current = Current::of(stored, &provider).map_err(|why| CredentialsError::Content {
            path: path.to_owned(),
            why,
        })?;
        Ok(Arc::new(Self {
            provider,
            current: RwLock::new(Arc::new(current)),
        }))
    }

    /// Keeps them in this directory and uses them from now on.
    pub fn replace(&self, directory: &Path, stored: Stored) -> Result<(), CredentialsError> {
        let path = directory.join(FILE);
        let current = Current::of(stored, &self.provider)
            .map_err(|why| CredentialsError::Content { path, why })?;
        store(directory, &current.stored)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        Ok(())
    }

    pub fn stored(&self) -> Stored {
        self.current().stored.clone()
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
    }

    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) fn store(directory: &Path, stored: &Stored) -> Result<(), CredentialsError> {
    let path = directory.join(FILE);
    let text = serde_json::to_vec(stored).map_err(|error| CredentialsError::Content {
        path: path.clone(),
        why: error.to_string(),
    })?;
    Ok(durable::replace(&path, &text)?)
}

impl Current {
    fn of(stored: Stored, provider: &CryptoProvider) -> Result<Self, String> {
        let pem = |error: rustls::pki_types::pem::Error| {
            format!("it holds no PEM where it should: {error:?}")
        };
        let certificate =
            CertificateDer::from_pem_slice(stored.certificate.as_bytes()).map_err(pem)?;
        let key = PrivateKeyDer::from_pem_slice(stored.key.as_bytes()).map_err(pem)?;
        if role_of(&certificate) != Some(stored.role) {
            return Err(format!(
                "its certificate is not one of the role {}",
                stored.role.word()
            ));
        }
        let mut anchors = Vec::new();
        for authority in CertificateDer::pem_slice_iter(stored.authorities.as_bytes()) {
            let authority = authority.map_err(pem)?;
            let anchor =
                webpki::anchor_from_trusted_cert(&authority).map_err(|error| error.to_string())?;
            anchors.push(anchor.to_owned());
        }
        let certified = CertifiedKey::from_der(vec![certificate], key, provider)
            .map_err(|error| format!("key and certificate do not belong together: {error}"))?;
        Ok(Self {
            stored,
            anchors,
            certified: Arc::new(certified),
        })
    }
}

/// Shows whatever certificate is current.
#[derive(Debug)]
pub(super) struct Showing(pub(super) Arc<Credentials>);

impl ResolvesServerCert for Showing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current().certified))
    }
}

impl ResolvesClientCert for Showing {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
