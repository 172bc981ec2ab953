//! Services killed at random while agents ask: exactly one event for each request, and a chain that verifies.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clawgress_audit::event::Event;
use clawgress_config::policy::Policy;

use crate::origin::hello;
use crate::stack::{GATEWAY, HOST, Stack};

/// In the gate; `CLAWGRESS_KILL_REQUESTS=200000` is what the full run asks for.
const REQUESTS: usize = 5_000;

/// What was answered, by the request's own number in its path or host.
type Answered = Mutex<HashMap<String, u16>>;

#[test]
fn every_request_has_exactly_one_event_whoever_is_killed() {
    let wanted = std::env::var("CLAWGRESS_KILL_REQUESTS");
    let wanted = wanted.map_or(REQUESTS, |text| text.parse().expect("a number"));
    Stack::run(
        |revision| {
            let policy = serde_json::json!({"version": 1, "allow": {"domains": ["*.lab.test"]}});
            revision.policy = Policy::from_json(policy.to_string().as_bytes()).unwrap();
            revision.access.gateway.drain_seconds = 1;
        },
        |stack| {
            let key = stack.key("agent-1");
            let answered = Answered::default();
            let number = AtomicUsize::new(0);
            let stop = AtomicBool::new(false);
            let mut kills = 0;
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            let n = number.fetch_add(1, Ordering::Relaxed);
                            if let Some((name, status)) = ask(&key, n) {
                                answered.lock().unwrap().insert(name, status);
                            }
                        }
                    });
                }
                let began = Instant::now();
                while answered.lock().unwrap().len() < wanted {
                    assert!(
                        began.elapsed() < Duration::from_secs(60 + wanted as u64 / 100),
                        "{} answered",
                        answered.lock().unwrap().len()
                    );
                    let pause = 200 + 97 * (kills % 7);
                    std::thread::sleep(Duration::from_millis(pause));
                    let victim = ["gateway", "audit", "gateway", "quota"][kills as usize % 4];
                    stack.kill(victim);
                    stack.start(victim);
                    kills += 1;
                }
                stop.store(true, Ordering::Relaxed);
            });
            let events = stack.events();
            let mut found: HashMap<String, u32> = HashMap::new();
            for event in &events {
                if let Some(name) = number_of(event) {
                    *found.entry(name).or_default() += 1;
                }
            }
            let answered = answered.into_inner().unwrap();
            let twice: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
            assert!(twice.is_empty(), "{twice:?}");
            let missing: Vec<_> = answered
                .iter()
                .filter(|(name, _)| !found.contains_key(*name))
                .collect();
            assert!(
                missing.is_empty(),
                "{} missing: {:?}",
                missing.len(),
                missing.first()
            );
            let asked = number.load(Ordering::Relaxed);
            assert!(found.len() <= asked, "{} events of {asked}", found.len());
            assert!(kills >= 4, "{kills}");
            println!(
                "{} answered, {} begun or answered, {} kills",
                answered.len(),
                found.len(),
                kills
            );
        },
    );
}

/// Plain requests, tunnels, denials and requests without an identity in turn; None: no answer came.
fn ask(key: &str, n: usize) -> Option<(String, u16)> {
    let (line, host) = match n % 8 {
        0..3 => (
            format!("GET http://{HOST}/asked-{n} HTTP/1.1"),
            HOST.to_owned(),
        ),
        3 => (
            format!("GET http://{n}.denied.test/ HTTP/1.1"),
            format!("{n}.denied.test"),
        ),
        4 => (
            format!("CONNECT {n}.denied.test:443 HTTP/1.1"),
            format!("{n}.denied.test:443"),
        ),
        _ => (
            format!("CONNECT {n}.lab.test:443 HTTP/1.1"),
            format!("{n}.lab.test:443"),
        ),
    };
    let key = if n.is_multiple_of(5) { "wrong" } else { key };
    let mut agent = TcpStream::connect(GATEWAY).ok()?;
    agent.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let request = format!(
        "{line}\r\nHost: {host}\r\nProxy-Authorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    );
    agent.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut byte = [0];
    // A reset in the middle is no whole answer, and its status counts all the same.
    while !answer.ends_with(b"\r\n") && agent.read_exact(&mut byte).is_ok() {
        answer.push(byte[0]);
    }
    let status = String::from_utf8_lossy(&answer)
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    if line.starts_with("CONNECT") && status == 200 {
        let name = host.trim_end_matches(":443");
        let _ = agent.write_all(&hello(name));
        let _ = agent.shutdown(std::net::Shutdown::Write);
    }
    let _ = agent.read_to_end(&mut answer);
    Some((n.to_string(), status))
}

/// The number that a request was sent with.
fn number_of(event: &Event) -> Option<String> {
    let path = event.begun.path.as_deref().unwrap_or_default();
    let host = event.begun.destination_host.as_deref().unwrap_or_default();
    let number = path
        .strip_prefix("/asked-")
        .or(host.strip_suffix(".denied.test"))
        .or(host.strip_suffix(".lab.test"))?;
    number
        .parse::<usize>()
        .ok()
        .map(|number| number.to_string())
}
