//! Sites that ask for a second hello (HelloRetryRequest), and go by it: it names what the first one named, or the flow
//! is cut before a byte of it gets to the site.

use clawgress_enforcer::front::log::What;
use clawgress_policy::Reason;
use qemu_tests::frame::Mac;
use qemu_tests::lab::Host;
use qemu_tests::names::address_of;
use qemu_tests::{Case, Result, case, fail, require};

use crate::gateway::{HAPROXY, eventually, need};
use crate::sni::{ATTACKER, Front, Guest, hex, neighbours};
use crate::sni_hello::{Hello, record};
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

const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
const WARNING: [u8; 7] = [21, 3, 3, 0, 2, 1, 112];
/// What the site says when more came than the first hello.
const MORE: &str = "more";

/// A ServerHello, or with that random a HelloRetryRequest.
fn server_hello(random: [u8; 32]) -> Vec<u8> {
    let body = [&[3, 3][..], &random, &[0, 0x13, 1, 0, 0, 0]].concat();
    record(&[&[2, 0, 0, u8::try_from(body.len()).unwrap_or(0)][..], &body].concat())
}

/// A site that answers a hello by its length: with the bytes in that place of the list, one in a segment if the place is
/// odd.
fn scripted(case: &Case, front: &Front, answers: &[Vec<u8>]) -> Result<(Host, Guest)> {
    let gateway = &front.gateway;
    let host = gateway.lab.host("site")?;
    let address = address_of(SITE).0;
    let (mac, own) = (Mac([2, 0xee, 0, 0, 0, 9]), format!("{address}/32"));
    gateway
        .lab
        .plug(&host, &gateway.outside, mac, &["203.0.113.80/24", &own])?;
    gateway
        .host
        .ip(&format!("-4 route add {address} via 203.0.113.80"))?;
    let digits: Vec<String> = answers.iter().map(|answer| hex(answer)).collect();
    let list = format!("\"{}\"", digits.join("\", \""));
    let script = format!(
        r#"local answers = {{ {list} }}
        core.register_service("site", "tcp", function(applet)
            local head = applet:receive(5)
            local length = head:byte(4) * 256 + head:byte(5)
            applet:receive(length)
            local place = length + 5 - {FIRST_LENGTH}
            local answer = answers[place + 1]:gsub("..", function(two) return string.char(tonumber(two, 16)) end)
            local step = place % 2 == 1 and 1 or #answer
            for at = 1, #answer, step do
                applet:send(answer:sub(at, at + step - 1))
                core.msleep(3)
            end
            if #applet:receive(1) == 1 then
                applet:send("{MORE}")
            end
        end)
        "#
    );
    let script = gateway.file("site.lua", &script)?;
    let config = gateway.file(
        "site.cfg",
        &format!(
            "global\n  lua-load {}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 9s\n  timeout server 9s\n\
             frontend site\n  bind {address}:443\n  tcp-request inspect-delay 5s\n  tcp-request content use-service lua.site\n",
            script.display()
        ),
    )?;
    let log = case.log_directory("daemons")?.join("site.log");
    let command = format!("{} -db -q -f {}", HAPROXY.0, config.display());
    let site = Guest::start(&host, &command, &log)?;
    // For it to listen.
    std::thread::sleep(std::time::Duration::from_secs(1));
    Ok((host, site))
}

const FIRST_LENGTH: usize = 600;

#[test]
fn the_watch_ends_with_the_answer_that_asks_for_nothing() {
    case("net-sni-watch", |case| {
        let front = Front::new(case, POLICY)?;
        let (retry, settled) = (server_hello(RETRY_RANDOM), server_hello([5; 32]));
        let behind_warning = |answer: &[u8]| [&WARNING[..], answer].concat();
        let other = Hello::to(&neighbours(SITE)).record();
        let same = Hello::to(SITE).record();
        // Of TLS 1.2: in a record of handshakes, and no hello.
        let key_exchange = record(&[16, 0, 0, 1, 9]);
        let mismatch = Some(Reason::SniMismatch);
        let trials = [
            ("asked again", retry.clone(), &other, mismatch),
            (
                "asked again behind a warning",
                behind_warning(&retry),
                &other,
                mismatch,
            ),
            (
                "asked again, no hello",
                retry.clone(),
                &key_exchange,
                Some(Reason::MalformedHello),
            ),
            ("only warned", WARNING.to_vec(), &other, mismatch),
            ("asked again, the same name", retry, &same, None),
            ("answered", settled.clone(), &key_exchange, None),
            (
                "answered behind a warning",
                behind_warning(&settled),
                &key_exchange,
                None,
            ),
            (
                "answered by no TLS",
                b"220 ready\r\n".to_vec(),
                &key_exchange,
                None,
            ),
        ];
        // Each answer twice: at once, then byte by byte.
        let answers: Vec<Vec<u8>> = trials
            .iter()
            .flat_map(|(_, answer, ..)| [answer.clone(), answer.clone()])
            .collect();
        let _site = scripted(case, &front, &answers)?;
        let places = trials
            .iter()
            .flat_map(|trial| [(trial, ""), (trial, ", byte by byte")]);
        for (place, ((what, _, second, reason), how)) in places.enumerate() {
            case.check(&format!("{what}{how}"), || {
                let first = Hello::to(SITE).padded_to(FIRST_LENGTH + place).record();
                let steps = [
                    format!("send={}", hex(&first)),
                    "wait=700".to_owned(),
                    format!("send={}", hex(second)),
                ];
                let outcome = front.converse(&to(ATTACKER), &steps)?;
                require!(outcome.end != "open", "{outcome:?}");
                require!(
                    outcome.said.ends_with(MORE) == reason.is_none(),
                    "{outcome:?}"
                );
                match reason {
                    Some(reason) => was_cut_later(&front, *reason),
                    None => front.was_open(SITE).map(drop),
                }
            });
        }
        Ok(())
    });
}
