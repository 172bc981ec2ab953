//! Graceful restarts: nobody is refused, and nobody is cut before the time to drain is over.

use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::stack::{GATEWAY, Stack, echoes, get, tunnel};

/// Connects and asks without a pause while `during` runs; how often, and what went wrong.
fn asking(key: &str, during: impl FnOnce()) -> (usize, Vec<String>) {
    let stop = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    let faults = std::thread::scope(|scope| {
        let loops: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut faults = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        asked.fetch_add(1, Ordering::Relaxed);
                        match get(key, "loop") {
                            Some((200, _)) => {}
                            other => faults.push(format!("{other:?}")),
                        }
                    }
                    faults
                })
            })
            .collect();
        during();
        stop.store(true, Ordering::Relaxed);
        let joined = loops.into_iter().map(|one| one.join().unwrap());
        joined.flatten().collect()
    });
    (asked.into_inner(), faults)
}

#[test]
fn no_connection_is_refused_over_restarts_and_a_tunnel_lives_until_its_drain_time() {
    Stack::run(
        |_| {},
        |stack| {
            let key = stack.key("agent-1");
            stack.waits_for("sockets are kept", |stack| stack.manager.names().len() == 2);
            let mut open = tunnel(&key);
            let mut stopped = Instant::now();
            let (asked, faults) = asking(&key, || {
                for round in 0..4 {
                    std::thread::sleep(Duration::from_millis(300));
                    if round == 0 {
                        stopped = Instant::now();
                    }
                    stack.stop("gateway");
                    stack.start("gateway");
                }
                std::thread::sleep(Duration::from_millis(500));
            });
            assert!(asked > 100, "{asked}");
            assert!(
                faults.is_empty(),
                "{} of {asked}: {:?}",
                faults.len(),
                faults.first()
            );
            assert_eq!(stack.manager.names().len(), 2, "no socket is made anew");
            // Three seconds are what the revision gives it.
            let early = Duration::from_millis(2700).saturating_sub(stopped.elapsed());
            std::thread::sleep(early);
            assert!(echoes(&mut open), "cut after {:?}", stopped.elapsed());
            let mut byte = [0];
            assert!(!matches!(open.read(&mut byte), Ok(1..)));
            let lived = stopped.elapsed();
            assert!(lived < Duration::from_secs(6), "{lived:?}");
            let events = stack.events();
            let drained = events
                .iter()
                .filter(|event| event.outcome.reason.as_deref() == Some("drained"));
            assert_eq!(drained.count(), 1);
        },
    );
}

#[test]
fn who_connects_while_it_is_dead_waits_and_is_served() {
    Stack::run(
        |_| {},
        |stack| {
            let key = stack.key("agent-1");
            stack.waits_for("sockets are kept", |stack| stack.manager.names().len() == 2);
            stack.kill("gateway");
            let waiting: Vec<TcpStream> = (0..8)
                .map(|_| TcpStream::connect(GATEWAY).expect("the kernel makes the connection"))
                .collect();
            stack.start("gateway");
            for mut agent in waiting {
                agent
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                let request = format!(
                    "GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\nProxy-Authorization: Bearer {key}\r\nConnection: close\r\n\r\n",
                    crate::stack::HOST
                );
                std::io::Write::write_all(&mut agent, request.as_bytes()).unwrap();
                let mut answer = String::new();
                agent.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            }
        },
    );
}

#[test]
fn a_block_reaches_the_flows_of_a_process_that_drains() {
    Stack::run(
        |revision| revision.access.gateway.drain_seconds = 30,
        |stack| {
            let key = stack.key("agent-1");
            let mut open = tunnel(&key);
            stack.stop("gateway");
            stack.start("gateway");
            assert!(echoes(&mut open));
            stack.waits_for("the next one answers", |stack| {
                stack
                    .ask("run/control.sock", &serde_json::json!({"ask": "status"}))
                    .is_some_and(|status| status["revision"] == 5)
            });
            stack.control(&serde_json::json!({"ask": "block", "agent": "agent-1"}));
            let began = Instant::now();
            let mut byte = [0];
            assert!(!matches!(open.read(&mut byte), Ok(1..)));
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "{:?}",
                began.elapsed()
            );
        },
    );
}
