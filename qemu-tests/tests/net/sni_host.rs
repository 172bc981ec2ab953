//! Every way around the Host of a request, on port 80: each request reaches the site that it names, or is denied with a
//! reason, whatever its connection was used for before.

use clawgress_enforcer::front::log::What;
use clawgress_policy::Reason;
use qemu_tests::names::address_of;
use qemu_tests::{Result, case, require};

use crate::sni::{ATTACKER, ATTACKER6, Front, Outcome, greeting, hex, neighbours};

pub(crate) const POLICY: &str = r#"{
    "version": 2,
    "allow": {"domains": ["api.example.com", "*.example.org", "rebind.example.net"]},
    "labels": {"*.evil.example": "ask \"security\" first"},
    "proxy": {"mode": "sni-allowlist"}
}"#;
pub(crate) const SITE: &str = "api.example.com";

pub(crate) fn to(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]:80")
    } else {
        format!("{address}:80")
    }
}

pub(crate) fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

pub(crate) fn ask(front: &Front, request: &str) -> Result<Outcome> {
    let steps = [
        format!("send={}", hex(request.as_bytes())),
        "wait=400".to_owned(),
        "shut".to_owned(),
    ];
    front.converse(&to(ATTACKER), &steps)
}

pub(crate) fn reaches(front: &Front, request: &str, name: &str) -> Result {
    let outcome = ask(front, request)?;
    require!(outcome.said.starts_with("HTTP/1.1 200"), "{outcome:?}");
    require!(outcome.said.contains(&greeting(name, false)), "{outcome:?}");
    front.was_open(name).map(drop)
}

/// Denied with this status and reason, and no word of any site.
fn is_denied(front: &Front, request: &str, status: u16, reason: Reason) -> Result<String> {
    let outcome = ask(front, request)?;
    require!(
        outcome.said.starts_with(&format!("HTTP/1.1 {status}")),
        "{outcome:?}"
    );
    require!(!outcome.said.contains("fake internet"), "{outcome:?}");
    require!(
        outcome.said.contains(&format!("\"reason\":\"{reason}\"")),
        "{outcome:?}"
    );
    let event = front.was_denied(reason)?;
    if let Some(id) = event.request_id {
        require!(
            outcome.said.contains(&format!("\"request_id\":\"{id}\"")),
            "{id} is not in {outcome:?}"
        );
    }
    Ok(outcome.said)
}

#[test]
fn the_host_decides_and_the_address_does_not() {
    case("net-host-name", |case| {
        let front = Front::new(case, POLICY)?;
        case.check(
            "the Host of an allowed site, an attacker's address: the true site",
            || reaches(&front, &get(SITE), SITE),
        );
        case.check("the same over IPv6", || {
            let steps = [
                format!("send={}", hex(get(SITE).as_bytes())),
                "wait=400".to_owned(),
                "shut".to_owned(),
            ];
            let outcome = front.converse(&to(ATTACKER6), &steps)?;
            require!(outcome.said.contains(&greeting(SITE, true)), "{outcome:?}");
            let event = front.was_open(SITE)?;
            require!(event.site == Some(address_of(SITE).1.into()), "{event:?}");
            Ok(())
        });
        case.check("another site's Host at a shared address", || {
            let other = neighbours(SITE);
            let site = to(&address_of(SITE).0.to_string());
            let steps = [
                format!("send={}", hex(get(&other).as_bytes())),
                "wait=400".to_owned(),
                "shut".to_owned(),
            ];
            let outcome = front.converse(&site, &steps)?;
            require!(outcome.said.starts_with("HTTP/1.1 403"), "{outcome:?}");
            front.was_denied(Reason::HostMismatch).map(drop)
        });
        for host in ["a.example.org", "A.Example.ORG", "a.example.org:80"] {
            case.check(host, || reaches(&front, &get(host), "a.example.org"));
        }
        let wrong = [
            "evil.example",
            "example.org",
            "a.example.org:443",
            "a.example.org:8080",
            "a.example.org:080",
            "a.example.org:",
            "a.example.org.",
            "a.example.org.evil.example",
            "api.example.com, evil.example",
            "api.example.com;evil.example",
            "user@api.example.com",
            "api.example.com/evil",
            "api.example.com%00",
            "198.51.100.7",
            "[2001:db8::1]",
            "0xc6336407",
        ];
        for host in wrong {
            case.check(host, || {
                let outcome = ask(&front, &get(host))?;
                let refused = ["HTTP/1.1 403", "HTTP/1.1 400"]
                    .iter()
                    .any(|status| outcome.said.starts_with(status));
                require!(
                    refused && !outcome.said.contains("fake internet"),
                    "{outcome:?}"
                );
                let events = front.events(|event| matches!(event.what, What::Deny(_)))?;
                require!(
                    events.iter().all(|event| event.what != What::Open),
                    "{events:?}"
                );
                Ok(())
            });
        }
        case.check("a name that leads inside", || {
            is_denied(&front, &get("rebind.example.net"), 403, Reason::Rebinding).map(drop)
        });
        case.check("a name that does not resolve", || {
            is_denied(
                &front,
                &get("nothing.example.org"),
                503,
                Reason::Unavailable,
            )
            .map(drop)
        });
        Ok(())
    });
}

