//! Requests on port 80 that two readers of HTTP might read differently, or that are none: the site of another name never
//! sees one.

use clawgress_enforcer::front::log::What;
use qemu_tests::{case, require};

use crate::sni::Front;
use crate::sni_host::{POLICY, SITE, ask, get, reaches};

/// Heads without their last, empty line.
const HEADS: [(&str, &str); 25] = [
    (
        "an absolute URI of another site",
        "GET http://evil.example/ HTTP/1.1\r\nHost: api.example.com",
    ),
    (
        "a Host of another site than the URI",
        "GET http://api.example.com/ HTTP/1.1\r\nHost: evil.example",
    ),
    (
        "an absolute URI with a user",
        "GET http://api.example.com@evil.example/ HTTP/1.1\r\nHost: api.example.com",
    ),
    (
        "an absolute URI of another scheme",
        "GET https://api.example.com/ HTTP/1.1\r\nHost: api.example.com",
    ),
    (
        "an absolute URI of another port",
        "GET http://api.example.com:22/ HTTP/1.1\r\nHost: api.example.com:22",
    ),
    (
        "an absolute URI of nobody",
        "GET http:/// HTTP/1.1\r\nHost: api.example.com",
    ),
    (
        "a Connection that names a header",
        "GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close, Host",
    ),
    (
        "a Connection that names one on its second line",
        "GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nConnection: X-Real",
    ),
    (
        "a URI that is a name",
        "GET api.example.com HTTP/1.1\r\nHost: api.example.com",
    ),
    (
        "CONNECT",
        "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443",
    ),
    (
        "CONNECT to port 80",
        "CONNECT api.example.com:80 HTTP/1.1\r\nHost: api.example.com",
    ),
    ("no Host", "GET / HTTP/1.1"),
    ("no Host in HTTP/1.0", "GET / HTTP/1.0"),
    ("an empty Host", "GET / HTTP/1.1\r\nHost:"),
    (
        "two Hosts",
        "GET / HTTP/1.1\r\nHost: api.example.com\r\nHost: evil.example",
    ),
    (
        "two Hosts, the other first",
        "GET / HTTP/1.1\r\nHost: evil.example\r\nHost: api.example.com",
    ),
    (
        "a Host on two lines",
        "GET / HTTP/1.1\r\nHost: api.example.com\r\n evil.example",
    ),
    (
        "a blank before the colon",
        "GET / HTTP/1.1\r\nHost : api.example.com",
    ),
    (
        "a NUL in the Host",
        "GET / HTTP/1.1\r\nHost: api.example.com\0",
    ),
    (
        "h2c",
        "GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__",
    ),
    (
        "h2c behind a WebSocket",
        "GET / HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c",
    ),
    ("HTTP/2 by its preface", "PRI * HTTP/2.0\r\n\r\nSM"),
    ("HTTP/0.9", "GET /"),
    ("a TLS hello", "\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03"),
    ("SSH", "SSH-2.0-OpenSSH_9.6"),
];

/// Header lines of a POST that leave open where its body ends, and that body.
const BODIES: [(&str, &str, &str); 4] = [
    (
        "Transfer-Encoding that only looks chunked",
        "Transfer-Encoding: xchunked",
        "0\r\n\r\n",
    ),
    (
        "Transfer-Encoding twice",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "0\r\n\r\n",
    ),
    (
        "two Content-Lengths",
        "Content-Length: 0\r\nContent-Length: 44",
        "",
    ),
    (
        "a Content-Length that is no number",
        "Content-Length: +0",
        "",
    ),
];

fn post(lines: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {SITE}\r\n{lines}\r\n\r\n{body}")
}

#[test]
fn a_request_that_two_might_read_differently_is_denied() {
    case("net-host-lies", |case| {
        let front = Front::new(case, POLICY)?;
        let heads = HEADS.map(|(what, head)| (what, format!("{head}\r\n\r\n")));
        let bodies =
            BODIES.map(|(what, lines, body)| (what, post(lines, body) + &get("evil.example")));
        for (what, request) in heads.into_iter().chain(bodies) {
            case.check(what, || {
                front.forget_events();
                let outcome = ask(&front, &request)?;
                let passed = ["fake internet at 198", "HTTP/1.1 200"]
                    .iter()
                    .any(|sign| outcome.said.contains(sign));
                require!(!passed && !outcome.said.contains('<'), "{outcome:?}");
                let events = front.events(|event| matches!(event.what, What::Deny(_)))?;
                require!(
                    events.iter().all(|event| event.what != What::Open),
                    "{events:?}"
                );
                Ok(())
            });
        }
        Ok(())
    });
}

#[test]
fn a_body_is_never_taken_for_a_request() {
    case("net-host-bodies", |case| {
        let front = Front::new(case, POLICY)?;
        // The other one is allowed, too: only by the number of answers is it seen whether anybody heard it.
        let other = get("b.example.org");
        let one_answer = |request: &str| {
            let outcome = ask(&front, request)?;
            require!(
                outcome.said.matches("HTTP/1.1 ").count() == 1,
                "{outcome:?}"
            );
            front.was_open(SITE).map(drop)
        };
        case.check("that looks like one", || {
            one_answer(&post(&format!("Content-Length: {}", other.len()), &other))
        });
        case.check(
            "with both lengths, of which chunks count and the connection ends",
            || {
                let lines = "Content-Length: 15\r\nTransfer-Encoding: chunked";
                one_answer(&post(lines, &format!("0\r\n\r\n{other}")))
            },
        );
        case.check("in chunks that are none", || {
            let outcome = ask(
                &front,
                &post("Transfer-Encoding: chunked", &format!("zz\r\n\r\n{other}")),
            )?;
            require!(
                outcome.said.matches("HTTP/1.1 ").count() <= 1,
                "{outcome:?}"
            );
            front.forget_events();
            Ok(())
        });
        Ok(())
    });
}

#[test]
fn unusual_and_honest_requests_get_through() {
    case("net-host-honest", |case| {
        let front = Front::new(case, POLICY)?;
        for (what, line) in [
            (
                "an absolute URI that agrees with the Host",
                "GET http://api.example.com/x HTTP/1.1",
            ),
            (
                "an absolute URI without a path",
                "GET http://api.example.com HTTP/1.1",
            ),
            ("OPTIONS *", "OPTIONS * HTTP/1.1"),
            (
                "all that a Connection may say",
                "GET / HTTP/1.1\r\nConnection: Keep-Alive,close",
            ),
            ("HTTP/1.0 with a Host", "GET / HTTP/1.0"),
            (
                "a WebSocket",
                "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ),
        ] {
            case.check(what, || {
                reaches(&front, &format!("{line}\r\nHost: {SITE}\r\n\r\n"), SITE)
            });
        }
        Ok(())
    });
}
