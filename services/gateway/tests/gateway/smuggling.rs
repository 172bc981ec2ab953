//! A corpus of requests that two readers might take apart differently, each sent raw to a running gateway: nothing but
//! one well-formed request may reach the server, or none.

use std::io::{Read, Write};
use std::time::Duration;

use clawgress_gateway::wire::chunked::{Chunked, Piece};
use clawgress_gateway::wire::fields::{Framing, of_request};
use clawgress_gateway::wire::head::{RequestHead, end_of_head};

use crate::lab::{HOST, Lab};

/// One line each; what stands for what is at its head.
const CORPUS: &str = include_str!("smuggling.txt");

const SMUGGLED: &str = "GET http://@/smuggled HTTP/1.1\r\nHost: @\r\n\r\n";

#[test]
fn nothing_but_one_well_formed_request_comes_through() {
    let corpus: Vec<(&str, String)> = CORPUS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(" | ").expect("a name and a form"))
        .map(|(name, form)| (name, unescaped(form)))
        .collect();
    assert!(corpus.len() >= 80, "{}", corpus.len());
    Lab::run(|lab| {
        let mut passed = 0;
        for (name, form) in &corpus {
            let request = form
                .replace('~', SMUGGLED)
                .replace("@@", "@\u{1}")
                .replace('@', HOST)
                .replace(&format!("{HOST}\u{1}"), &format!("@{HOST}"))
                .replace('#', &lab.credential())
                .replace('\u{2}', "#");
            let answer = send(lab, request.as_bytes());
            lab.idle();
            let heard = lab.heard_now();
            let requests: usize = heard.iter().map(|bytes| judge(name, bytes)).sum();
            assert!(requests <= 1, "{name}: {heard:?}");
            let first = answer.split(' ').nth(1).unwrap_or("none");
            // What did not reach the server was refused in words, or nothing was said to a tunnel that was cut.
            assert!(
                requests == 1 || first != "200" || form.starts_with("CONNECT"),
                "{name}: {answer}"
            );
            passed += requests;
        }
        // The corpus is no corpus if nothing gets through at all.
        assert!(
            passed >= 8,
            "{passed} of {} reached the server",
            corpus.len()
        );
    });
}

#[test]
fn very_long_forms_are_refused_before_they_are_held() {
    Lab::run(|lab| {
        let credential = lab.credential();
        let long = "a".repeat(70_000);
        let many = "X: y\r\n".repeat(500);
        for request in [
            format!("GET http://{HOST}/{long} HTTP/1.1\r\nHost: {HOST}\r\n{credential}\r\n"),
            format!("GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{credential}X: {long}\r\n\r\n"),
            format!("GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{credential}{long}: x\r\n\r\n"),
            format!("GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{credential}{many}\r\n"),
            format!(
                "POST http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{credential}Transfer-Encoding: chunked\r\n\r\n3;{long}\r\nabc\r\n0\r\n\r\n"
            ),
            format!(
                "POST http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n{credential}Transfer-Encoding: chunked\r\n\r\n0\r\nA: {long}\r\n\r\n"
            ),
        ] {
            let answer = send(lab, request.as_bytes());
            // A server may answer before a body; nothing of that one comes to it.
            assert!(
                request.starts_with("POST") || answer.starts_with("HTTP/1.1 400 "),
                "{answer}"
            );
        }
        lab.idle();
        let heard = lab.heard_now();
        assert!(heard.iter().all(|bytes| bytes.len() < 1024), "{heard:?}");
    });
}

/// As the compiler reads a string.
fn unescaped(form: &str) -> String {
    let mut bytes = form.chars();
    let mut text = String::new();
    while let Some(one) = bytes.next() {
        if one != '\\' {
            text.push(one);
            continue;
        }
        text.push(match bytes.next().expect("something behind a backslash") {
            'r' => '\r',
            'n' => '\n',
            't' => '\t',
            '0' => '\0',
            'x' => {
                let digits: String = bytes.by_ref().take(2).collect();
                char::from(u8::from_str_radix(&digits, 16).expect("two digits"))
            }
            'u' => {
                let digits: String = bytes
                    .by_ref()
                    .skip(1)
                    .take_while(|one| *one != '}')
                    .collect();
                let number = u32::from_str_radix(&digits, 16).expect("a number");
                char::from_u32(number).expect("a character")
            }
            other => other,
        });
    }
    text
}

/// What was answered before the connection ended, or a moment passed in silence.
fn send(lab: &Lab, request: &[u8]) -> String {
    let mut agent = lab.open();
    agent
        .set_read_timeout(Some(Duration::from_millis(150)))
        .unwrap();
    // It may be refused half way.
    let _ = agent.write_all(request);
    let mut answer = Vec::new();
    let _ = agent.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// How many whole requests these bytes are; a body in part is of a request that was cut.
fn judge(name: &str, bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    assert!(!text.contains("smuggled"), "{name}: {text}");
    assert!(
        !text.to_ascii_lowercase().contains("proxy-auth"),
        "{name}: {text}"
    );
    let mut rest = bytes;
    let mut requests = 0;
    while !rest.is_empty() {
        let end = end_of_head(rest, 0);
        let end = end.unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
        let end = end.unwrap_or_else(|| panic!("{name}: half a head: {text}"));
        let head = RequestHead::parse(&rest[..end])
            .unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
        let fields = of_request(&head).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
        assert_eq!(fields.host, Some(HOST.as_bytes()), "{name}: {text}");
        assert!(!head.target.contains("smuggled"), "{name}: {text}");
        requests += 1;
        rest = &rest[end..];
        match fields.framing {
            Framing::None | Framing::UntilClose => {}
            Framing::Length(length) => rest = &rest[rest.len().min(length as usize)..],
            Framing::Chunked => {
                let mut chunked = Chunked::default();
                loop {
                    match chunked.next(&mut rest) {
                        Ok(Some(Piece::End(trailers))) => {
                            assert_eq!(trailers, b"\r\n", "{name}: {text}");
                            break;
                        }
                        Ok(Some(Piece::Data(_))) => {}
                        Ok(None) => return requests,
                        Err(error) => panic!("{name}: {error}: {text}"),
                    }
                }
            }
        }
    }
    requests
}
