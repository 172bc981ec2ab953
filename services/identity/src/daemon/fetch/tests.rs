//! Keys from a real TLS server: fetched, refused, kept; and when they are asked for.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clawgress_config::access::{Access, Issuer, KeySource};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::client::may_serve;
use super::{AT_MOST_EVERY, Client, EVERY, Fetched, LONGEST_RETRY, Order, Source};

const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const OTHER: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"b","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const NAME: &str = "login.example.com";

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

struct Server {
    port: u16,
    /// PEM of the authority behind it.
    ca: String,
    /// What it says, as it stands on the wire.
    says: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

async fn server(answer: String) -> Server {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.clone().self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![NAME.to_owned(), "127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        port: listener.local_addr().unwrap().port(),
        ca: ca_certificate.pem(),
        says: Arc::new(Mutex::new(answer)),
        asked: Arc::default(),
    };
    let (says, asked) = (Arc::clone(&server.says), Arc::clone(&server.asked));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, says, asked) = (acceptor.clone(), Arc::clone(&says), Arc::clone(&asked));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                assert!(head.starts_with("GET /keys?set=1 HTTP/1.1\r\n"), "{head}");
                assert!(head.contains("host: login.example.com") || head.contains("host: 127"));
                asked.fetch_add(1, Ordering::Relaxed);
                let answer = says.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    server
}

