//! One event for each request, whatever became of it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clawgress_audit::queue::{Queue, Settings};
use clawgress_config::access::Quotas;
use clawgress_gateway::gateway::{Gateway, Sockets};
use clawgress_gateway::judge::{Blocked, Judge, Own};
use clawgress_gateway::listen;
use clawgress_quota::Ledger;
use serde_json::Value;

use crate::lab::{HOST, Lab, read_head};
use crate::world::{self, LIMITS, World};

fn stands_for(event: &Value) -> u64 {
    event["folded"].as_u64().unwrap_or(1)
}

#[test]
fn what_is_malformed_leaves_one_event_with_its_source_and_reason() {
    Lab::run(|lab| {
        let requests = [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "GET http://x/ HTTP/1.1\r\nHost: y\r\n\r\n".to_owned(),
            "CONNECT nothing HTTP/1.1\r\nHost: nothing\r\n\r\n".to_owned(),
            format!("CONNECT {HOST}:443 HTTP/1.1\r\nContent-Length: 3\r\nHost: {HOST}:443\r\n\r\n"),
            "\x16\x03\x01\n".to_owned(),
            "GET http://x/ HTTP/9.9\r\n\r\n".to_owned(),
            format!(
                "GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nX: {}",
                "x".repeat(70_000)
            ),
        ];
        for (at, request) in requests.iter().enumerate() {
            let mut agent = lab.open();
            // Some of it may come after the answer.
            let _ = agent.write_all(request.as_bytes());
            let head = read_head(&mut agent);
            assert!(head.starts_with("HTTP/1.1 400 "), "{request}: {head}");
            lab.judge.tell_folded();
            let events = lab.events();
            let counted: u64 = events.iter().map(stands_for).sum();
            assert_eq!(counted, at as u64 + 1, "{request}: {events:?}");
            let last = events.last().unwrap();
            assert_eq!(last["client_address"], "127.0.0.1");
            assert_eq!(last["decision"], "deny");
            assert_eq!(last["status"], 400);
            let reason = last["reason"].as_str().unwrap();
            assert!(reason.starts_with("malformed-request: "), "{reason}");
            assert!(last.get("destination_host").is_none(), "no guess: {last}");
        }
        assert_eq!(lab.reached(), 0);
    });
}

#[test]
fn the_answer_to_a_malformed_request_quotes_its_event() {
    Lab::run(|lab| {
        let mut agent = lab.open();
        agent.write_all(b"nonsense\r\n\r\n").unwrap();
        let mut answer = String::new();
        agent.read_to_string(&mut answer).unwrap();
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let events = lab.events();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["request_id"], body["request_id"]);
    });
}

/// A gateway on loopback, without a network of its own: nothing of this goes out.
fn serve(judge: &Arc<Judge>) -> (Gateway, SocketAddr) {
    let socket = listen::open("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let sockets = Sockets {
        plain: vec![listener.into()],
        ..Sockets::default()
    };
    let named = "127.0.0.1:9".parse().unwrap();
    let gateway = Gateway::start(
        Arc::clone(judge),
        LIMITS,
        named,
        &Arc::default(),
        &Arc::default(),
        vec![sockets],
    );
    (gateway.unwrap(), address)
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut agent = std::net::TcpStream::connect(address).unwrap();
    agent
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    agent.write_all(request.as_bytes()).unwrap();
    read_head(&mut agent)
}

fn queued(judge: &Judge) -> Vec<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(judge.queue().flush()).unwrap();
    let events = judge.queue().reader().read(0, 1 << 30).unwrap();
    let parse = |event: &clawgress_audit::queue::Queued| serde_json::from_slice(&event.text);
    events.iter().map(|event| parse(event).unwrap()).collect()
}

#[test]
fn before_there_is_anything_to_judge_by_each_request_is_denied_and_recorded() {
    let state = tempfile::tempdir().unwrap();
    let judge = World::judge_without_snapshot(&state.path().join("queue"), None);
    let (_gateway, address) = serve(&judge);
    for request in [
        "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
    ] {
        let head = ask(address, request);
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    }
    let events = queued(&judge);
    assert_eq!(events.len(), 2, "{events:?}");
    for event in &events {
        assert_eq!(event["reason"], "unavailable");
        assert_eq!(event["destination_host"], "example.com");
    }
}

