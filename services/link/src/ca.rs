//! The box's own certificate authority: made at first boot, signs one short-lived certificate per service and no other.
//!
//! Its key never leaves the directory that it was made in. Names of hosts mean nothing here: a certificate says a role.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::durable::{self, FileError};
use crate::mtls::Role;

/// How long a service's certificate is good for, from its making.
pub const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
const LARGEST: u64 = 64 * 1024;
/// An uncompressed point of P-256.
pub const PUBLIC_KEY_BYTES: usize = 65;

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{} is half of an authority; restore {} from a backup, or remove both, and every service will enrol anew",
        there.display(), missing.display()
    )]
    Half { there: PathBuf, missing: PathBuf },
    #[error("{} can't be read as what was written there ({why}); restore it from a backup", path.display())]
    Content { path: PathBuf, why: String },
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("what wants to enrol sent no public key of P-256")]
    PublicKey,
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM.
    certificate: String,
}

/// A certificate that was just signed.
#[derive(Debug, Clone)]
pub struct Signed {
    /// PEM.
    pub certificate: String,
    /// Seconds since 1970.
    pub expires: i64,
}

impl Authority {
    /// Opens the authority of this directory, or makes one if there never was one.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let key_path = directory.join("authority.key");
        let path = directory.join("authority.crt");
        let content = |path: &Path| {
            let path = path.to_owned();
            move |why: String| AuthorityError::Content { path, why }
        };
        let text = |path: &Path| -> Result<Option<String>, AuthorityError> {
            durable::read(path, LARGEST)?
                .map(|bytes| {
                    String::from_utf8(bytes).map_err(|error| content(path)(error.to_string()))
                })
                .transpose()
        };
        match (text(&key_path)?, text(&path)?) {
            (Some(key), Some(certificate)) => {
                let key = KeyPair::from_pem(&key)
                    .map_err(|error| content(&key_path)(error.to_string()))?;
                CertificateDer::from_pem_slice(certificate.as_bytes())
                    .map_err(|error| content(&path)(format!("{error:?}")))?;
                Ok(Self {
                    issuer: Issuer::new(parameters(), key),
                    certificate,
                })
            }
            // The key is written last: without it nothing was ever signed.
            (None, _) => Self::make(&key_path, &path),
            (Some(_), None) => Err(AuthorityError::Half {
                there: key_path,
                missing: path,
            }),
        }
    }

    fn make(key_path: &Path, path: &Path) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = parameters().self_signed(&key)?.pem();
        durable::replace(path, certificate.as_bytes())?;
        durable::replace(key_path, key.serialize_pem().as_bytes())?;
        Ok(Self {
            issuer: Issuer::new(parameters(), key),
            certificate,
        })
    }

    /// What a peer must lead to, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs for one role. The public key is a point of P-256; who holds its private half is proved in each handshake.
    pub fn sign(&self, role: Role, public_key: &[u8]) -> Result<Signed, AuthorityError> {
        self.sign_for(role, public_key, LIFETIME)
    }

    pub fn sign_for(
        &self,
        role: Role,
        public_key: &[u8],
        lifetime: Duration,
    ) -> Result<Signed, AuthorityError> {
        if public_key.len() != PUBLIC_KEY_BYTES || public_key.first() != Some(&4) {
            return Err(AuthorityError::PublicKey);
        }
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let end = since + lifetime;
        let mut leaf = named(role.word());
        leaf.subject_alt_names = vec![SanType::URI(role.uri().try_into()?)];
        // A box may boot with a clock far in the past; that its neighbours are older than that proves nothing.
        leaf.not_before = date_time_ymd(1970, 1, 1);
        leaf.not_after = date_time_ymd(1970, 1, 1) + end;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let signed = leaf.signed_by(&Point(public_key), &self.issuer)?;
        Ok(Signed {
            certificate: signed.pem(),
            expires: i64::try_from(end.as_secs()).unwrap_or(i64::MAX),
        })
    }
}

fn named(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, format!("clawgress {name}"));
    parameters
}

/// The same at each start: issuing needs the authority's name and nothing else of its certificate.
fn parameters() -> CertificateParams {
    let mut authority = named("authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.not_before = date_time_ymd(1970, 1, 1);
    // RFC 5280's way of saying: no end.
    authority.not_after = date_time_ymd(9999, 12, 31);
    authority
}

struct Point<'p>(&'p [u8]);

impl PublicKeyData for Point<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