/// A resolver that leads every name to this address.
async fn resolver(address: [u8; 4]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            // The question comes back, with one record of class IN behind it where that is of kind A.
            let question_end = 12
                + buffer[12..length]
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap()
                + 5;
            let is_a = buffer[question_end - 3] == 1;
            let mut answer = buffer[..question_end].to_vec();
            answer[2] = 0x81;
            answer[3] = 0x80;
            answer[6..12].copy_from_slice(&[0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend_from_slice(&address);
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    at
}

/// What production judges, but for the one address that this machine's tests can serve from.
fn loopback_too(address: IpAddr, literal: bool) -> Result<(), &'static str> {
    if address.is_loopback() {
        Ok(())
    } else {
        may_serve(address, literal)
    }
}

async fn client(leads_to: [u8; 4]) -> Client {
    Client {
        resolver: Some(resolver(leads_to).await),
        permits: loopback_too,
    }
}

fn source(server: &Server, host: &str) -> Source {
    Source {
        url: format!("https://{host}:{}/keys?set=1", server.port),
        ca: Some(server.ca.clone()),
    }
}

#[tokio::test]
async fn keys_come_from_a_server_that_its_authority_vouches_for() {
    let server = server(ok(KEYS)).await;
    let client = client([127, 0, 0, 1]).await;
    assert_eq!(client.fetch(&source(&server, NAME)).await.unwrap(), KEYS);
    assert_eq!(
        client.fetch(&source(&server, "127.0.0.1")).await.unwrap(),
        KEYS
    );

    let refused = async |source: Source| client.fetch(&source).await.unwrap_err();
    let stranger = super::tests::server(ok(KEYS)).await;
    let error = refused(Source {
        ca: Some(stranger.ca.clone()),
        ..source(&server, NAME)
    })
    .await;
    assert!(
        error.contains("UnknownIssuer") || error.contains("certificate"),
        "{error}"
    );
    let error = refused(source(&server, "other.example.com")).await;
    assert!(error.contains("TLS with other.example.com"), "{error}");
    let error = refused(Source {
        ca: Some("no PEM".to_owned()),
        ..source(&server, NAME)
    })
    .await;
    assert!(
        error.contains("no certificate among its authorities"),
        "{error}"
    );
    let error = refused(Source {
        url: format!("http://{NAME}:{}/keys?set=1", server.port),
        ca: None,
    })
    .await;
    assert!(error.contains("https alone"), "{error}");
    assert_eq!(server.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn only_a_whole_answer_of_bounded_size_counts() {
    let server = server(ok(KEYS)).await;
    let client = client([127, 0, 0, 1]).await;
    for (says, why) in [
        (
            "HTTP/1.1 302 Found\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
            "302",
        ),
        (
            "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "500",
        ),
        (ok(&"x".repeat(300 * 1024)), "length limit"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nshort".to_owned(),
            "",
        ),
        ("no HTTP at all\r\n\r\n".to_owned(), ""),
        (String::new(), ""),
    ] {
        server.says.lock().unwrap().clone_from(&says);
        let error = client.fetch(&source(&server, NAME)).await.unwrap_err();
        let head: String = says.chars().take(30).collect();
        assert!(error.contains(why), "{head}: {error}");
    }
}

#[tokio::test]
async fn no_name_leads_inside() {
    let server = server(ok(KEYS)).await;
    let inside = client([10, 0, 0, 1]).await;
    let error = inside.fetch(&source(&server, NAME)).await.unwrap_err();
    assert!(error.contains("10.0.0.1 is inside"), "{error}");
    let plain = Client::new(None);
    let error = plain
        .fetch(&source(&server, "127.0.0.1"))
        .await
        .unwrap_err();
    assert!(error.contains("is this machine"), "{error}");
    let error = plain.fetch(&source(&server, NAME)).await.unwrap_err();
    assert!(error.contains("names no resolver"), "{error}");
    assert_eq!(server.asked.load(Ordering::Relaxed), 0);
    for (address, by_name, literal) in [
        ("192.0.2.1", true, true),
        ("10.0.0.1", false, true),
        ("fd00::1", false, true),
        ("169.254.169.254", false, true),
        ("127.0.0.1", false, false),
        ("::1", false, false),
        ("::ffff:10.0.0.1", false, false),
    ] {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(may_serve(address, false).is_ok(), by_name, "{address}");
        assert_eq!(may_serve(address, true).is_ok(), literal, "{address}");
    }
}

fn access(url: &str, ca: Option<&str>) -> Access {
    let mut access = Access::default();
    access.issuers.insert(
        "login".to_owned(),
        Issuer {
            issuer: "https://login.example.com/".to_owned(),
            audience: "agents".to_owned(),
            algorithms: ["EdDSA".to_owned()].into(),
            keys: KeySource::Url(url.to_owned()),
            key_ca: ca.map(str::to_owned),
            leeway_seconds: 0,
            claims: std::collections::BTreeMap::new(),
        },
    );
    access
}

fn only(orders: Vec<Order>) -> Order {
    assert_eq!(orders.len(), 1, "{orders:?}");
    orders.into_iter().next().unwrap()
}

#[test]
fn the_last_good_set_stays_and_is_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let read = |file: &str| Ok(format!("text of {file}"));
    let url = "https://login.example.com/k";
    let now = Instant::now();
    let mut fetched = Fetched::open(directory.path());
    fetched.want(&access(url, None), now, read);
    assert!(
        fetched
            .keys("login")
            .unwrap_err()
            .contains("not been fetched")
    );
    let order = only(fetched.due(now));
    assert!(fetched.due(now).is_empty(), "it is under way");
    assert!(fetched.take(&order, Ok(KEYS.to_owned()), now));
    assert!(
        !fetched.take(&order, Ok(KEYS.to_owned()), now),
        "the same keys"
    );
    for bad in [
        Err("away".to_owned()),
        Ok("<html>".to_owned()),
        Ok(r#"{"keys":[]}"#.to_owned()),
        Ok(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#.to_owned()),
    ] {
        assert!(!fetched.take(&order, bad, now));
        assert_eq!(fetched.keys("login"), Ok(KEYS));
        let faults = fetched.faults();
        assert!(
            faults[0].contains("the last good keys stay in force"),
            "{faults:?}"
        );
    }

    // A restart while the server is away.
    let mut fetched = Fetched::open(directory.path());
    fetched.want(&access(url, None), now, read);
    assert_eq!(fetched.keys("login"), Ok(KEYS));
    // Another URL, or other authorities: nothing of the old ones is believed, also after a restart.
    for other in [
        access("https://login.example.com/other", None),
        access(url, Some("/config/ca.pem")),
    ] {
        fetched.want(&access(url, None), now, read);
        let order = Order {
            issuer: "login".to_owned(),
            source: Source {
                url: url.to_owned(),
                ca: None,
            },
        };
        fetched.take(&order, Ok(KEYS.to_owned()), now);
        assert_eq!(fetched.keys("login"), Ok(KEYS));
        fetched.want(&other, now, read);
        assert!(fetched.keys("login").is_err());
        // What was under way before is not taken.
        assert!(!fetched.take(&order, Ok(OTHER.to_owned()), now));
        let mut again = Fetched::open(directory.path());
        again.want(&other, now, read);
        assert!(again.keys("login").is_err());
    }
    // Authorities that can't be read are no reason to go without any.
    let other = tempfile::tempdir().unwrap();
    let mut fetched = Fetched::open(other.path());
    fetched.want(&access(url, Some("/config/ca.pem")), now, |_| {
        Err("gone".to_owned())
    });
    assert!(fetched.due(now).is_empty());
    // Nor to forget what was fetched with those that could be read.
    let with_ca = access(url, Some("/config/ca.pem"));
    fetched.want(&with_ca, now, |_| Ok("an authority".to_owned()));
    let order = only(fetched.due(now));
    fetched.take(&order, Ok(KEYS.to_owned()), now);
    let mut again = Fetched::open(other.path());
    again.want(&with_ca, now, |_| Err("gone".to_owned()));
    assert_eq!(again.keys("login"), Ok(KEYS));
    assert!(again.faults()[0].contains("gone"), "{:?}", again.faults());
}

#[test]
fn it_is_asked_again_in_time_and_not_more_often() {
    let directory = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut fetched = Fetched::open(directory.path());
    let wanted = access("https://login.example.com/k", None);
    fetched.want(&wanted, begun, |_| Err("none".to_owned()));
    let order = only(fetched.due(begun));
    fetched.take(&order, Ok(KEYS.to_owned()), begun);
    let early = begun + EVERY.mul_f64(0.79);
    assert!(fetched.due(early).is_empty());
    assert_eq!(fetched.due(begun + EVERY.mul_f64(1.21)).len(), 1);

    // Unknown keys: at once if it was long ago, else when it may be asked again; strangers' names do nothing.
    let directory = tempfile::tempdir().unwrap();
    let mut fetched = Fetched::open(directory.path());
    fetched.want(&wanted, begun, |_| Err("none".to_owned()));
    let order = only(fetched.due(begun));
    fetched.take(&order, Ok(KEYS.to_owned()), begun);
    let names: BTreeSet<String> = ["login".to_owned(), "nobody".to_owned()].into();
    let second = Duration::from_secs(1);
    fetched.missed(&names, begun + second);
    assert!(fetched.due(begun + second).is_empty());
    let order = only(fetched.due(begun + AT_MOST_EVERY));
    // The answer has not come yet: no second one meanwhile, and after it the same bound.
    fetched.missed(&names, begun + AT_MOST_EVERY + second);
    assert!(fetched.due(begun + AT_MOST_EVERY + second).is_empty());
    // It brought nothing new: whoever makes up names of keys has the server asked less and less often.
    fetched.take(&order, Ok(KEYS.to_owned()), begun + AT_MOST_EVERY + second);
    fetched.missed(&names, begun + AT_MOST_EVERY + second);
    assert!(fetched.due(begun + AT_MOST_EVERY * 2 + second).is_empty());
    assert_eq!(fetched.due(begun + AT_MOST_EVERY * 3).len(), 1);

    // A server that is away is asked less and less often.
    let mut now = begun + LONGEST_RETRY * 3;
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let order = only(fetched.due(now));
        fetched.take(&order, Err("away".to_owned()), now);
        let before = now;
        while fetched.due(now).is_empty() {
            now += Duration::from_millis(100);
        }
        pauses.push(now - before);
        now += LONGEST_RETRY * 2;
    }
    assert!(pauses[0] < Duration::from_secs(3), "{pauses:?}");
    assert!(
        pauses[11] > LONGEST_RETRY / 2 && pauses[11] <= LONGEST_RETRY.mul_f64(1.21),
        "{pauses:?}"
    );
    // Nor do made up keys hurry it.
    let order = only(fetched.due(now));
    fetched.take(&order, Err("away".to_owned()), now);
    fetched.missed(&names, now + second);
    assert!(fetched.due(now + AT_MOST_EVERY * 3).is_empty());
}
