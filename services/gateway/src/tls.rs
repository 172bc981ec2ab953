//! The TLS listener: agents whose way to the gateway is not to be trusted, and those who prove themselves by certificate.
//!
//! Here it is only made certain that whoever shows a certificate has its key; whose it is, and whether it counts, is
//! the judge's to say.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::session::{self, Connection};
use crate::stream::Stream;
use crate::worker::{Place, Worker};

const HTTP2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("reading {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} holds no usable {what}: {why}; write it as PEM", path.display())]
    Content {
        path: PathBuf,
        what: &'static str,
        why: String,
    },
    #[error("the certificate and its key do not fit together: {0}")]
    Pair(#[from] rustls::Error),
}

/// What the listener shows; replaced when its files are.
#[derive(Default)]
pub struct Showing(ArcSwapOption<ServerConfig>);

impl Showing {
    pub fn replace(&self, config: ServerConfig) {
        self.0.store(Some(Arc::new(config)));
    }

    fn acceptor(&self) -> Option<TlsAcceptor> {
        self.0.load_full().map(TlsAcceptor::from)
    }
}

/// One PEM file with the certificates, the gateway's own first, and one with its key.
pub fn config(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| TlsError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let content = |path: &Path, what, why: String| TlsError::Content {
        path: path.to_owned(),
        what,
        why,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| content(certificate, "certificate", error.to_string()))?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| content(key, "key", error.to_string()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let possession = Arc::new(Possession(provider.signature_verification_algorithms));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(possession)
        .with_single_cert(chain, private)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP11.to_vec()];
    // Resumed sessions would carry certificates of before they were revoked.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

pub async fn serve(worker: Arc<Worker>, stream: TcpStream, source: IpAddr, place: Place) {
    let Some(acceptor) = worker.showing.acceptor() else {
        return;
    };
    let stream = match timeout(worker.limits.head, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!("a TLS handshake with {source}: {error}");
            return;
        }
        Err(_) => return,
    };
    let state = stream.get_ref().1;
    let certificates = state
        .peer_certificates()
        .map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect());
    let is_http2 = state.alpn_protocol() == Some(HTTP2);
    let mut connection = Connection::new(Stream::Tls(Box::new(stream)), source, place);
    connection.certificates = certificates;
    if is_http2 {
        session::http2::serve(worker, connection).await;
    } else {
        session::serve(worker, connection).await;
    }
}

/// Lets every certificate in whose key its bearer has, and connections without any.
#[derive(Debug)]
struct Possession(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for Possession {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
