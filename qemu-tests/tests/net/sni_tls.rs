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
use crate::sni_hello::Hello;

pub(crate) const POLICY: &str = r#"{
    "version": 2,
    "allow": {"domains": ["api.example.com", "*.example.org", "rebind.example.net", "shut.example.com"]},
    "proxy": {"mode": "sni-allowlist"},
    "domain_time_windows": {"shut.example.com": {"days": ["sun"], "start": "01:00", "end": "02:00"}}
}"#;
pub(crate) const SITE: &str = "api.example.com";
pub(crate) const OPENSSL: (&str, &str) = ("/usr/bin/openssl", "openssl");

pub(crate) fn to(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]:443")
    } else {
        format!("{address}:443")
    }
}

/// The agent says this to an attacker's address and ends up at the site of the name.
pub(crate) fn reaches(front: &Front, bytes: &[u8], name: &str) -> Result {
    let outcome = front.say(&to(ATTACKER), bytes)?;
    require!(
        outcome.said.starts_with(&greeting(name, false)),
        "{outcome:?}"
    );
    front.was_open(name).map(drop)
}

/// The agent says this and hears nothing.
pub(crate) fn is_cut(front: &Front, bytes: &[u8], reason: Reason) -> Result<Duration> {
    let outcome = front.say(&to(ATTACKER), bytes)?;
    require!(
        outcome.said.is_empty() && outcome.end != "open",
        "{outcome:?}"
    );
    front.was_denied(reason)?;
    Ok(outcome.took)
}

pub(crate) fn in_time(took: Duration, least: u64, most: u64) -> Result {
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
fn an_honest_client_shakes_hands_with_the_true_site() {
    case("net-sni-honest", |case| {
        need(&[OPENSSL])?;
        let front = Front::new(case, POLICY)?;
        let _site = Site::start(case, &front, "")?;
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
pub(crate) struct Site {
    _host: Host,
    _servers: [Guest; 2],
}

impl Site {
    /// `more`: options of openssl's s_server.
    pub(crate) fn start(case: &Case, front: &Front, more: &str) -> Result<Self> {
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
                "{} s_server {family} -accept 443 -key {} -cert {} -www {more}",
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
