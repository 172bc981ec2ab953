//! The last known good: what the gateway serves by when nobody tells it anything, or something worse than before.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::stack::{GATEWAY, HOST, Stack, asked, echoes, tunnel};

fn revision_in_force(stack: &Stack) -> serde_json::Value {
    stack.control(&json!({"ask": "status"}))["revision"].clone()
}

#[test]
fn it_serves_on_when_policy_identity_and_audit_are_down_across_a_restart() {
    Stack::run(
        |_| {},
        |stack| {
            let key = stack.key("agent-1");
            assert_eq!(asked(&key, "before").0, 200);
            stack.waits_for("the revision is kept", |stack| {
                stack.path("gateway/revision.json").exists()
                    && stack.path("gateway/identity.bundle").exists()
            });
            stack.kill("identity");
            stack.kill("audit");
            std::fs::write(stack.path("boot.json"), "{\"half\": ").unwrap();
            stack.kill("gateway");
            stack.start("gateway");
            stack.waits_for("it serves again", |_| asked(&key, "after").0 == 200);
            assert_eq!(asked("cg_unknown", "after").0, 407);
            assert_eq!(revision_in_force(stack), 5);
            // And once more, without any file at all.
            std::fs::remove_file(stack.path("boot.json")).unwrap();
            stack.kill("gateway");
            stack.start("gateway");
            stack.waits_for("it serves again", |_| asked(&key, "again").0 == 200);
            let log = stack.log("gateway");
            assert!(log.contains("boot.json"), "it is told: {log}");
        },
    );
}

#[test]
fn an_older_revision_is_refused_after_a_restart_and_an_equal_one_is_fine() {
    Stack::run(
        |_| {},
        |stack| {
            let key = stack.key("agent-1");
            stack.publish(|_| {});
            stack.waits_for("the new one is in force", |stack| {
                revision_in_force(stack) == 6
            });
            let newest = stack.revision.clone();
            stack.waits_for("its number is kept", |stack| {
                std::fs::read_to_string(stack.path("gateway/revision.number"))
                    .is_ok_and(|number| number == "6\n")
            });
            let mut older = newest.clone();
            older.number = 4;
            older.access.gateway.enabled = false;
            older.write(&stack.path("boot.json")).unwrap();
            stack.kill("gateway");
            stack.start("gateway");
            stack.waits_for("it serves again", |_| asked(&key, "after").0 == 200);
            assert_eq!(revision_in_force(stack), 6);
            assert!(stack.log("gateway").contains("holds revision 4, and 6"));
            // Even if the copy is lost, the number is not.
            std::fs::write(stack.path("gateway/revision.json"), "").unwrap();
            stack.kill("gateway");
            stack.start("gateway");
            std::thread::sleep(Duration::from_millis(700));
            assert_eq!(revision_in_force(stack), serde_json::Value::Null);
            newest.write(&stack.path("boot.json")).unwrap();
            stack.waits_for("the equal one is taken", |stack| {
                revision_in_force(stack) == 6 && asked(&key, "equal").0 == 200
            });
        },
    );
}

/// A connection over which a request was answered.
fn kept(key: &str) -> TcpStream {
    let mut agent = TcpStream::connect(GATEWAY).unwrap();
    agent
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let request = format!(
        "GET http://{HOST}/kept HTTP/1.1\r\nHost: {HOST}\r\nProxy-Authorization: Bearer {key}\r\n\r\n"
    );
    agent.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    // The page quotes the request's head behind its own.
    while String::from_utf8_lossy(&answer).matches("\r\n\r\n").count() < 2 {
        let length = agent.read(&mut piece).unwrap();
        assert!(length > 0);
        answer.extend_from_slice(&piece[..length]);
    }
    agent
}

#[test]
fn a_gateway_that_is_disabled_closes_everything_within_a_second() {
    Stack::run(
        |_| {},
        |stack| {
            let key = stack.key("agent-1");
            let mut open = tunnel(&key);
            assert!(echoes(&mut open));
            let mut kept = kept(&key);
            stack.publish(|revision| revision.access.gateway.enabled = false);
            let began = Instant::now();
            let mut byte = [0];
            for stream in [&mut open, &mut kept] {
                let read = std::io::Read::read(stream, &mut byte);
                assert!(!matches!(read, Ok(1..)));
            }
            // A fifth of a second may pass before the file is looked at.
            assert!(
                began.elapsed() < Duration::from_millis(1200),
                "{:?}",
                began.elapsed()
            );
            stack.waits_for("nobody listens any more", |_| {
                std::net::TcpStream::connect(crate::stack::GATEWAY).is_err()
            });
            assert!(
                stack.manager.names().is_empty(),
                "{:?}",
                stack.manager.names()
            );
            stack.publish(|revision| revision.access.gateway.enabled = true);
            stack.waits_for("it serves again", |_| asked(&key, "again").0 == 200);
        },
    );
}

#[test]
fn the_control_socket_tells_health_and_metrics_to_its_group_alone() {
    Stack::run(
        |_| {},
        |stack| {
            let key = stack.key("agent-1");
            assert_eq!(asked(&key, "one").0, 200);
            assert_eq!(asked("wrong", "two").0, 407);
            let _tunnel = tunnel(&key);
            let health = stack.control(&json!({"ask": "health"}));
            assert_eq!(health["healthy"], true, "{health}");
            let metrics = stack.control(&json!({"ask": "metrics"}));
            let text = metrics["text"].as_str().unwrap();
            for line in [
                "clawgress_gateway_tunnels 1",
                "clawgress_gateway_revision 5",
                "clawgress_gateway_ready 1",
                "clawgress_gateway_clock_trusted 1",
            ] {
                assert!(text.lines().any(|found| found == line), "{line}: {text}");
            }
            for decision in ["allow", "deny"] {
                let counted = format!("clawgress_gateway_requests_total{{decision=\"{decision}\",");
                let mut lines = text.lines().filter(|line| line.starts_with(&counted));
                assert!(
                    lines.any(|line| !line.ends_with(" 0")),
                    "{decision}: {text}"
                );
            }
            let mode = std::fs::metadata(stack.path("run/control.sock"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o660);
            stack.kill("identity");
            let place = stack.path("gateway");
            std::fs::remove_file(place.join("identity.bundle")).unwrap();
            stack.kill("gateway");
            stack.start("gateway");
            stack.waits_for("it says what is missing", |stack| {
                stack
                    .ask("run/control.sock", &json!({"ask": "health"}))
                    .is_some_and(|health| health["healthy"] == false)
            });
        },
    );
}

#[test]
fn an_address_that_the_box_gets_later_is_not_dialled_any_more() {
    Stack::run(
        |_| {},
        |stack| {
            let key = stack.key("agent-1");
            let mut open = tunnel(&key);
            // The server's: as if DHCP had given it to the box.
            let status = std::process::Command::new("ip")
                .args(["addr", "add", "203.0.113.10/32", "dev", "lo"])
                .status();
            assert!(status.unwrap().success());
            let began = Instant::now();
            let mut byte = [0];
            assert!(!matches!(open.read(&mut byte), Ok(1..)));
            // Looked at each second.
            assert!(
                began.elapsed() < Duration::from_secs(3),
                "{:?}",
                began.elapsed()
            );
            let (status, answer) = asked(&key, "own");
            assert_eq!(status, 403, "{answer}");
            assert!(answer.contains("private-address"), "{answer}");
            assert_eq!(stack.control(&json!({"ask": "health"}))["healthy"], true);
        },
    );
}
