//! What an agent might say on port 443 so that two readers hear different things, or none hears TLS: all of it is cut.

use clawgress_policy::Reason;
use qemu_tests::{case, require};

use crate::sni::{ATTACKER, Front, hex};
use crate::sni_hello::{Hello, SERVER_NAME, entry, record};
use crate::sni_tls::{POLICY, SITE, in_time, is_cut, reaches, to};

/// None of them is a name, or none of TLS.
const NO_NAMES: [(&str, &str); 20] = [
    ("a NUL in the name", "api.example.com\0.evil.example"),
    ("a NUL after the name", "api.example.com\0"),
    ("a dot after the name", "api.example.com."),
    ("a dot before the name", ".api.example.com"),
    ("two dots", "api..example.com"),
    ("a blank", "api.example.com "),
    ("a line feed", "api.example.com\nv1 event=open"),
    ("a key's end mark", "api.example.com$"),
    ("a slash", "g/api.example.com"),
    ("a bar", "api.example.com|com.example.api$"),
    ("a percent sign", "api.example.com%20"),
    ("letters outside ASCII", "api.exämple.com"),
    ("a hyphen at a label's end", "api-.example.org"),
    ("an IPv4 address", "198.51.100.7"),
    ("an IPv4 address in short", "198.13132807"),
    ("an IPv4 address as a number", "3325256711"),
    ("an IPv4 address in hexadecimal", "0xc6336407"),
    ("an IPv6 address", "2001:db8::1"),
    ("an IPv6 address in brackets", "[2001:db8::1]"),
    ("no letters", ""),
];

fn server_name(body: &[u8]) -> Vec<u8> {
    Hello::nameless().with(SERVER_NAME, body.to_vec()).record()
}

fn host(name: &str) -> Vec<u8> {
    entry(0, name.as_bytes())
}

/// The honest hello with a byte changed.
fn with_byte(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = Hello::to(SITE).record();
    if let Some(place) = bytes.get_mut(at) {
        *place = byte;
    }
    bytes
}

/// Shapes that are none.
fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let plain = Hello::to(SITE);
    let length = plain.record().get(8).copied().unwrap_or_default();
    let list = host("evil.example");
    let second = [&[0, u8::try_from(list.len()).unwrap_or(0)][..], &list].concat();
    let twice = Hello::to(SITE).with(0x1234, vec![]).with(0x1234, vec![]);
    vec![
        ("two records", plain.two_records(60)),
        ("two records, cut inside the name", plain.two_records(100)),
        ("two records, the first of one byte", plain.two_records(1)),
        (
            "a handshake shorter than its record",
            with_byte(8, length.wrapping_sub(1)),
        ),
        (
            "a handshake longer than its record",
            with_byte(8, length.wrapping_add(1)),
        ),
        ("a message of another kind", with_byte(5, 2)),
        ("an empty record", record(&[])),
        ("version 2 in the record", with_byte(1, 2)),
        ("version 2 in the hello", with_byte(9, 2)),
        (
            "two names",
            Hello::listing(&[host(SITE), host("evil.example")]).record(),
        ),
        (
            "a name of another kind before",
            Hello::listing(&[entry(1, b"x"), host(SITE)]).record(),
        ),
        (
            "a name of another kind alone",
            Hello::listing(&[entry(1, SITE.as_bytes())]).record(),
        ),
        (
            "two server_name extensions",
            plain.with(SERVER_NAME, second).record(),
        ),
        ("the same extension twice", twice.record()),
        (
            "a label of 64 letters",
            Hello::to(&format!("{}.example.org", "a".repeat(64))).record(),
        ),
        (
            "a name of 254 letters",
            Hello::to(&format!("a{}example.org", "a.".repeat(121))).record(),
        ),
        ("an empty list", server_name(&[0, 0])),
        ("an empty extension", server_name(&[])),
        (
            "a list longer than its extension",
            server_name(&[0, 9, 0, 0, 1, b'a']),
        ),
        (
            "a name longer than its list",
            server_name(&[0, 4, 0, 0, 9, b'a']),
        ),
    ]
}

#[test]
fn a_hello_that_two_might_read_differently_is_cut() {
    case("net-sni-lies", |case| {
        let front = Front::new(case, POLICY)?;
        let names = NO_NAMES.map(|(what, name)| (what, Hello::to(name).record()));
        for (what, bytes) in shapes().into_iter().chain(names) {
            case.check(what, || {
                let took = is_cut(&front, &bytes, Reason::MalformedHello)?;
                in_time(took, 0, 2000)
            });
        }
        case.check("a byte more than the record", || {
            let longer = [Hello::to(SITE).record(), vec![0]].concat();
            reaches(&front, &longer, SITE)
        });
        case.check("no name", || {
            is_cut(&front, &Hello::nameless().record(), Reason::NoSni).map(drop)
        });
        case.check("an encrypted hello behind an allowed name", || {
            let bytes = Hello::to(SITE).hiding_another().record();
            is_cut(&front, &bytes, Reason::Ech).map(drop)
        });
        Ok(())
    });
}

#[test]
fn what_is_not_tls_is_cut() {
    case("net-sni-not-tls", |case| {
        let front = Front::new(case, POLICY)?;
        let http = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
        case.check("plain HTTP, at once", || {
            is_cut(&front, http, Reason::NotTls).and_then(|took| in_time(took, 0, 1000))
        });
        case.check("a client of SSH that speaks first", || {
            is_cut(&front, b"SSH-2.0-OpenSSH_9.6\r\n", Reason::NotTls)
                .and_then(|took| in_time(took, 0, 1000))
        });
        case.check("a client that waits for the server, as SSH may", || {
            let outcome = front.converse(&to(ATTACKER), &["read".to_owned()])?;
            require!(outcome.said.is_empty(), "{outcome:?}");
            in_time(outcome.took, 4500, 7000)?;
            front.was_denied(Reason::NotTls).map(drop)
        });
        case.check("a hello that never ends", || {
            let bytes = Hello::to(SITE).record();
            let half = bytes.get(..bytes.len() - 1).unwrap_or_default();
            let outcome = front.converse(
                &to(ATTACKER),
                &[format!("send={}", hex(half)), "read".to_owned()],
            )?;
            require!(outcome.said.is_empty(), "{outcome:?}");
            in_time(outcome.took, 4500, 7000)?;
            front.was_denied(Reason::MalformedHello).map(drop)
        });
        case.check("a hello cut off by its own side", || {
            let bytes = Hello::to(SITE).record();
            let half = bytes.get(..70).unwrap_or_default();
            let outcome = front.converse(
                &to(ATTACKER),
                &[format!("send={}", hex(half)), "shut".to_owned()],
            )?;
            require!(outcome.said.is_empty(), "{outcome:?}");
            in_time(outcome.took, 0, 1000)?;
            front.was_denied(Reason::MalformedHello).map(drop)
        });
        case.check("garbage after a first byte that fits", || {
            is_cut(&front, &[22; 600], Reason::MalformedHello)
                .and_then(|took| in_time(took, 0, 7000))
        });
        Ok(())
    });
}
