//! The front probe against TLS servers with the right key, another key, and none.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clawgress_link::{ProbeError, front};
use rcgen::CertifiedKey;
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

const DEADLINE: Duration = Duration::from_secs(5);

fn certified() -> CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["clawgress".to_owned()]).unwrap()
}

/// Serves TLS with that key, and hangs up when the client does.
async fn server(key: &CertifiedKey<rcgen::KeyPair>) -> SocketAddr {
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that refuses our certificate ends here.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut rest = [0; 256];
                while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {}
                stream.shutdown().await.ok();
            });
        }
    });
    address
}

/// The certificate as the file that appliance-init leaves.
fn pinned(key: &CertifiedKey<rcgen::KeyPair>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front.crt");
    std::fs::write(&path, key.cert.pem()).unwrap();
    (directory, path)
}

#[tokio::test]
async fn the_right_key_is_recognised() {
    let key = certified();
    let (_directory, path) = pinned(&key);
    let address = server(&key).await;
    front::handshake(address, &path, DEADLINE).await.unwrap();
}

#[tokio::test]
async fn another_key_is_refused_even_under_the_same_name() {
    let (_directory, path) = pinned(&certified());
    let address = server(&certified()).await;
    let error = front::handshake(address, &path, DEADLINE)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("shaking hands with the TLS front"),
        "{error}"
    );
    assert!(error.contains("ertificate"), "{error}");
}

#[tokio::test]
async fn a_port_that_accepts_and_says_nothing_is_not_healthy() {
    let (_directory, path) = pinned(&certified());
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let error = front::handshake(address, &path, Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(matches!(error, ProbeError::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let error = front::handshake(
        "127.0.0.1:1".parse().unwrap(),
        "/nonexistent/front.crt".as_ref(),
        DEADLINE,
    )
    .await
    .unwrap_err()
    .to_string();
    assert!(error.contains("reading /nonexistent/front.crt"), "{error}");

    let (_directory, path) = pinned(&certified());
    std::fs::write(&path, "no certificate").unwrap();
    let error = front::handshake("127.0.0.1:1".parse().unwrap(), &path, DEADLINE)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("holds no certificate in PEM"), "{error}");
}
