//! The service as it runs: configuration, sockets, questions, live stream, export, proof, and who is not answered.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clawgress_audit::event::{Begun, Outcome};
use clawgress_audit::queue::{Queue, Settings};
use clawgress_audit::ship::ship;
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

fn service() -> Service {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    std::fs::create_dir(place.join("state")).unwrap();
    let uid = nix::unistd::getuid().as_raw();
    let config = format!(
        "state = \"{0}/state\"\napi_socket = \"{0}/api.sock\"\napi_uids = [{uid}]\nship_socket = \"{0}/ship.sock\"\n\
         enrol_socket = \"{0}/none\"\nsegment_bytes = 65536\ncheckpoint_seconds = 1\n\
         resolver = \"127.0.0.1:53\"\nrevision = \"{0}/boot.json\"\nfiles = \"{0}/config\"\n[shippers]\ngateway = {uid}\n",
        place.display()
    );
    std::fs::write(place.join("audit.toml"), config).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_clawgress-audit"))
        .arg("--config")
        .arg(place.join("audit.toml"))
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let service = Service { directory, child };
    let until = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(service.path().join("api.sock")).is_err() {
        assert!(Instant::now() < until, "the service does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    service
}

impl Service {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn send(&self, path: &str, body: &str) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(self.path().join("api.sock")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        BufReader::new(stream)
    }

    fn get(&self, path: &str) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(self.path().join("api.sock")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        BufReader::new(stream)
    }

    /// Status and the lines of the body, chunk sizes left out.
    fn ask(&self, path: &str, body: &Value) -> (u16, Vec<Value>) {
        let mut text = String::new();
        self.send(path, &body.to_string())
            .read_to_string(&mut text)
            .unwrap();
        let status = text[9..12].parse().unwrap();
        let lines = text.split_once("\r\n\r\n").unwrap().1.lines();
        (
            status,
            lines
                .filter(|line| line.starts_with('{'))
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
        )
    }

    fn ship(&self, requests: std::ops::Range<u32>) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let queue = Queue::open(&self.path().join("queue"), Settings::default()).unwrap();
            for number in requests {
                let begun = Begun {
                    timestamp: clawgress_audit::event::Micros::now(),
                    request_id: format!("r{number}").into(),
                    agent_id: Some(format!("a{}", number % 3).into()),
                    ..Begun::default()
                };
                queue.whole(&begun, &Outcome::default()).unwrap();
            }
            queue.flush().await.unwrap();
            let stream = tokio::net::UnixStream::connect(self.path().join("ship.sock"))
                .await
                .unwrap();
            ship(stream, &mut queue.reader(), "gateway", true)
                .await
                .unwrap();
        });
    }
}

fn numbers_are_told(service: &Service) {
    let mut metrics = String::new();
    service
        .get("/metrics")
        .read_to_string(&mut metrics)
        .unwrap();
    for line in [
        "# TYPE clawgress_audit_events_received_total counter",
        "clawgress_audit_events_received_total 330",
        "clawgress_audit_events_duplicate_total 0",
        "clawgress_audit_events_missing_total 0",
        "clawgress_audit_events_total 331",
        "clawgress_audit_ready 1",
        "clawgress_audit_unsigned_events 0",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}: {metrics}"
        );
    }
    assert!(
        metrics.contains("clawgress_audit_checkpoint_age_seconds "),
        "{metrics}"
    );
    for path in ["/health", "/ready"] {
        let mut text = String::new();
        service.get(path).read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
}

