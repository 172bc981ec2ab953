//! Sites that ask for a second hello (HelloRetryRequest), and go by it: it names what the first one named, or the flow
//! is cut before a byte of it gets to the site.

use clawgress_enforcer::front::log::What;
use clawgress_policy::Reason;
use qemu_tests::{Case, Result, case, fail, require};

use crate::gateway::{eventually, need};
use crate::sni::{ATTACKER, Front, hex, neighbours};
use crate::sni_hello::Hello;
use crate::sni_tls::{OPENSSL, POLICY, SITE, Site, to};

/// How a HelloRetryRequest and a fatal alert begin, as the agent's client prints them.
const RETRY: &str = "\\x16\\x03\\x03\\x00X\\x02";
const ALERT: &str = "\\x15\\x03\\x03\\x00\\x02\\x02";

/// The flow was let through by its first hello and cut for this reason at what came next.
fn was_cut_later(front: &Front, reason: Reason) -> Result {
    let events = front.events(|event| matches!(event.what, What::Deny(_)))?;
    let kinds: Vec<&What> = events.iter().map(|event| &event.what).collect();
    require!(
        kinds == [&What::Open, &What::Deny(reason)],
        "logged as {events:?}"
    );
    require!(
        events
            .iter()
            .all(|event| event.name.as_deref() == Some(SITE)),
        "{events:?}"
    );
    Ok(())
}

/// openssl's client, with one hello or two.
fn honest(case: &Case, front: &Front) {
    for (what, options, hellos) in [
        ("a client that is asked again", "-groups X25519:P-256", 2),
        ("one that is not", "-groups P-256", 1),
        ("one of TLS 1.2", "-tls1_2", 1),
    ] {
        case.check(what, || {
                let script = front.gateway.file(
                    "client.sh",
                    &format!(
                        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 8 {} s_client -connect {} -servername {SITE} \
                         -verify_hostname {SITE} -CAfile {} -verify_return_error -ign_eof -msg {options} 2>&1\n",
                        OPENSSL.0,
                        to(ATTACKER),
                        front.gateway.path("site.crt").display()
                    ),
                )?;
                let said = eventually("a handshake", || front.agent(&format!("sh {}", script.display())))?;
                require!(said.contains("Verification: OK") && said.contains("200 ok"), "{said}");
                require!(said.matches("], ClientHello").count() == hellos, "{said}");
                front.was_open(SITE).map(drop)
            });
    }
}

#[test]
fn a_second_hello_names_what_the_first_one_named() {
    case("net-sni-retry", |case| {
        need(&[OPENSSL])?;
        let front = Front::new(case, POLICY)?;
        let _site = Site::start(case, &front, "-groups P-256")?;
        honest(case, &front);
        front.forget_events();
        let first = Hello::to(SITE).also_p256();
        let other = Hello::to(&neighbours(SITE)).also_p256();
        case.check("the same name again", || {
            let again = first.record();
            let steps = ["send", "read", "send"].map(|step| match step {
                "send" => format!("send={}", hex(&again)),
                step => step.to_owned(),
            });
            let outcome = front.converse(&to(ATTACKER), &steps)?;
            // The site has read it and does not like its key.
            require!(
                outcome.said.starts_with(RETRY) && outcome.said.contains(ALERT),
                "{outcome:?}"
            );
            front.was_open(SITE).map(drop)
        });
        let cipher = vec![20, 3, 3, 0, 1, 1];
        let early = [vec![23, 3, 3, 0x20, 0], vec![9; 0x2000]].concat();
        for (what, second, reason) in [
            ("another name", other.record(), Reason::SniMismatch),
            (
                "another name behind a change of cipher",
                [cipher.clone(), other.record()].concat(),
                Reason::SniMismatch,
            ),
            (
                "another name behind early data",
                [early, cipher, other.record()].concat(),
                Reason::SniMismatch,
            ),
            (
                "another name over two records",
                other.two_records(3),
                Reason::MalformedHello,
            ),
            ("no name", Hello::nameless().record(), Reason::NoSni),
            (
                "another name hidden",
                first.clone().hiding_another().record(),
                Reason::Ech,
            ),
            ("no TLS", b"SSH-2.0-x\r\n".to_vec(), Reason::NotTls),
        ] {
            for (how, verb) in [("", "send"), (", byte by byte", "drip")] {
                if verb == "drip" && second.len() > 1000 {
                    continue;
                }
                case.check(&format!("{what}{how}"), || {
                    let steps = [
                        format!("send={}", hex(&first.record())),
                        "read".to_owned(),
                        format!("{verb}={}", hex(&second)),
                    ];
                    let outcome = front.converse(&to(ATTACKER), &steps)?;
                    if !outcome.said.starts_with(RETRY)
                        || outcome.said.contains(ALERT)
                        || outcome.end == "open"
                    {
                        fail!("{outcome:?}");
                    }
                    was_cut_later(&front, reason)
                });
            }
            case.check(&format!("{what}, at once with the first"), || {
                let both = [first.record(), second.clone()].concat();
                let outcome = front.converse(&to(ATTACKER), &[format!("send={}", hex(&both))])?;
                require!(
                    !outcome.said.contains(ALERT) && outcome.end != "open",
                    "{outcome:?}"
                );
                was_cut_later(&front, reason)
            });
        }
        case.check("another name in a third hello", || {
            let all = [first.record(), first.record(), other.record()].concat();
            let outcome = front.converse(&to(ATTACKER), &[format!("send={}", hex(&all))])?;
            require!(outcome.end != "open", "{outcome:?}");
            was_cut_later(&front, Reason::SniMismatch)
        });
        Ok(())
    });
}