#[test]
fn an_agent_whose_share_of_the_queue_is_full_is_denied_and_counted() {
    let state = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_bytes: 4 << 20,
        share_per_agent: 1,
        ..Settings::default()
    };
    let queue = Queue::open(&state.path().join("queue"), settings).unwrap();
    let ledger = Arc::new(Ledger::new(&Quotas::default()));
    let judge = Arc::new(Judge::new(queue, ledger, Blocked::default()));
    let mut world = World::with(&world::allowing(&[HOST], 0));
    let key = world.agent("agent-1");
    judge.take_own(Own::default());
    judge.take(world.snapshot());
    let (_gateway, address) = serve(&judge);
    let request = |host: &str| {
        format!(
            "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: Bearer {key}\r\nX: {}\r\n\r\n",
            "x".repeat(100)
        )
    };
    // Denials fill the share; beyond it they are denied all the same, and counted.
    let long = format!("{}.example", vec!["a".repeat(60); 3].join("."));
    let mut asked: u64 = 0;
    let folded = loop {
        assert!(ask(address, &request(&long)).starts_with("HTTP/1.1 403 "));
        asked += 1;
        assert!(asked < 100_000, "a share never fills");
        if asked.is_multiple_of(100) {
            let events = queued(&judge);
            if events.iter().any(|event| event.get("agent_id").is_none()) {
                break events;
            }
        }
    };
    let prefix = folded[0]["credential"].clone();
    let head = ask(address, &request(HOST));
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    judge.tell_folded();
    let events = queued(&judge);
    let counted: u64 = events.iter().map(stands_for).sum();
    assert_eq!(counted, asked + 1);
    let of_share: Vec<_> = events
        .iter()
        .filter(|event| event.get("agent_id").is_none())
        .collect();
    assert!(of_share.iter().all(|event| event["credential"] == prefix));
}

fn mount(arguments: &[&str]) {
    let status = std::process::Command::new("mount").args(arguments).status();
    assert!(status.unwrap().success(), "mount {arguments:?}");
}

#[test]
fn a_full_disk_lets_nothing_through_and_loses_no_count() {
    let done = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
            .expect("a mount namespace; run the tests as root or within `unshare -Urm`");
        mount(&["--make-rprivate", "/"]);
        let state = tempfile::tempdir().unwrap();
        let place = state.path().to_str().unwrap();
        mount(&["-t", "tmpfs", "-o", "size=1m", "none", place]);
        let settings = Settings {
            max_bytes: 4 << 20,
            share_per_agent: 4 << 20,
            ..Settings::default()
        };
        let queue = Queue::open(&state.path().join("queue"), settings).unwrap();
        let ledger = Arc::new(Ledger::new(&Quotas::default()));
        let judge = Arc::new(Judge::new(queue, ledger, Blocked::default()));
        let mut world = World::with(&world::allowing(&[HOST], 0));
        let key = world.agent("agent-1");
        judge.take_own(Own::default());
        judge.take(world.snapshot());
        let (_gateway, address) = serve(&judge);
        let request = |host: &str| {
            format!(
                "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: Bearer {key}\r\n\r\n"
            )
        };
        let mut asked: u64 = 0;
        // A denial stands, whether or not it can be written down.
        let full = loop {
            assert!(ask(address, &request("x.example")).starts_with("HTTP/1.1 403 "));
            asked += 1;
            assert!(asked < 20_000, "a disk never fills");
            if !asked.is_multiple_of(200) {
                continue;
            }
            let counted: u64 = queued(&judge).iter().map(stands_for).sum();
            if counted < asked {
                break counted;
            }
        };
        assert!(full > 100, "{full}");
        for _ in 0..3 {
            let head = ask(address, &request(HOST));
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
            asked += 1;
        }
        judge.tell_folded();
        let counted: u64 = queued(&judge).iter().map(stands_for).sum();
        assert!(counted < asked);
        mount(&["-o", "remount,size=16m", place]);
        judge.tell_folded();
        let counted: u64 = queued(&judge).iter().map(stands_for).sum();
        assert_eq!(counted, asked);
        // Whoever is let in now is recorded before anything else.
        let before = queued(&judge).len();
        let head = ask(address, &request(HOST));
        assert!(
            head.starts_with("HTTP/1.1 504 ") || head.starts_with("HTTP/1.1 502 "),
            "{head}"
        );
        assert_eq!(queued(&judge).len(), before + 1);
        drop(judge);
    });
    if let Err(panic) = done.join() {
        std::panic::resume_unwind(panic);
    }
}
