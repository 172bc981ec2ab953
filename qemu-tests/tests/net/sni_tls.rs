//! Every way around the name in a TLS hello, on port 443: the right site is reached or the flow is cut, never another.

use std::time::Duration;

use clawgress_enforcer::front::log::What;
use clawgress_policy::Reason;
use qemu_tests::frame::Mac;
use qemu_tests::lab::Host;
use qemu_tests::names::address_of;
use qemu_tests::{Case, Error, Result, case, fail, require};

use crate::gateway::{eventually, need};
use crate::sni::{ATTACKER, ATTACKER6, Front, Guest, greeting, hex, neighbours};
use crate::sni_hello::{Hello, SERVER_NAME, entry, record};

const POLICY: &str = r#"{
    "version": 2,
    "allow": {"domains": ["api.example.com", "*.example.org", "rebind.example.net", "shut.example.com"]},
    "proxy": {"mode": "sni-allowlist"},
    "domain_time_windows": {"shut.example.com": {"days": ["sun"], "start": "01:00", "end": "02:00"}}
}"#;
const SITE: &str = "api.example.com";
const OPENSSL: (&str, &str) = ("/usr/bin/openssl", "openssl");

fn to(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]:443")
    } else {
        format!("{address}:443")
    }
}

/// The agent says this to an attacker's address and ends up at the site of the name.
fn reaches(front: &Front, bytes: &[u8], name: &str) -> Result {
    let outcome = front.say(&to(ATTACKER), bytes)?;
    require!(
        outcome.said.starts_with(&greeting(name, false)),
        "{outcome:?}"
    );
    front.was_open(name).map(drop)
}

/// The agent says this and hears nothing.
fn is_cut(front: &Front, bytes: &[u8], reason: Reason) -> Result<Duration> {
    let outcome = front.say(&to(ATTACKER), bytes)?;
    require!(
        outcome.said.is_empty() && outcome.end != "open",
        "{outcome:?}"
    );
    front.was_denied(reason)?;
    Ok(outcome.took)
}

fn in_time(took: Duration, least: u64, most: u64) -> Result {
    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    require!(
        (least..=most).contains(&took),
        "it took {took} ms and not {least} to {most}"
    );
    Ok(())
}

#[test]
fn the_name_decides_and_the_address_does_not() {
    case("net-sni-name", |case| {
        let front = Front::new(case, POLICY)?;
        case.check(
            "the name of an allowed site, an attacker's address: the true site",
            || {
                let outcome = front.say(&to(ATTACKER), &Hello::to(SITE).record())?;
                require!(
                    outcome.said.starts_with(&greeting(SITE, false)),
                    "{outcome:?}"
                );
                let event = front.was_open(SITE)?;
                require!(event.who.as_deref() == Some("lan/inside"), "{event:?}");
                require!(event.site == Some(address_of(SITE).0.into()), "{event:?}");
                require!(event.source.ip().to_string() == "10.66.0.7", "{event:?}");
                require!(event.asked == to(ATTACKER).parse().ok(), "{event:?}");
                match event.what {
                    What::Close(traffic) => {
                        require!(traffic.sent > 100 && traffic.received > 20, "{event:?}")
                    }
                    _ => fail!("{event:?}"),
                }
                Ok(())
            },
        );
        case.check("the same over IPv6", || {
            let outcome = front.say(&to(ATTACKER6), &Hello::to(SITE).record())?;
            require!(
                outcome.said.starts_with(&greeting(SITE, true)),
                "{outcome:?}"
            );
            let event = front.was_open(SITE)?;
            require!(event.site == Some(address_of(SITE).1.into()), "{event:?}");
            Ok(())
        });
        case.check(
            "a name that is not allowed, at an allowed site's address",
            || {
                let site = address_of(SITE).0.to_string();
                let other = neighbours(SITE);
                require!(
                    address_of(&other) == address_of(SITE),
                    "{other} has another address"
                );
                let outcome = front.say(&to(&site), &Hello::to(&other).record())?;
                require!(outcome.said.is_empty(), "{outcome:?}");
                let event = front.was_denied(Reason::SniMismatch)?;
                require!(event.name.as_deref() == Some(other.as_str()), "{event:?}");
                Ok(())
            },
        );
        case.check("below a wildcard", || {
            reaches(
                &front,
                &Hello::to("a.b.example.org").record(),
                "a.b.example.org",
            )
        });
        for name in [
            "example.org",
            "badexample.org",
            "xapi.example.com",
            "a.api.example.com",
            "com",
            "example.org.evil.example",
            "api.example.com.evil.example",
        ] {
            case.check(name, || {
                is_cut(&front, &Hello::to(name).record(), Reason::SniMismatch).map(drop)
            });
        }
        case.check("a name whose window is shut", || {
            is_cut(
                &front,
                &Hello::to("shut.example.com").record(),
                Reason::OutsideWindow,
            )
            .map(drop)
        });
        case.check("a name that leads inside", || {
            is_cut(
                &front,
                &Hello::to("rebind.example.net").record(),
                Reason::Rebinding,
            )?;
            let outcome = front.say(&to(ATTACKER6), &Hello::to("rebind.example.net").record())?;
            require!(outcome.said.is_empty(), "{outcome:?}");
            front.was_denied(Reason::Rebinding).map(drop)
        });
        case.check("a name that does not resolve", || {
            is_cut(
                &front,
                &Hello::to("nothing.example.org").record(),
                Reason::Unavailable,
            )
            .map(drop)
        });
        Ok(())
    });
}

