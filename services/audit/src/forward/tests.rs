//! Forwarding against real TLS servers that go away and come back: nothing is lost, nothing comes twice.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::address::Host;
use super::*;
use crate::event::Event;
use crate::store::Settings;
use crate::store::checkpoint::SigningKey;
use crate::store::tests::queued;

struct Lab {
    directory: tempfile::TempDir,
    store: Arc<Store>,
    acceptor: TlsAcceptor,
}

fn lab() -> Lab {
    let directory = tempfile::tempdir().unwrap();
    let made =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "logs.example.com".to_owned()])
            .unwrap();
    std::fs::write(directory.path().join("ca.pem"), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let signing = SigningKey::open(&directory.path().join("key")).unwrap();
    let store = Store::open(
        &directory.path().join("store"),
        signing,
        Settings {
            segment_bytes: 64 * 1024,
        },
    )
    .unwrap();
    Lab {
        directory,
        store: Arc::new(store),
        acceptor: TlsAcceptor::from(Arc::new(config)),
    }
}

impl Lab {
    fn reach(&self, name: &str, port: u16, resolver: SocketAddr) -> Reach {
        let host = Host {
            name: name.to_owned(),
            port,
        };
        let ca = self.directory.path().join("ca.pem");
        let pem = std::fs::read(&ca).unwrap();
        Reach::new(host, &ca, &pem, resolver).unwrap()
    }

    fn add(&self, range: std::ops::Range<u64>) {
        let records: Vec<_> = range.map(|number| queued(number, "a", 0)).collect();
        self.store.append("gw", "q", &records).unwrap();
    }

    fn keep(&self, sender: Sender) -> (tokio::task::JoinHandle<()>, Watch) {
        let (store, state, watch) = (
            Arc::clone(&self.store),
            self.directory.path().to_owned(),
            Watch::default(),
        );
        let told = watch.clone();
        (
            tokio::spawn(async move {
                let alerts = Alerts::new(Arc::clone(&store));
                super::keep(store, sender, &state, watch, alerts).await;
            }),
            told,
        )
    }

    async fn accept(&self, listener: &TcpListener) -> TlsStream<TcpStream> {
        let (stream, _) = listener.accept().await.unwrap();
        self.acceptor.accept(stream).await.unwrap()
    }
}

use super::address::Reach;

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

/// Octet counts are what delimits; anything else between messages is a fault.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&bytes[..space])
            .unwrap()
            .parse()
            .unwrap();
        messages.push(String::from_utf8(bytes[space + 1..space + 1 + length].to_vec()).unwrap());
        bytes = &bytes[space + 1 + length..];
    }
    messages
}

fn sequence(json: &str) -> (String, u64) {
    let origin = Event::parse(json.as_bytes()).unwrap().origin;
    (origin.gateway, origin.sequence)
}

