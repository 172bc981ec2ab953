//! Tunnels and plain requests through a running gateway, over real sockets.
//!
//! The servers stand on addresses of a range for documentation, in a network namespace of the test's own: loopback is one
//! that no gateway dials.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::lab::{self, HOST, Lab, read_head};
use crate::origin::hello;
use clawgress_gateway::judge::Blocked;

#[test]
fn a_tunnel_carries_what_its_host_may_get_and_leaves_one_event() {
    Lab::run(|lab| {
        let mut agent = lab.agent();
        let head = lab.connect(&mut agent, &format!("{HOST}:443"));
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        agent.write_all(&hello(HOST)).unwrap();
        let mut byte = [0];
        agent.read_exact(&mut byte).unwrap();
        // Long runs go another way than short pieces.
        let much: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut writer = agent.try_clone().unwrap();
        let sent = much.clone();
        let thread = std::thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        agent.read_to_end(&mut back).unwrap();
        thread.join().unwrap();
        assert!(
            back == much,
            "{} bytes came back of {}",
            back.len(),
            much.len()
        );
        lab.idle();
        let events = lab.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0]["decision"], "allow");
        assert_eq!(events[0]["destination_host"], HOST);
        assert_eq!(events[0]["agent_id"], "agent-1");
        assert_eq!(events[0]["bytes_in"], 4_000_001);
    });
}

#[test]
fn nobody_without_a_credential_gets_anywhere() {
    Lab::run(|lab| {
        for credential in [
            "",
            "Proxy-Authorization: Bearer cg_aaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n",
            "Proxy-Authorization: Basic x\r\n",
            "Proxy-Authorization: Negotiate x\r\n",
        ] {
            for request in [
                format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n"),
                format!("GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n"),
            ] {
                let mut agent = lab.open();
                agent
                    .write_all(format!("{request}{credential}\r\n").as_bytes())
                    .unwrap();
                let head = read_head(&mut agent);
                assert!(
                    head.starts_with("HTTP/1.1 407 ") && head.contains("Proxy-Authenticate: Basic"),
                    "{head}"
                );
            }
        }
        assert_eq!(lab.reached(), 0);
        assert!(lab.events().iter().all(|event| event["decision"] == "deny"));
        assert_eq!(lab.events().len(), 8);
    });
}

#[test]
fn what_is_not_allowed_is_denied_in_words() {
    Lab::run(|lab| {
        for target in [
            "other.example:443",
            "10.0.0.1:443",
            "[::1]:443",
            "127.0.0.1:443",
            "169.254.169.254:80",
        ] {
            let mut agent = lab.agent();
            let head = lab.connect(&mut agent, target);
            assert!(head.starts_with("HTTP/1.1 403 "), "{target}: {head}");
        }
        // A name that is allowed and leads inside.
        let mut agent = lab.agent();
        let head = lab.connect(&mut agent, "inside.lab.test:443");
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        let events = lab.events();
        assert_eq!(events.last().unwrap()["reason"], "private-address");
        assert_eq!(lab.reached(), 0);
    });
}

#[test]
fn a_hello_for_another_host_is_never_sent() {
    Lab::run(|lab| {
        for (bytes, reason) in [
            (hello("other.example"), "sni-mismatch"),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not-tls"),
        ] {
            let mut agent = lab.agent();
            lab.connect(&mut agent, &format!("{HOST}:443"));
            agent.write_all(&bytes).unwrap();
            let mut rest = Vec::new();
            // A reset or an end: nothing comes back.
            let _ = agent.read_to_end(&mut rest);
            assert!(rest.is_empty());
            lab.idle();
            assert_eq!(lab.events().last().unwrap()["reason"], reason);
        }
        assert_eq!(lab.heard(), 0);
    });
}