#[test]
fn however_a_hello_is_cut_up_its_name_is_read() {
    case("net-sni-shapes", |case| {
        let front = Front::new(case, POLICY)?;
        let plain = Hello::to(SITE);
        case.check("one byte in each segment", || {
            let outcome = front.converse(
                &to(ATTACKER),
                &[
                    format!("drip={}", hex(&plain.record())),
                    "read".to_owned(),
                    "shut".to_owned(),
                ],
            )?;
            require!(
                outcome.said.starts_with(&greeting(SITE, false)),
                "{outcome:?}"
            );
            front.was_open(SITE).map(drop)
        });
        case.check("one byte in each segment, post-quantum", || {
            let bytes = plain.clone().post_quantum().record();
            let outcome = front.converse(
                &to(ATTACKER),
                &[
                    format!("drip={}", hex(&bytes)),
                    "read".to_owned(),
                    "shut".to_owned(),
                ],
            )?;
            require!(
                outcome.said.starts_with(&greeting(SITE, false)),
                "{outcome:?}"
            );
            front.was_open(SITE).map(drop)
        });
        case.check(
            "one byte in each segment, a name that is not allowed",
            || {
                let bytes = Hello::to("evil.example").record();
                let outcome = front.converse(
                    &to(ATTACKER),
                    &[format!("drip={}", hex(&bytes)), "read".to_owned()],
                )?;
                require!(outcome.said.is_empty(), "{outcome:?}");
                front.was_denied(Reason::SniMismatch).map(drop)
            },
        );
        case.check("GREASE", || {
            reaches(&front, &plain.clone().greased().record(), SITE)
        });
        case.check("a key share of post-quantum size", || {
            let bytes = plain.clone().post_quantum().record();
            require!(bytes.len() > 1300, "{} bytes", bytes.len());
            reaches(&front, &bytes, SITE)
        });
        for size in [4096, 12_000, 15_000] {
            case.check(&format!("a hello of {size} bytes"), || {
                let bytes = plain.clone().post_quantum().padded_to(size).record();
                require!(bytes.len() == size, "{} bytes", bytes.len());
                reaches(&front, &bytes, SITE)
            });
        }
        case.check("a hello larger than the buffer", || {
            is_cut(
                &front,
                &plain.clone().padded_to(16_300).record(),
                Reason::MalformedHello,
            )
            .map(drop)
        });
        case.check("capitals", || {
            reaches(&front, &Hello::to("API.Example.COM").record(), SITE)
        });
        case.check("data that follows the hello at once", || {
            let more = [
                plain.record(),
                vec![20, 3, 3, 0, 1, 1],
                vec![23, 3, 3, 0, 2, 9, 9],
            ]
            .concat();
            reaches(&front, &more, SITE)
        });
        Ok(())
    });
}