#[test]
fn questions_streams_and_proofs() {
    let service = service();
    service.ship(0..300);
    let (status, found) = service.ask(
        "/audit/query",
        &json!({"where": {"agent_id": "a1"}, "newest_first": true, "limit": 40}),
    );
    assert_eq!(status, 200);
    let events = found[0]["events"].as_array().unwrap();
    assert_eq!(
        (events.len(), &events[0]["request_id"]),
        (40, &json!("r298"))
    );
    let next = found[0]["next"].clone();
    let (_, found) = service.ask(
        "/audit/query",
        &json!({"where": {"agent_id": "a1"}, "newest_first": true, "limit": 90, "after": next}),
    );
    assert_eq!(
        (
            found[0]["events"].as_array().unwrap().len(),
            found[0].get("next")
        ),
        (60, None)
    );

    let mut tail = service.send(
        "/audit/tail",
        "{\"filter\":{\"where\":{\"agent_id\":\"a2\"}}}",
    );
    let mut line = String::new();
    while tail.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    service.ship(300..330);
    let mut seen = Vec::new();
    while seen.len() < 10 {
        line.clear();
        assert!(tail.read_line(&mut line).unwrap() > 0);
        if line.starts_with('{') {
            seen.push(serde_json::from_str::<Value>(&line).unwrap()["request_id"].clone());
        }
    }
    let expected: Vec<Value> = (300..330)
        .filter(|number| number % 3 == 2)
        .map(|number| json!(format!("r{number}")))
        .collect();
    assert_eq!(seen, expected);

    let (status, exported) = service.ask("/audit/export", &json!({}));
    assert_eq!(status, 200);
    assert_eq!(
        exported
            .iter()
            .filter(|event| event["gateway"] == "gateway")
            .count(),
        330
    );
    assert!(
        exported
            .iter()
            .any(|event| event["http_method"] == "export" && event["source"] == "admin"),
        "an export is an event"
    );

    let (_, anchor) = service.ask("/audit/checkpoint", &json!({}));
    let (_, report) = service.ask(
        "/audit/verify",
        &json!({"anchors": anchor[0]["anchor"].as_str().into_iter().collect::<Vec<_>>()}),
    );
    assert_eq!(
        (&report[0]["good"], &report[0]["faults"]),
        (&json!(true), &json!([])),
        "{report:?}"
    );
    let (_, status) = service.ask("/audit/status", &json!({}));
    assert_eq!(status[0]["store"]["events"], 331);
    numbers_are_told(&service);

    for (path, body, code, word) in [
        (
            "/audit/query",
            json!({"where": {"decision": "maybe"}}),
            400,
            "maybe",
        ),
        ("/audit/query", json!({"wher": {}}), 400, "wher"),
        ("/audit/tail", json!({"after": "x"}), 400, "12-3456"),
        ("/audit/nothing", json!({}), 404, "nothing here"),
    ] {
        let (status, answer) = service.ask(path, &body);
        assert!(
            status == code && answer[0]["reason"].as_str().unwrap().contains(word),
            "{path}: {status} {answer:?}"
        );
    }
}

/// A user ships under its own name alone; that it tried another one is told once, however often it tries.
#[test]
fn a_refused_shipper_is_told_once() {
    let service = service();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let queue = Queue::open(&service.path().join("queue"), Settings::default()).unwrap();
    queue.whole(&Begun::default(), &Outcome::default()).unwrap();
    for name in ["gateway-2", "dns", "gateway-2"] {
        let refused = runtime.block_on(async {
            queue.flush().await.unwrap();
            let stream = tokio::net::UnixStream::connect(service.path().join("ship.sock"))
                .await
                .unwrap();
            ship(stream, &mut queue.reader(), name, true).await
        });
        assert!(refused.unwrap_err().to_string().contains(name));
    }
    let ask = || {
        let wanted = json!({"where": {"source": "audit", "reason": "shipper-refused"}});
        let (_, found) = service.ask("/audit/query", &wanted);
        found[0]["events"].as_array().unwrap().clone()
    };
    let until = Instant::now() + Duration::from_secs(10);
    while ask().is_empty() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = ask();
    assert_eq!(
        (told.len(), &told[0]["alert"]),
        (1, &json!(true)),
        "{told:?}"
    );
    assert!(
        told[0]["path"].as_str().unwrap().contains("'gateway-2'"),
        "{told:?}"
    );
}

#[test]
fn a_wrong_configuration_ends_before_anything_listens() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.toml");
    std::fs::write(&file, "state = 1").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_clawgress-audit"))
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
}