#[test]
fn a_block_cuts_what_is_open_and_what_comes() {
    Lab::run(|lab| {
        let mut agent = lab.agent();
        lab.connect(&mut agent, &format!("{HOST}:443"));
        agent.write_all(&hello(HOST)).unwrap();
        let mut byte = [0];
        agent.read_exact(&mut byte).unwrap();
        let began = Instant::now();
        lab.judge.block(Blocked {
            all: false,
            agents: ["agent-1".to_owned()].into(),
        });
        assert!(!matches!(agent.read(&mut byte), Ok(1..)));
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        let mut agent = lab.agent();
        let head = lab.connect(&mut agent, &format!("{HOST}:443"));
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        lab.idle();
        assert!(
            lab.events()
                .iter()
                .all(|event| event["reason"] == "blocked")
        );
    });
}

#[test]
fn a_new_revision_and_a_revocation_reach_open_tunnels() {
    Lab::run(|lab| {
        for change in [
            lab::forbid as fn(&mut crate::world::World),
            lab::revoke,
            lab::disable,
        ] {
            let mut agent = lab.agent();
            let head = lab.connect(&mut agent, &format!("{HOST}:443"));
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            agent.write_all(&hello(HOST)).unwrap();
            let mut byte = [0];
            agent.read_exact(&mut byte).unwrap();
            let began = Instant::now();
            lab.change(change);
            assert!(!matches!(agent.read(&mut byte), Ok(1..)));
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "{:?}",
                began.elapsed()
            );
            lab.reset();
        }
    });
}

#[test]
fn plain_requests_are_passed_on_over_kept_connections() {
    Lab::run(|lab| {
        let mut agent = lab.agent();
        for n in 0..3 {
            let body = lab.get(&mut agent, &format!("http://{HOST}/page/{n}?q"));
            assert!(body.starts_with("HTTP/1.1 200 "), "{body}");
            assert!(
                body.contains(&format!("GET /page/{n}?q HTTP/1.1")),
                "{body}"
            );
            assert!(
                body.contains(&format!("Host: {HOST}")) && !body.contains("Proxy-Authorization"),
                "{body}"
            );
        }
        assert_eq!(lab.reached(), 1, "the server's connection is kept");
        let upload = format!(
            "POST http://{HOST}/up HTTP/1.1\r\nHost: {HOST}\r\n{}Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
            lab.credential()
        );
        agent.write_all(upload.as_bytes()).unwrap();
        assert!(read_head(&mut agent).starts_with("HTTP/1.1 100 "));
        agent
            .write_all(b"5;x=y\r\nhello\r\n0\r\nDigest: d\r\nHost: evil\r\n\r\n")
            .unwrap();
        let head = read_head(&mut agent);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let body = lab::read_body(&mut agent, &head);
        assert!(
            body.ends_with("5\r\nhello\r\n0\r\nDigest: d\r\n\r\n"),
            "{body}"
        );
        lab.idle();
        assert_eq!(lab.events().len(), 4);
    });
}

#[test]
fn smuggled_requests_are_refused_and_never_sent() {
    Lab::run(|lab| {
        for (wrong, first) in [
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "POST",
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                "POST",
            ),
            ("Transfer-Encoding: xchunked\r\n", "POST"),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", "POST"),
            ("X: a\n\r\n", "GET"),
            ("X: a\r\n b\r\n", "GET"),
            ("X : a\r\n", "GET"),
            ("Host: other.example\r\n", "GET"),
        ] {
            let mut agent = lab.open();
            let request = format!(
                "{first} http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{}{wrong}\r\n",
                lab.credential()
            );
            agent.write_all(request.as_bytes()).unwrap();
            let head = read_head(&mut agent);
            assert!(head.starts_with("HTTP/1.1 400 "), "{wrong:?}: {head}");
        }
        let mut agent = lab.open();
        let other = format!(
            "GET http://{HOST}/ HTTP/1.1\r\nHost: other.example\r\n{}\r\n",
            lab.credential()
        );
        agent.write_all(other.as_bytes()).unwrap();
        assert!(read_head(&mut agent).starts_with("HTTP/1.1 400 "));
        assert_eq!(lab.reached(), 0);
    });
}
