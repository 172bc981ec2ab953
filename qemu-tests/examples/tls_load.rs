//! Both ends of a measurement of new TLS connections: `serve ADDRESS` answers each with a few bytes, `connect ADDRESS
//! NAME SECONDS WORKERS` makes one after the other, whole handshakes without resumption, and prints how many a second.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection,
    SignatureScheme, Stream,
};

const ANSWER: &[u8] = b"here";
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", address] => serve(address.parse()?),
        ["connect", address, name, seconds, workers] => connect(
            address.parse()?,
            name,
            Duration::from_secs(seconds.parse()?),
            workers.parse()?,
        ),
        _ => bail!("serve ADDRESS, or connect ADDRESS NAME SECONDS WORKERS"),
    }
}

fn serve(address: SocketAddr) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(["site".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    println!("listening on {address}");
    for stream in listener.incoming() {
        let (stream, config) = (stream?, Arc::clone(&config));
        // A client that goes away in the middle is its own affair.
        std::thread::spawn(move || answer(stream, config).ok());
    }
    Ok(())
}

fn answer(mut stream: TcpStream, config: Arc<ServerConfig>) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut connection = ServerConnection::new(config)?;
    let mut tls = Stream::new(&mut connection, &mut stream);
    tls.write_all(ANSWER)?;
    tls.conn.send_close_notify();
    tls.flush()?;
    Ok(())
}

fn connect(address: SocketAddr, name: &str, time: Duration, workers: usize) -> Result<()> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let name = ServerName::try_from(name.to_owned())?;
    let (made, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while begun.elapsed() < time {
                    let count = match once(address, &config, &name) {
                        Ok(()) => &made,
                        Err(_) => &failed,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (made, failed) = (made.into_inner(), failed.into_inner());
    if failed > made / 100 {
        bail!("{failed} connections failed and {made} did not");
    }
    println!("{:.1}", made as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

fn once(address: SocketAddr, config: &Arc<ClientConfig>, name: &ServerName<'static>) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut connection = ClientConnection::new(Arc::clone(config), name.clone())?;
    let mut tls = Stream::new(&mut connection, &mut stream);
    let mut answer = [0; ANSWER.len()];
    tls.read_exact(&mut answer)?;
    Ok(())
}

/// Who answers is not what is measured.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