#[tokio::test]
async fn syslog_catches_up_after_an_outage_without_loss_or_duplicate() {
    let lab = lab();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    lab.add(1..11);
    let (keeping, watch) = lab.keep(Sender::Syslog(Syslog(lab.reach(
        "127.0.0.1",
        address.port(),
        nowhere(),
    ))));
    let mut got = Vec::new();
    let mut first = lab.accept(&listener).await;
    let mut bytes = Vec::new();
    first.read_to_end(&mut bytes).await.unwrap();
    first.shutdown().await.unwrap();
    got.extend(frames(&bytes));
    assert!(got[0].starts_with("<110>1 1970-01-01T00:00:00.000000Z gw clawgress - proxy [origin@32473 queue=\"q\" sequence=\"1\"] {"), "{}", got[0]);
    // Away: nobody listens, then somebody who takes a part and dies.
    drop(listener);
    lab.add(11..2500);
    while watch.tell()["syslog"].outage.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let listener = TcpListener::bind(address).await.unwrap();
    let mut dying = lab.accept(&listener).await;
    dying.read_exact(&mut [0; 3000]).await.unwrap();
    nix::sys::socket::setsockopt(
        dying.get_ref().0,
        nix::sys::socket::sockopt::Linger,
        &nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )
    .unwrap();
    drop(dying);
    while got.len() < 2501 {
        let mut stream = lab.accept(&listener).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        got.extend(frames(&bytes));
    }
    let names: Vec<_> = got
        .iter()
        .map(|message| sequence(&message[message.find('{').unwrap()..]))
        .collect();
    let different: BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "duplicates");
    let ours = names
        .iter()
        .filter(|(gateway, _)| gateway == "gw")
        .map(|(_, sequence)| *sequence);
    assert_eq!(ours.collect::<Vec<_>>(), (1..2500).collect::<Vec<_>>());
    assert!(
        got.iter()
            .any(|message| message.contains("forwarding-stopped"))
    );
    keeping.abort();
    // Begun anew, it goes on where it was.
    lab.add(2500..2510);
    let (keeping, _) = lab.keep(Sender::Syslog(Syslog(lab.reach(
        "127.0.0.1",
        address.port(),
        nowhere(),
    ))));
    let mut bytes = Vec::new();
    lab.accept(&listener)
        .await
        .read_to_end(&mut bytes)
        .await
        .unwrap();
    let rest: Vec<u64> = frames(&bytes)
        .iter()
        .map(|message| sequence(&message[message.find('{').unwrap()..]))
        .filter(|(gateway, _)| gateway == "gw")
        .map(|(_, sequence)| sequence)
        .collect();
    assert!(
        rest.ends_with(&(2500..2510).collect::<Vec<_>>()),
        "{rest:?}"
    );
    keeping.abort();
}

/// One request; the answer is what the test gives.
async fn answer(stream: &mut TlsStream<TcpStream>, status: &str) -> serde_json::Value {
    let mut bytes = Vec::new();
    let body = loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.unwrap();
        bytes.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("POST /v1/logs HTTP/1.1\r\n"), "{head}");
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                break body.to_owned();
            }
        }
    };
    let reply = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
    );
    stream.write_all(reply.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    serde_json::from_str(&body).unwrap()
}

fn records(export: &serde_json::Value) -> Vec<serde_json::Value> {
    export["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test]
async fn a_collector_that_refuses_gets_the_same_again() {
    let lab = lab();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Its name is asked of a resolver.
    let resolver = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = resolver.local_addr().unwrap();
    let (asked, mut questions) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = resolver.recv_from(&mut buffer).await.unwrap();
            let mut answer = hickory_proto::op::Message::from_vec(&buffer[..length]).unwrap();
            answer.metadata.message_type = hickory_proto::op::MessageType::Response;
            let question = answer.queries[0].clone();
            let _ = asked.send(question.name().to_ascii());
            if question.query_type() == hickory_proto::rr::RecordType::A {
                let address = hickory_proto::rr::rdata::A(std::net::Ipv4Addr::LOCALHOST);
                let record = hickory_proto::rr::Record::from_rdata(
                    question.name().clone(),
                    5,
                    hickory_proto::rr::RData::A(address),
                );
                answer.add_answer(record);
            }
            resolver
                .send_to(&answer.to_vec().unwrap(), from)
                .await
                .unwrap();
        }
    });
    lab.add(1..4);
    let reach = || {
        let port = listener.local_addr().unwrap().port();
        lab.reach("logs.example.com", port, at)
    };
    // No name of a collector leads to this machine itself.
    let error = reach().connect().await.unwrap_err().to_string();
    assert!(
        error.contains("its name leads to 127.0.0.1, where no collector is"),
        "{error}"
    );
    let otlp = Otlp {
        reach: reach().at_loopback_too(),
        path: "/v1/logs".to_owned(),
    };
    let (keeping, watch) = lab.keep(Sender::Otlp(otlp));
    let refused = answer(&mut lab.accept(&listener).await, "503 Service Unavailable").await;
    let taken = answer(&mut lab.accept(&listener).await, "200 OK").await;
    assert_eq!(questions.recv().await.unwrap(), "logs.example.com.");
    assert_eq!(records(&refused)[..3], records(&taken)[..3]);
    let first = &records(&taken)[0];
    assert_eq!(first["timeUnixNano"], "0");
    assert_eq!(first["severityText"], "INFO");
    let attributes = first["attributes"].as_array().unwrap();
    assert!(
        attributes.contains(
            &serde_json::json!({"key": "clawgress.sequence", "value": {"intValue": "1"}})
        )
    );
    assert!(attributes.contains(
        &serde_json::json!({"key": "clawgress.agent_id", "value": {"stringValue": "a"}})
    ));
    while watch.tell()["otlp"].delivered < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(watch.tell()["otlp"].outage, None);
    keeping.abort();
}

