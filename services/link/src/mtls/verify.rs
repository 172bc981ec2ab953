//! Judges a peer: its chain to the box's authority, the end of its certificate, and its role.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage};

use super::{Credentials, Role};

/// The one role that a certificate says; none if it says several.
pub(super) fn role_of(certificate: &CertificateDer<'_>) -> Option<Role> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_uri_names();
    let role = Role::of_uri(names.next()?)?;
    names.next().is_none().then_some(role)
}

#[derive(Debug)]
pub(super) struct Peer {
    own: Arc<Credentials>,
    allowed: Vec<Role>,
}

#[derive(Debug, thiserror::Error)]
#[error("a peer of role {found} where one of {allowed} is expected")]
struct WrongRole {
    found: &'static str,
    allowed: String,
}

impl Peer {
    pub(super) fn new(own: &Arc<Credentials>, allowed: &[Role]) -> Self {
        Self {
            own: Arc::clone(own),
            allowed: allowed.to_vec(),
        }
    }

    fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let bad = |error: webpki::Error| {
            Error::InvalidCertificate(match error {
                webpki::Error::CertExpired { .. } => CertificateError::Expired,
                webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
                webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
                other => CertificateError::Other(OtherError(Arc::new(other))),
            })
        };
        let parsed = EndEntityCert::try_from(certificate).map_err(bad)?;
        let current = self.own.current();
        let algorithms = self.own.provider().signature_verification_algorithms.all;
        parsed
            .verify_for_usage(algorithms, &current.anchors, others, now, usage, None, None)
            .map_err(bad)?;
        let role = role_of(certificate);
        if role.is_some_and(|role| self.allowed.contains(&role)) {
            return Ok(());
        }
        let words: Vec<&str> = self.allowed.iter().map(|role| role.word()).collect();
        let wrong = WrongRole {
            found: role.map_or("none", Role::word),
            allowed: words.join(", "),
        };
        Err(Error::InvalidCertificate(CertificateError::Other(
            OtherError(Arc::new(wrong)),
        )))
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = self.own.provider();
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &provider.signature_verification_algorithms,
        )
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.own
            .provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Only TLS 1.3 is spoken; nothing of 1.2 is ever right.
fn too_old() -> Error {
    Error::General("TLS 1.2 is not spoken between services".to_owned())
}

impl ServerCertVerifier for Peer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Peer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
