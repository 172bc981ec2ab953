//! Speaks to the TLS front of this very box and trusts one certificate alone: the one that was made for it at first
//! boot. Names, issuers and dates do not matter (a box without a clock must be able to check itself); the bytes do.
//!
//! Never to be used for anything that is not on this machine.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::error::{ProbeError, within};

/// Where appliance-init leaves the public half of what haproxy loads.
pub const CERTIFICATE: &str = "/var/lib/clawgress/tls/front.crt";

/// Far above any answer of our own services.
const LARGEST_BODY: usize = 1024 * 1024;

/// Shakes hands and hangs up: proof that the front runs and holds the key of that certificate.
pub async fn handshake(
    addr: SocketAddr,
    certificate_pem: &Path,
    deadline: Duration,
) -> Result<(), ProbeError> {
    let doing = format!("shaking hands with the TLS front at {addr}");
    within(deadline, &doing, async {
        let mut stream = connect(addr, certificate_pem, &doing).await?;
        // Hang up in due form and wait for the peer to do the same: until then it has not told whether it accepted
        // our half of the handshake, and a connection that just vanishes is an error in its log.
        stream.shutdown().await.map_err(ProbeError::io(&doing))?;
        let mut rest = [0; 256];
        while stream
            .read(&mut rest)
            .await
            .map_err(ProbeError::io(&doing))?
            > 0
        {}
        Ok(())
    })
    .await
}

/// Posts a JSON text and returns status and body.
pub async fn post_json(
    addr: SocketAddr,
    certificate_pem: &Path,
    path: &str,
    body: &str,
    deadline: Duration,
) -> Result<(u16, String), ProbeError> {
    let doing = format!("posting to https://{addr}{path}");
    within(deadline, &doing, async {
        let stream = connect(addr, certificate_pem, &doing).await?;
        let request = Request::post(path)
            .header("host", addr.to_string())
            .header("content-type", "application/json")
            .header("connection", "close")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| ProbeError::answer(&doing, error))?;

        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ProbeError::answer(&doing, error))?;
        // Driven beside the exchange and dropped with it, so that a deadline leaves no task behind.
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| ProbeError::answer(&doing, error))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), LARGEST_BODY)
                .collect()
                .await
                .map_err(|error| ProbeError::answer(&doing, error))?;
            Ok((
                status,
                String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            ))
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            outcome = &mut exchange => outcome,
            // The connection may end before the last of the body has been taken out of it.
            _ = &mut connection => exchange.await,
        }
    })
    .await
}

async fn connect(
    addr: SocketAddr,
    certificate_pem: &Path,
    doing: &str,
) -> Result<TlsStream<TcpStream>, ProbeError> {
    let pem = tokio::fs::read(certificate_pem)
        .await
        .map_err(ProbeError::io(format!(
            "{doing}: reading {}",
            certificate_pem.display()
        )))?;
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|error| {
        ProbeError::answer(
            doing,
            format!(
                "{} holds no certificate in PEM: {error:?}",
                certificate_pem.display()
            ),
        )
    })?;
    let config = pinned(certificate).map_err(|error| ProbeError::answer(doing, error))?;
    let stream = TcpStream::connect(addr)
        .await
        .map_err(ProbeError::io(doing))?;
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::IpAddress(addr.ip().into()), stream)
        .await
        .map_err(ProbeError::io(doing))
}

fn pinned(certificate: CertificateDer<'static>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pin {
            certificate,
            provider,
        }))
        .with_no_client_auth();
    Ok(config)
}

/// Accepts the one certificate, and only from a peer that signs with its key.
#[derive(Debug)]
struct Pin {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