#[tokio::test]
async fn a_collector_of_another_authority_gets_nothing() {
    let (lab, other) = (lab(), super::tests::lab());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = other.acceptor.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err());
    });
    let error = lab
        .reach("127.0.0.1", port, nowhere())
        .connect()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    let host = Host {
        name: "127.0.0.1".to_owned(),
        port,
    };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (pem, why) in [
        ("", "no certificate in it"),
        (broken, "reading /config/ca.pem"),
    ] {
        let ca = std::path::Path::new("/config/ca.pem");
        let error = Reach::new(host.clone(), ca, pem.as_bytes(), nowhere())
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// However long the events are, a batch has a bounded size.
#[tokio::test]
async fn a_batch_is_bounded_in_bytes() {
    let lab = lab();
    let long = |sequence: u64| {
        let mut event = queued(sequence, "a", 0);
        let path = format!(",\"path\":\"{}\"}}", "x".repeat(30_000));
        event.text.pop();
        event.text.extend_from_slice(path.as_bytes());
        event
    };
    for from in (1..401).step_by(50) {
        let records: Vec<_> = (from..from + 50).map(long).collect();
        lab.store.append("gw", "q", &records).unwrap();
    }
    let whole = Query {
        limit: 1000,
        ..Query::default()
    };
    let first = page(&lab.store, &whole).unwrap();
    assert!(
        first.lines.len() < 300 && first.next.is_some(),
        "{}",
        first.lines.len()
    );
    let mut at = None;
    let mut seen = 0;
    loop {
        let lines = read(&lab.store, at).await.unwrap();
        let Some(last) = lines.last() else { break };
        let bytes: usize = lines.iter().map(|line| line.json.len()).sum();
        assert!(bytes <= BATCH_BYTES && lines.len() <= BATCH);
        let body = serde_json::to_vec(&otlp::export(&lines)).unwrap();
        assert!(body.len() < 4 * BATCH_BYTES, "{}", body.len());
        at = Some(last.place);
        seen += lines.len();
    }
    assert_eq!((seen, lab.store.behind(at)), (400, 0));
    assert_eq!(lab.store.behind(None), 400);
}

#[tokio::test]
async fn an_outage_is_told_once_however_long_it_lasts() {
    let lab = lab();
    let alerts = Alerts::new(Arc::clone(&lab.store));
    for _ in 0..5 {
        alerts
            .begins("otlp", "forwarding-stopped", "away".to_owned())
            .await;
    }
    alerts
        .ends("otlp", "forwarding-resumed", "back".to_owned())
        .await;
    alerts
        .ends("otlp", "forwarding-resumed", "back".to_owned())
        .await;
    // So soon that it is the same outage.
    alerts
        .begins("otlp", "forwarding-stopped", "away".to_owned())
        .await;
    alerts
        .ends("otlp", "forwarding-resumed", "back".to_owned())
        .await;
    let told: Vec<_> = read(&lab.store, None)
        .await
        .unwrap()
        .iter()
        .map(|line| Event::parse(line.json.as_bytes()).unwrap())
        .map(|event| {
            (
                event.begun.source,
                event.outcome.reason.unwrap(),
                event.begun.alert,
            )
        })
        .collect();
    let source = crate::event::Source::Audit;
    assert_eq!(
        told,
        [
            (source, "forwarding-stopped".into(), true),
            (source, "forwarding-resumed".into(), false)
        ]
    );
}