#[test]
fn a_denial_is_one_line_of_json() {
    case("net-host-denial", |case| {
        let front = Front::new(case, POLICY)?;
        case.check("with its label", || {
            let said = is_denied(&front, &get("www.evil.example"), 403, Reason::HostMismatch)?;
            let (head, body) = said.split_once("\\r\\n\\r\\n").unwrap_or_default();
            require!(
                head.to_lowercase()
                    .contains("content-type: application/json"),
                "{said}"
            );
            // The client escapes backslashes once more.
            let body = body.replace("\\\\", "\\");
            for part in [
                "\"decision\":\"deny\"",
                "\"host\":\"www.evil.example\"",
                r#""label":"ask \"security\" first""#,
            ] {
                require!(body.contains(part), "{part} is not in {body}");
            }
            require!(body.starts_with('{') && body.ends_with('}'), "{body}");
            Ok(())
        });
        case.check("a Host that would break out of it", || {
            let said = is_denied(
                &front,
                &get("x\",\"decision\":\"allow"),
                403,
                Reason::HostMismatch,
            )?;
            require!(
                said.contains(r#""host":"x\\",\\"decision\\":\\"allow"}"#),
                "{said}"
            );
            Ok(())
        });
        Ok(())
    });
}

#[test]
fn every_request_of_a_connection_is_judged() {
    case("net-host-keep-alive", |case| {
        let front = Front::new(case, POLICY)?;
        case.check(
            "a first Host that is allowed, a second that is not, a third that is",
            || {
                let steps = [
                    format!("send={}", hex(get(SITE).as_bytes())),
                    "wait=300".to_owned(),
                    format!("send={}", hex(get("evil.example").as_bytes())),
                    "wait=300".to_owned(),
                    format!("send={}", hex(get("b.example.org").as_bytes())),
                    "wait=300".to_owned(),
                    "shut".to_owned(),
                ];
                let outcome = front.converse(&to(ATTACKER), &steps)?;
                let statuses: Vec<&str> = outcome
                    .said
                    .split("HTTP/1.1 ")
                    .skip(1)
                    .filter_map(|answer| answer.get(..3))
                    .collect();
                require!(statuses == ["200", "403", "200"], "{outcome:?}");
                require!(outcome.said.contains(&greeting(SITE, false)), "{outcome:?}");
                require!(
                    outcome.said.contains(&greeting("b.example.org", false)),
                    "{outcome:?}"
                );
                front.forget_events();
                Ok(())
            },
        );
        case.check("all of them sent at once", || {
            let all = [get(SITE), get("evil.example"), get("b.example.org")].concat();
            let outcome = ask(&front, &all)?;
            let statuses: Vec<&str> = outcome
                .said
                .split("HTTP/1.1 ")
                .skip(1)
                .filter_map(|answer| answer.get(..3))
                .collect();
            require!(statuses == ["200", "403", "200"], "{outcome:?}");
            front.forget_events();
            Ok(())
        });
        Ok(())
    });
}
