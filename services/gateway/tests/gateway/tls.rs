//! The TLS listener, with real handshakes: HTTP/2 tunnels.

use std::sync::Arc;
use std::time::Duration;

use crate::lab::{self, HOST, Lab};
use crate::origin::hello;
use hyper::body::Bytes;
use hyper::{Method, Request};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Send = h2::client::SendRequest<Bytes>;

async fn agent(lab: &Lab) -> Send {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(lab.certificate.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(lab::TLS).await.unwrap();
    let name = ServerName::try_from("gateway.lab.test").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

fn connect(target: &str, key: Option<&str>) -> Request<()> {
    let mut request = Request::builder().method(Method::CONNECT).uri(target);
    if let Some(key) = key {
        request = request.header("proxy-authorization", format!("Bearer {key}"));
    }
    request.body(()).unwrap()
}

#[test]
fn streams_of_http2_are_tunnels_judged_like_any_other() {
    Lab::run(|lab| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut send = agent(lab).await;
            for (target, key, status) in [
                (format!("{HOST}:443"), None, 407),
                ("other.example:443".to_owned(), Some(lab.key()), 403),
            ] {
                let (response, _) = send.send_request(connect(&target, key), true).unwrap();
                let response = response.await.unwrap();
                assert_eq!(response.status(), status);
                let mut body = response.into_body();
                let bytes = body.data().await.unwrap().unwrap();
                let said: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(said["decision"], "deny");
            }
            let target = format!("{HOST}:443");
            let (response, mut stream) = send
                .send_request(connect(&target, Some(lab.key())), false)
                .unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            stream.send_data(Bytes::from(hello(HOST)), false).unwrap();
            let mut body = response.into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "!");
            stream
                .send_data(Bytes::from_static(b"and on"), true)
                .unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), "and on");
            let (response, mut stream) = send
                .send_request(connect(&target, Some(lab.key())), false)
                .unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
            stream
                .send_data(Bytes::from(hello("other.example")), false)
                .unwrap();
            let reset = tokio::time::timeout(
                Duration::from_secs(5),
                std::future::poll_fn(|cx| stream.poll_reset(cx)),
            )
            .await;
            assert!(
                reset.unwrap().is_ok(),
                "a hello for another host ends the stream"
            );
        });
        lab.idle();
        assert_eq!(lab.events().len(), 4);
    });
}

fn in_a_runtime(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work);
}

#[test]
fn an_idle_connection_of_http2_ends_when_the_gateway_drains() {
    Lab::run(|lab| {
        in_a_runtime(async {
            let send = agent(lab).await;
            lab.stop_accepting();
            let ended = tokio::time::timeout(Duration::from_secs(1), async {
                while send.clone().ready().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
            ended.await.expect("the connection ends within a second");
        });
    });
}

#[test]
fn a_stream_counts_like_a_connection_of_its_agent() {
    Lab::run_with(
        |world| world.revision.access.gateway.connections_per_agent = 2,
        |lab| {
            in_a_runtime(async {
                let mut send = agent(lab).await;
                let target = format!("{HOST}:443");
                let mut open = Vec::new();
                for status in [200, 200, 429] {
                    let (response, stream) = send
                        .send_request(connect(&target, Some(lab.key())), false)
                        .unwrap();
                    let response = response.await.unwrap();
                    assert_eq!(response.status(), status);
                    open.push((response, stream));
                }
            });
        },
    );
}

#[test]
fn what_is_no_tunnel_over_http2_leaves_one_event() {
    Lab::run(|lab| {
        in_a_runtime(async {
            let mut send = agent(lab).await;
            let request = Request::builder()
                .uri(format!("https://{HOST}/"))
                .body(())
                .unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status(), 400);
        });
        let events = lab.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0]["client_address"], "127.0.0.1");
    });
}
