//! How much one agent, one source and all of them may take.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::lab::{HOST, Lab, read_body, read_head};
use crate::origin::hello;

/// None: closed without an answer.
fn ask(lab: &Lab, agent: &mut TcpStream, path: &str) -> Option<String> {
    let request = format!(
        "GET http://{HOST}/{path} HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n",
        lab.credential()
    );
    agent.write_all(request.as_bytes()).ok()?;
    let mut first = [0];
    if !matches!(agent.peek(&mut first), Ok(1)) {
        return None;
    }
    let head = read_head(agent);
    read_body(agent, &head);
    Some(head)
}

#[test]
fn an_idle_kept_connection_counts_for_its_agent() {
    Lab::run_with(
        |world| world.revision.access.gateway.connections_per_agent = 2,
        |lab| {
            let mut kept: Vec<TcpStream> = (0..2).map(|_| lab.agent()).collect();
            for agent in &mut kept {
                let head = ask(lab, agent, "kept").unwrap();
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            }
            lab.idle();
            let head = ask(lab, &mut lab.agent(), "third").unwrap();
            assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
            // Its own next request is no further connection.
            let head = ask(lab, &mut kept[0], "again").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            kept.pop();
            let began = std::time::Instant::now();
            loop {
                let head = ask(lab, &mut lab.agent(), "fourth").unwrap();
                if head.starts_with("HTTP/1.1 200 ") {
                    break;
                }
                assert!(began.elapsed().as_secs() < 5, "{head}");
            }
            let events = lab.events();
            assert!(
                events.iter().any(|event| event["status"] == 429
                    && event["quota_applied"] == "connections-per-agent")
            );
        },
    );
}

#[test]
fn all_connections_have_a_bound_and_who_is_turned_away_is_counted() {
    Lab::run_with(
        |world| world.revision.access.gateway.connections = 3,
        |lab| {
            let mut open: Vec<TcpStream> = (0..3).map(|_| lab.agent()).collect();
            for agent in &mut open {
                assert!(ask(lab, agent, "in").is_some());
            }
            for _ in 0..5 {
                assert_eq!(ask(lab, &mut lab.agent(), "out"), None);
            }
            lab.judge.tell_folded();
            let events = lab.events();
            let turned_away: u64 = events
                .iter()
                .filter(|event| event["reason"] == "connections")
                .map(|event| event["folded"].as_u64().unwrap_or(1))
                .sum();
            assert_eq!(turned_away, 5);
            assert_eq!(events.len(), 3 + 2);
        },
    );
}

#[test]
fn strangers_leave_places_for_sources_of_agents() {
    Lab::run_with(
        |world| world.revision.access.gateway.connections = 8,
        |lab| {
            let mut agent = lab.agent();
            assert!(ask(lab, &mut agent, "first").is_some());
            drop(agent);
            // They say nothing, from wherever they are.
            let strangers: Vec<TcpStream> = (20..40).map(from_elsewhere).collect();
            let left = || {
                strangers
                    .iter()
                    .filter(|stranger| is_open(stranger))
                    .count()
            };
            let began = std::time::Instant::now();
            while left() != 6 {
                assert!(began.elapsed().as_secs() < 5, "{} strangers are in", left());
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            for path in ["one", "two", "three"] {
                assert!(ask(lab, &mut lab.agent(), path).is_some(), "{path}");
            }
            assert_eq!(left(), 6);
        },
    );
}

fn from_elsewhere(last: u8) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let family = AddressFamily::Inet;
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrIn::new(203, 0, 113, last, 0)).unwrap();
    connect(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 3128)).unwrap();
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(true).unwrap();
    stream
}

/// The other side has neither ended nor said anything.
fn is_open(stream: &TcpStream) -> bool {
    let peeked = stream.peek(&mut [0]);
    matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn early_data_is_not_held_back_without_end() {
    Lab::run(|lab| {
        let mut agent = lab.agent();
        let head = lab.connect(&mut agent, &format!("{HOST}:443"));
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        agent.write_all(&hello(HOST)).unwrap();
        let mut byte = [0];
        agent.read_exact(&mut byte).unwrap();
        let before = lab.heard();
        // A record of early data, and the beginning of a header that may be anything.
        let mut early = vec![23, 3, 3, 0x10, 0];
        early.extend([7; 0x1000]);
        early.extend([22, 3]);
        agent.write_all(&early).unwrap();
        let began = std::time::Instant::now();
        while lab.heard() < before + 0x1005 {
            assert!(
                began.elapsed().as_secs() < 5,
                "{} of 4101 bytes",
                lab.heard() - before
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}
