//! The settings of the committed revision, while the service runs: a collector comes, moves and goes without a restart; a
//! mistake leaves what there is, and is told once.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use clawgress_link::hex;
use serde_json::{Value, json};

struct Service {
    directory: tempfile::TempDir,
    child: Child,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        for name in ["state", "config"] {
            std::fs::create_dir(place.join(name)).unwrap();
        }
        let config = format!(
            "state = \"{0}/state\"\napi_socket = \"{0}/api.sock\"\napi_uids = [{1}]\nship_socket = \"{0}/ship.sock\"\n\
             enrol_socket = \"{0}/none\"\nsegment_bytes = 65536\ncheckpoint_seconds = 1\nresolver = \"127.0.0.1:53\"\n\
             revision = \"{0}/boot.json\"\nfiles = \"{0}/config\"\n[shippers]\n",
            place.display(),
            nix::unistd::getuid().as_raw()
        );
        std::fs::write(place.join("audit.toml"), config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_clawgress-audit"))
            .arg("--config")
            .arg(place.join("audit.toml"))
            .spawn()
            .unwrap();
        let service = Self { directory, child };
        until("it listens", || {
            UnixStream::connect(service.place().join("api.sock")).is_ok()
        });
        service
    }

    fn place(&self) -> &Path {
        self.directory.path()
    }

    /// As a commit does: written aside and renamed.
    fn commit(&self, number: u64, audit: &Value) {
        let access = match audit {
            Value::Null => json!({}),
            audit => json!({"access": {"audit": audit}}),
        };
        let content = access.to_string();
        let sum = hex::encode(digest(&SHA256, content.as_bytes()).as_ref());
        let text = format!(
            "{{\"format\":1,\"number\":{number},\"created\":1,\"digest\":\"{sum}\",\"content\":{content}}}\n"
        );
        std::fs::write(self.place().join("next.json"), text).unwrap();
        std::fs::rename(
            self.place().join("next.json"),
            self.place().join("boot.json"),
        )
        .unwrap();
    }

    fn ask(&self, question: &str, body: &str) -> String {
        let mut stream = UnixStream::connect(self.place().join("api.sock")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        write!(
            stream,
            "{question} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn told(&self, reason: &str) -> Vec<String> {
        let text = self.ask(
            "POST /audit/query",
            &json!({"limit": 1000, "where": {"reason": reason, "source": "audit"}}).to_string(),
        );
        let body = text.split_once("\r\n\r\n").unwrap().1;
        let answer: Value = serde_json::from_str(body).unwrap();
        let events = answer["events"].as_array().unwrap().iter();
        events
            .map(|event| event["path"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A collector that takes everything.
struct Collector {
    listener: TcpListener,
}

impl Collector {
    fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    fn url(&self) -> String {
        format!("http://{}/v1/logs", self.listener.local_addr().unwrap())
    }

    /// The sequences of the trail's own events in the next batch.
    fn take(&self) -> Vec<u64> {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut bytes = Vec::new();
        let body = loop {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).unwrap();
            bytes.extend_from_slice(&part[..count]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                if body.len() == length.unwrap().parse::<usize>().unwrap() {
                    break body.to_owned();
                }
            }
        };
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
            .unwrap();
        let export: Value = serde_json::from_str(&body).unwrap();
        let records = export["resourceLogs"][0]["scopeLogs"][0]["logRecords"].clone();
        let records = records.as_array().unwrap().iter();
        records
            .map(|record| {
                let event: Value =
                    serde_json::from_str(record["body"]["stringValue"].as_str().unwrap()).unwrap();
                event["sequence"].as_u64().unwrap()
            })
            .collect()
    }
}

#[test]
fn a_collector_comes_moves_and_goes_with_the_revision() {
    let service = Service::start();
    let (first, second) = (Collector::new(), Collector::new());
    // An export is an event; it makes something to be sent.
    let export = || service.ask("POST /audit/export", "");
    export();
    let otlp = |to: String| json!({"retain_days": 7, "otlp": {"to": to}});
    service.commit(5, &otlp(first.url()));
    assert_eq!(first.take(), [1]);
    // A lower one is not taken: what is sent next still goes to the first.
    service.commit(4, &otlp(second.url()));
    until("the refusal is told", || {
        service.told("revision-refused").len() == 1
    });
    let mut seen = first.take();
    service.commit(6, &otlp(second.url()));
    until("the new one is in force", || {
        service.told("revision-taken").len() == 1
    });
    export();
    while seen.len() < 3 {
        seen.extend(second.take());
    }
    assert_eq!(
        seen[..3],
        [2, 3, 4],
        "each once, in order, whoever takes it"
    );
    // A file that is not what was written changes nothing.
    let text = std::fs::read_to_string(service.place().join("boot.json")).unwrap();
    std::fs::write(
        service.place().join("boot.json"),
        text.replace("\"retain_days\":7", "\"retain_days\":8"),
    )
    .unwrap();
    let metrics = |wanted: &str| service.ask("GET /metrics", "").contains(wanted);
    assert!(metrics("clawgress_audit_forward_up{collector=\"otlp\"} 1"));
    service.commit(7, &Value::Null);
    until("no collector is left", || !metrics("collector=\"otlp\""));
    assert!(service.ask("GET /ready", "").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_mistake_in_a_file_of_authorities_is_told_once_and_stops_nothing() {
    let service = Service::start();
    let collector = Collector::new();
    service.commit(1, &json!({"otlp": {"to": collector.url()}}));
    service.ask("POST /audit/export", "");
    assert_eq!(collector.take(), [1]);
    let ca = |ca: &str| json!({"otlp": {"to": "https://127.0.0.1:9/x", "ca": ca}});
    for (number, file, content, why) in [
        (2, "ca.pem", None, "ca.pem is not there"),
        (
            3,
            "ca.pem",
            Some("no certificate"),
            "there is no certificate in it",
        ),
        (4, "../state/signing.key", None, "is not below"),
    ] {
        if let Some(content) = content {
            std::fs::write(service.place().join("config").join(file), content).unwrap();
        }
        service.commit(number, &ca(file));
        let status = || service.ask("POST /audit/status", "");
        std::thread::sleep(Duration::from_millis(1200));
        assert!(
            status().contains("\"otlp\""),
            "{why}: the collector stays as it was"
        );
        let told = service.told("collector-refused");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(number > 2 || told[0].contains(why), "{told:?}");
    }
    // What was told meanwhile goes to the collector that stayed.
    assert_eq!(collector.take(), [2]);
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(service.place().join("config/ca.pem"), made.cert.pem()).unwrap();
    service.commit(5, &ca("ca.pem"));
    until("it is taken", || {
        service.told("collector-accepted").len() == 1
    });
    until("its outage is told", || {
        service.told("forwarding-stopped").len() == 1
    });
}