#[test]
fn a_hello_that_two_might_read_differently_is_cut() {
    case("net-sni-lies", |case| {
        let front = Front::new(case, POLICY)?;
        let plain = Hello::to(SITE);
        let host = |name: &[u8]| entry(0, name);
        let server_name = |body: &[u8]| Hello::nameless().with(SERVER_NAME, body.to_vec()).record();
        let mut longer = plain.record();
        longer.push(0);
        let mut lengths = plain.record();
        // The handshake says one byte less than the record holds.
        lengths[8] = lengths[8].wrapping_sub(1);
        let mut version = plain.record();
        version[9] = 2;
        let lies: Vec<(&str, Vec<u8>)> = vec![
            ("two records", plain.two_records(60)),
            ("two records, cut inside the name", plain.two_records(100)),
            ("two records, the first of one byte", plain.two_records(1)),
            ("a handshake shorter than its record", lengths),
            (
                "a message of another kind",
                record(&[2, 0, 0, 4, 3, 3, 0, 0]),
            ),
            ("an empty record", record(&[])),
            ("version 2 in the hello", version),
            (
                "two names",
                Hello::listing(&[host(b"api.example.com"), host(b"evil.example")]).record(),
            ),
            (
                "a name of another kind before",
                Hello::listing(&[entry(1, b"x"), host(b"api.example.com")]).record(),
            ),
            (
                "a name of another kind alone",
                Hello::listing(&[entry(1, b"api.example.com")]).record(),
            ),
            (
                "two server_name extensions",
                plain
                    .clone()
                    .with(SERVER_NAME, server_name_body("evil.example"))
                    .record(),
            ),
            (
                "the same extension twice",
                plain
                    .clone()
                    .with(0x1234, vec![])
                    .with(0x1234, vec![])
                    .record(),
            ),
            (
                "a NUL in the name",
                Hello::to("api.example.com\0.evil.example").record(),
            ),
            (
                "a NUL after the name",
                Hello::to("api.example.com\0").record(),
            ),
            (
                "a dot after the name",
                Hello::to("api.example.com.").record(),
            ),
            (
                "a dot before the name",
                Hello::to(".api.example.com").record(),
            ),
            ("two dots", Hello::to("api..example.com").record()),
            ("a blank", Hello::to("api.example.com ").record()),
            (
                "a line feed",
                Hello::to("api.example.com\nv1 event=open").record(),
            ),
            ("a key's end mark", Hello::to("api.example.com$").record()),
            ("a slash", Hello::to("g/api.example.com").record()),
            (
                "a bar",
                Hello::to("api.example.com|com.example.api$").record(),
            ),
            (
                "letters outside ASCII",
                Hello::to("api.exämple.com").record(),
            ),
            ("an IPv4 address", Hello::to("198.51.100.7").record()),
            (
                "an IPv4 address in hexadecimal",
                Hello::to("0xc6336407").record(),
            ),
            ("an IPv6 address", Hello::to("2001:db8::1").record()),
            ("no letters", Hello::to("").record()),
            (
                "a label of 64 letters",
                Hello::to(&format!("{}.example.org", "a".repeat(64))).record(),
            ),
            (
                "a name of 254 letters",
                Hello::to(&format!("{}example.org", "a.".repeat(122)).replacen("a.", "aa.", 1))
                    .record(),
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
        ];
        for (what, bytes) in lies {
            case.check(what, || {
                is_cut(&front, &bytes, Reason::MalformedHello)
                    .and_then(|took| in_time(took, 0, 2000))
            });
        }
        case.check("a byte more than the record", || {
            reaches(&front, &longer, SITE)
        });
        case.check("no name", || {
            is_cut(&front, &Hello::nameless().record(), Reason::NoSni).map(drop)
        });
        case.check("an encrypted hello behind an allowed name", || {
            is_cut(
                &front,
                &plain.clone().hiding_another().record(),
                Reason::Ech,
            )
            .map(drop)
        });
        Ok(())
    });
}

fn server_name_body(name: &str) -> Vec<u8> {
    let list = entry(0, name.as_bytes());
    let length = u16::try_from(list.len()).unwrap_or(0).to_be_bytes();
    [&length[..], &list].concat()
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

#[test]
fn an_honest_client_shakes_hands_with_the_true_site() {
    case("net-sni-honest", |case| {
        need(&[OPENSSL])?;
        let front = Front::new(case, POLICY)?;
        let _site = Site::start(case, &front)?;
        for (family, address) in [("-4", ATTACKER), ("-6", ATTACKER6)] {
            case.check(&format!("openssl {family}"), || {
                let script = front.gateway.file(
                    "client.sh",
                    &format!(
                        "echo | timeout 8 {} s_client -connect {} -servername {SITE} -verify_hostname {SITE} \
                         -CAfile {} -verify_return_error -brief 2>&1\n",
                        OPENSSL.0,
                        to(address),
                        front.gateway.path("site.crt").display()
                    ),
                )?;
                let said = eventually("a handshake", || front.agent(&format!("sh {}", script.display())))?;
                require!(said.contains("Verification: OK") && said.contains("TLSv1.3"), "{said}");
                front.was_open(SITE).map(drop)
            });
        }
        Ok(())
    });
}

/// A TLS server with a certificate for `SITE` at the address of that name.
struct Site {
    _host: Host,
    _servers: [Guest; 2],
}

impl Site {
    fn start(case: &Case, front: &Front) -> Result<Self> {
        let gateway = &front.gateway;
        let host = gateway.lab.host("site")?;
        let (v4, v6) = address_of(SITE);
        let mac = Mac([2, 0xee, 0, 0, 0, 9]);
        gateway.lab.plug(
            &host,
            &gateway.outside,
            mac,
            &[
                "203.0.113.80/24",
                &format!("{v4}/32"),
                "2001:db8:f00d::80/64",
                &format!("{v6}/128"),
            ],
        )?;
        gateway
            .host
            .ip(&format!("-4 route add {v4} via 203.0.113.80"))?;
        gateway
            .host
            .ip(&format!("-6 route add {v6} via 2001:db8:f00d::80"))?;
        let made = rcgen::generate_simple_self_signed([SITE.to_owned()])
            .map_err(|error| Error::other(format!("making a certificate: {error}")))?;
        let (key, certificate) = (
            gateway.file("site.key", &made.signing_key.serialize_pem())?,
            gateway.file("site.crt", &made.cert.pem())?,
        );
        let log = case.log_directory("daemons")?;
        let serve = |family: &str| {
            let command = format!(
                "{} s_server {family} -accept 443 -key {} -cert {} -www",
                OPENSSL.0,
                key.display(),
                certificate.display()
            );
            Guest::start(&host, &command, &log.join(format!("site{family}.log")))
        };
        let servers = [serve("-4")?, serve("-6")?];
        Ok(Self {
            _host: host,
            _servers: servers,
        })
    }
}
