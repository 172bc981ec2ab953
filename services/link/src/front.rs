//! Speaks to the TLS front of this very box and trusts one certificate alone: the one that was made for it at first
//! boot. Names, issuers and dates do not matter (a box without a clock must be able to check itself); the bytes do.
//!
//! Never to be used for anything that is not on this machine.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

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
