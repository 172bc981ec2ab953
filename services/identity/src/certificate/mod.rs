//! Client certificates: a chain to the configured authorities, what was revoked, and the names of the agent in it.
//!
//! The handshake proves that the peer holds the key; everything else is proved here, at the moment that it is used.

mod ask;
mod validity;

use std::collections::BTreeSet;
use std::time::Duration;

use clawgress_link::hex;
use clawgress_policy::Moment;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

pub use ask::AskForCertificate;

use crate::refusal::Refusal;

/// The agent's own and what leads to an authority.
const LONGEST_CHAIN: usize = 6;
const MOST_NAMES: usize = 32;
/// A URI that names an agent and nothing else.
const URI: &str = "clawgress:agent:";

/// Who signs agents' certificates, and what they took back.
pub struct Authorities {
    anchors: Vec<TrustAnchor<'static>>,
    lists: Vec<CertRevocationList<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What a chain proves.
#[derive(Debug, Clone)]
pub(crate) struct Proved {
    /// What the certificate calls its holder; an agent's id if it is one.
    pub(crate) names: BTreeSet<String>,
    pub(crate) serial: String,
    pub(crate) fingerprint: String,
    pub(crate) expires: i64,
}

impl std::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Authorities({}, {} lists)",
            self.anchors.len(),
            self.lists.len()
        )
    }
}

impl Authorities {
    /// With revocation lists, every certificate of a chain must be on nobody's list and its issuer must have one.
    pub fn of_pem(authorities: &str, lists: Option<&str>) -> Result<Self, String> {
        let mut anchors = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            let certificate =
                certificate.map_err(|error| format!("the authorities are no PEM: {error:?}"))?;
            let anchor = anchor_from_trusted_cert(&certificate)
                .map_err(|error| format!("an authority's certificate can't be read: {error}"))?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() {
            return Err("there is no certificate among the authorities".to_owned());
        }
        let mut read = Vec::new();
        if let Some(text) = lists {
            for list in CertificateRevocationListDer::pem_slice_iter(text.as_bytes()) {
                let list =
                    list.map_err(|error| format!("the revocation list is no PEM: {error:?}"))?;
                let list = OwnedCertRevocationList::from_der(&list)
                    .map_err(|error| format!("a revocation list can't be read: {error}"))?;
                read.push(CertRevocationList::Owned(list));
            }
            if read.is_empty() {
                return Err("there is no revocation list in its file".to_owned());
            }
        }
        Ok(Self {
            anchors,
            lists: read,
            algorithms: aws_lc_rs::default_provider().signature_verification_algorithms,
        })
    }

    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        moment: Moment,
    ) -> Result<Proved, Refusal> {
        let (own, others) = chain.split_first().ok_or(Refusal::NoCredential)?;
        if chain.len() > LONGEST_CHAIN {
            return Err(Refusal::Malformed);
        }
        if !moment.trusted {
            return Err(Refusal::ClockUntrusted);
        }
        let seconds = u64::try_from(moment.now).map_err(|_| Refusal::ClockUntrusted)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let certificate = EndEntityCert::try_from(own).map_err(|_| Refusal::Malformed)?;
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        certificate
            .verify_for_usage(
                self.algorithms.all,
                &self.anchors,
                others,
                now,
                KeyUsage::client_auth(),
                revocation,
                None,
            )
            .map_err(|error| refusal_of(&error))?;
        Ok(Proved {
            names: names_of(&certificate)?,
            serial: plain_serial(&hex::encode(certificate.serial())).to_owned(),
            fingerprint: format!(
                "sha256:{}",
                hex::encode(
                    aws_lc_rs_digest(certificate.subject_public_key_info().as_ref()).as_slice()
                )
            ),
            expires: validity::not_after(own).ok_or(Refusal::Malformed)?,
        })
    }
}

fn aws_lc_rs_digest(bytes: &[u8]) -> Vec<u8> {
    use ::aws_lc_rs::digest::{SHA256, digest};
    digest(&SHA256, bytes).as_ref().to_vec()
}

fn names_of(certificate: &EndEntityCert<'_>) -> Result<BTreeSet<String>, Refusal> {
    let uris = certificate
        .valid_uri_names()
        .filter_map(|uri| uri.strip_prefix(URI));
    let names: BTreeSet<String> = certificate
        .valid_dns_names()
        .chain(uris)
        .take(MOST_NAMES + 1)
        .map(str::to_owned)
        .collect();
    if names.len() > MOST_NAMES {
        return Err(Refusal::Malformed);
    }
    Ok(names)
}

fn refusal_of(error: &webpki::Error) -> Refusal {
    use webpki::Error;
    match error {
        Error::CertExpired { .. } => Refusal::Expired,
        Error::CertNotValidYet { .. } => Refusal::NotYetValid,
        Error::CertRevoked => Refusal::Revoked,
        Error::UnknownIssuer => Refusal::WrongIssuer,
        Error::InvalidSignatureForPublicKey => Refusal::BadSignature,
        // Nobody can say whether it was revoked.
        Error::UnknownRevocationStatus | Error::CrlExpired { .. } => Refusal::Unavailable,
        _ => Refusal::Malformed,
    }
}

/// A serial number as everybody writes it: the encoding's leading zeros are no part of the number.
pub fn plain_serial(hex: &str) -> &str {
    match hex.trim_start_matches("00") {
        "" => "00",
        plain => plain,
    }
}
