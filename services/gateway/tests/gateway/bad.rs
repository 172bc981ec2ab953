//! Bad input and bad neighbours: bounded, recorded, and nothing let through.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use clawgress_config::policy::Policy;
use clawgress_gateway::worker::Limits;

use crate::lab::{HOST, Lab, read_head};
use crate::origin::{SERVER, hello};
use crate::world::{LIMITS, World};

fn short(lab_limits: &mut Limits) {
    *lab_limits = Limits {
        head: Duration::from_millis(400),
        between: Duration::from_secs(5),
        connect: Duration::from_millis(500),
        answer: Duration::from_millis(500),
        ..LIMITS
    };
}

/// The one event, after all has ended.
fn one_event(lab: &Lab) -> serde_json::Value {
    lab.idle();
    lab.judge.tell_folded();
    let mut events = lab.events();
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

fn reset(stream: TcpStream) {
    let socket = socket_of(stream);
    socket.set_zero_linger().unwrap();
}

fn socket_of(stream: TcpStream) -> tokio::net::TcpSocket {
    tokio::net::TcpSocket::from_std_stream(stream)
}

#[test]
fn slow_headers_end_in_time_and_are_recorded() {
    Lab::run_bounded(short, |lab| {
        let mut agent = lab.open();
        let began = Instant::now();
        agent.write_all(b"GET http://").unwrap();
        let mut byte = [0];
        // One byte now and then keeps nobody waiting longer.
        while began.elapsed() < Duration::from_secs(3) {
            agent
                .set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            match agent.read(&mut byte) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => break,
            }
            if agent.write_all(b"x").is_err() {
                break;
            }
        }
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        let event = one_event(lab);
        assert_eq!(
            event["reason"],
            "malformed-request: the head did not come to its end"
        );
    });
}

#[test]
fn ten_megabytes_of_headers_are_cut_off_early() {
    Lab::run(|lab| {
        let mut agent = lab.open();
        let line = format!("X: {}\r\n", "y".repeat(1000));
        agent.write_all(b"GET http://x/ HTTP/1.1\r\n").unwrap();
        let mut sent = 0;
        while sent < 10 << 20 && agent.write_all(line.as_bytes()).is_ok() {
            sent += line.len();
        }
        assert!(sent < 9 << 20, "{sent} bytes were taken");
        assert_eq!(one_event(lab)["status"], 400);
    });
}

#[test]
fn a_chunked_body_without_end_holds_no_memory_and_ends_with_its_server() {
    Lab::run_bounded(short, |lab| {
        let mut agent = lab.agent();
        let head = format!(
            "POST http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{}Transfer-Encoding: chunked\r\n\r\n",
            lab.credential()
        );
        agent.write_all(head.as_bytes()).unwrap();
        let chunk = format!("1000\r\n{}\r\n", "z".repeat(0x1000));
        let before = resident();
        let mut sent = 0;
        while sent < 64 << 20 && agent.write_all(chunk.as_bytes()).is_ok() {
            sent += chunk.len();
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes more for {sent}");
        drop(agent);
        one_event(lab);
    });
}

/// Of this process, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_reset_in_every_state_leaves_nothing_open_and_one_event_each() {
    Lab::run(|lab| {
        let connect = format!(
            "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n{}\r\n",
            lab.credential()
        );
        // Before a request there is none to record; in the middle of a head there was none either.
        reset(lab.open());
        let mut agent = lab.open();
        agent.write_all(connect.as_bytes()).unwrap();
        reset(agent);
        let mut agent = lab.open();
        agent.write_all(connect.as_bytes()).unwrap();
        read_head(&mut agent);
        reset(agent);
        let mut agent = lab.open();
        agent.write_all(connect.as_bytes()).unwrap();
        read_head(&mut agent);
        agent.write_all(&hello(HOST)[..20]).unwrap();
        reset(agent);
        let mut agent = lab.open();
        agent.write_all(connect.as_bytes()).unwrap();
        read_head(&mut agent);
        agent.write_all(&hello(HOST)).unwrap();
        let mut byte = [0];
        agent.read_exact(&mut byte).unwrap();
        reset(agent);
        let mut agent = lab.agent();
        let get = format!(
            "GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n",
            lab.credential()
        );
        agent.write_all(get.as_bytes()).unwrap();
        reset(agent);
        let began = Instant::now();
        loop {
            lab.idle();
            let events = lab.events();
            // A request that was reset before it was read was none.
            if events.len() >= 3 && lab.connections() == 0 {
                let mut ids: Vec<String> = events
                    .iter()
                    .map(|event| event["request_id"].to_string())
                    .collect();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), events.len());
                assert!(events.len() <= 5, "{events:?}");
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{} open, {events:?}",
                lab.connections()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn a_half_closed_tunnel_carries_the_other_half_to_its_end() {
    Lab::run(|lab| {
        let mut agent = lab.agent();
        let head = lab.connect(&mut agent, &format!("{HOST}:443"));
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        agent.write_all(&hello(HOST)).unwrap();
        let mut byte = [0];
        agent.read_exact(&mut byte).unwrap();
        agent.write_all(b"last words").unwrap();
        agent.shutdown(Shutdown::Write).unwrap();
        let mut back = String::new();
        agent.read_to_string(&mut back).unwrap();
        assert_eq!(back, "last words");
        let event = one_event(lab);
        assert_eq!(event["decision"], "allow");
        assert_eq!(event["bytes_in"], 11);
    });
}

#[test]
fn a_server_that_never_answers_is_told_in_time() {
    let policy = |world: &mut World| {
        let policy = serde_json::json!({"version": 1, "allow": {"domains": [HOST], "ports": [81]}});
        world.revision.policy = Policy::from_json(policy.to_string().as_bytes()).unwrap();
    };
    Lab::run_all(policy, short, |lab| {
        // Accepts, and says nothing.
        let silent = TcpListener::bind((SERVER, 81)).unwrap();
        let mut agent = lab.agent();
        let began = Instant::now();
        let request = format!(
            "GET http://{HOST}:81/ HTTP/1.1\r\nHost: {HOST}:81\r\n{}\r\n",
            lab.credential()
        );
        agent.write_all(request.as_bytes()).unwrap();
        let head = read_head(&mut agent);
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        drop(silent);
        let event = one_event(lab);
        assert_eq!(event["reason"], "silent");
    });
}

#[test]
fn names_that_nobody_answers_for_are_told_in_time() {
    Lab::run_with(
        |world| crate::lab::allow(world, &["silent.lab.test"]),
        |lab| {
            let mut agent = lab.agent();
            let began = Instant::now();
            let request = format!(
                "CONNECT silent.lab.test:443 HTTP/1.1\r\nHost: silent.lab.test:443\r\n{}\r\n",
                lab.credential()
            );
            agent
                .set_read_timeout(Some(Duration::from_secs(8)))
                .unwrap();
            agent.write_all(request.as_bytes()).unwrap();
            let head = read_head(&mut agent);
            assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
            assert!(
                began.elapsed() < Duration::from_secs(6),
                "{:?}",
                began.elapsed()
            );
            assert_eq!(one_event(lab)["reason"], "unresolved");
            assert_eq!(lab.reached(), 0);
        },
    );
}
