//! The front's legs through the ruleset: a real haproxy that takes what the ruleset redirects to it and goes on with
//! the agent's own address. What it decides itself is not tested here: this one lets everything pass to one site.

use std::time::{Duration, Instant};

use clawgress_enforcer::plan::{Carry, What};
use clawgress_policy::Reason;
use qemu_tests::agent::trace;
use qemu_tests::frame::Frame;
use qemu_tests::lab::Internet;
use qemu_tests::{Case, Result, case, require};

use crate::gateway::{Daemon, HAPROXY, NFT, eventually, need};
use crate::plan::{IP, Planned, carry, outcome, pin};
use crate::rules::{rule, with};

/// Where this front goes, whatever the agent wanted.
const SITE: &str = "198.51.100.99";
const SITE6: &str = "2001:db8:1::99";
const CAP: u64 = 1_000_000;

fn policy(names: &str) -> String {
    format!(
        r#"{{"version": 2, "hosts": {{"agent-1": {{"sources": ["10.66.0.7/32", "fd66::7/128"],
            "allow": {{"domains": [{names}], "ports": [80, 443]}},
            "proxy": {{"mode": "sni-allowlist"}},
            "exfil": {{"domains": {{"wire.example": {{"bytes": {CAP}, "period": "hour"}}}}}}}}}}}}"#
    )
}

/// What the front asked the resolver for on behalf of a flow.
fn asked() -> Carry {
    carry(&[pin("sni", "wire.example", &[SITE, SITE6])])
}

fn haproxy(case: &Case, box_: &Planned) -> Result<Daemon> {
    let config = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 3s\n  retries 0\n  timeout client 30s\n  timeout server 30s\n\
         frontend four\n  bind 0.0.0.0:10443\n  default_backend four\n\
         frontend six\n  bind [::]:10443 v6only\n  default_backend six\n\
         backend four\n  source 0.0.0.0 usesrc clientip\n  server site {SITE}:443\n\
         backend six\n  source [::] usesrc clientip\n  server site [{SITE6}]:443\n"
    );
    let config = box_.gateway.file("front.cfg", &config)?;
    box_.gateway.daemon(
        case,
        "haproxy",
        &format!("{} -db -f {}", HAPROXY.0, config.display()),
    )
}

fn to_site(frames: &[Frame]) -> Vec<&Frame> {
    frames
        .iter()
        .filter(|frame| frame.destination_port == Some(443))
        .collect()
}

#[test]
fn the_fronts_leg_is_judged_counted_and_cut_like_a_forwarded_flow() {
    case("net-plan-front", |case| {
        need(&[NFT, IP, HAPROXY])?;
        let box_ = Planned::new()?;
        box_.enforce(&policy(r#""wire.example""#), 7, asked())?;
        let _haproxy = haproxy(case, &box_)?;
        let agent = &box_.gateway.agent.host;
        for to in [
            "1.1.1.1:443",
            "[2606:4700:4700::1111]:443",
            "198.51.100.99:443",
        ] {
            case.check(
                &format!("a flow to {to} goes where the front takes it"),
                || {
                    let frames = box_.gateway.outside_while(case, || {
                        eventually("the front", || {
                            let said = agent.dial(to)?;
                            require!(said.contains("99"), "reached {said}");
                            Ok(())
                        })
                    })?;
                    require!(!to_site(&frames).is_empty(), "nothing went to a site");
                    let strangers = frames
                        .iter()
                        .filter(|frame| {
                            frame
                                .destination
                                .is_some_and(|at| at.to_string().starts_with("1.1.1"))
                        })
                        .count();
                    require!(
                        strangers == 0,
                        "{strangers} frames to the address that the agent chose"
                    );
                    require!(
                        !frames.iter().any(|frame| trace(frame).is_some()),
                        "a frame under the agent's address"
                    );
                    let v4 = to_site(&frames)
                        .into_iter()
                        .filter(|frame| frame.source.is_some_and(|from| from.is_ipv4()));
                    let foreign = v4
                        .filter(|frame| frame.source != Some(Internet::LEASE.into()))
                        .count();
                    require!(
                        foreign == 0,
                        "{foreign} frames under another address than the box's"
                    );
                    Ok(())
                },
            );
        }
        case.check("the front's flows are the agent's", || {
            require!(
                box_.metered("agent-1", &What::Flows)? >= 3,
                "they are not counted"
            );
            require!(
                box_.metered("agent-1", &What::BytesIn)? > 300,
                "no bytes came in"
            );
            Ok(())
        });
        case.check("QUIC is refused so that clients fall back", || {
            let before = box_.denied("agent-1", Reason::Protocol)?;
            let pour =
                box_.stream_verb("pour 198.51.100.99:443 --size 100 --seconds 1 --rate 20")?;
            pour.line(Duration::from_secs(5))?;
            require!(
                box_.denied("agent-1", Reason::Protocol)? > before,
                "it was not"
            );
            Ok(())
        });
        case.check("what no look-up led to is no place for the front", || {
            box_.enforce(&policy(r#""wire.example""#), 8, Carry::default())?;
            let began = Instant::now();
            // The front has taken the flow before it finds that it can't go on.
            let said = agent.dial("1.1.1.1:443").unwrap_or_default();
            require!(said.is_empty(), "it went there: {said}");
            require!(
                began.elapsed() < Duration::from_secs(1),
                "only after {:?}: the front was not told; {}",
                began.elapsed(),
                box_.nonzero()?
            );
            require!(
                box_.denied("agent-1", Reason::NotAllowlisted)? > 0,
                "not counted"
            );
            Ok(())
        });
        Ok(())
    });
}

/// A rule about a network is about what a name leads to, and about the port that it says.
#[test]
fn a_network_that_a_rule_denies_at_one_port_is_no_place_for_the_front_there() {
    case("net-plan-front-rule", |case| {
        need(&[NFT, IP, HAPROXY])?;
        let box_ = Planned::new()?;
        let ruled = |ports: &str| {
            let network = format!(r#""destination": {{"networks": ["{SITE}/32"]{ports}}}"#);
            let wire = r#""allow": {"domains": ["wire.example"], "ports": [80, 443]},
                "proxy": {"mode": "sni-allowlist"}"#;
            with(wire, "active", &rule("deny", "deny", 10, &network))
        };
        box_.enforce(&ruled(r#", "ports": [80]"#), 7, asked())?;
        let _haproxy = haproxy(case, &box_)?;
        let agent = &box_.gateway.agent.host;
        case.step("denied at port 80, it is reached at 443", || {
            eventually("the front", || {
                let said = agent.dial("1.1.1.1:443")?;
                require!(said.contains("99"), "reached {said}");
                Ok(())
            })
        })?;
        for (what, generation, ports, reason) in [
            (
                "denied at port 443, it is not",
                8,
                r#", "ports": [443]"#,
                Reason::NotAllowlisted,
            ),
            ("denied at all ports, it is not", 9, "", Reason::Rule),
        ] {
            case.step(what, || {
                box_.enforce(&ruled(ports), generation, asked())?;
                let said = agent.dial("1.1.1.1:443").unwrap_or_default();
                require!(said.is_empty(), "it went there: {said}");
                require!(
                    box_.denied("one", reason)? > 0,
                    "not counted: {}",
                    box_.nonzero()?
                );
                Ok(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_live_leg_of_the_front_is_cut_by_a_new_generation() {
    case("net-plan-front-cut", |case| {
        need(&[NFT, IP, HAPROXY])?;
        let box_ = Planned::new()?;
        box_.enforce(&policy(r#""wire.example""#), 7, asked())?;
        let _haproxy = haproxy_to_streams(case, &box_)?;
        let _streams = box_
            .gateway
            .internet
            .host
            .start(&["streams".to_owned(), "4443".to_owned()])?;
        for (way, generation) in [("download", 10), ("upload", 20)] {
            case.check(way, || {
                box_.enforce(&backed(r#""wire.example""#), generation, asked())?;
                let flow = eventually("the front", || {
                    box_.stream(&format!("1.1.1.1:443 --{way} 40000000 --pace 1000000"))
                })?;
                std::thread::sleep(Duration::from_millis(700));
                box_.enforce(&backed(r#""wire.example""#), generation + 1, asked())?;
                std::thread::sleep(Duration::from_millis(700));
                let began = Instant::now();
                // The next gateway is another one now.
                box_.enforce(
                    &backed(r#""wire.example""#).replace(SITE, "198.51.100.98"),
                    generation + 2,
                    asked(),
                )?;
                let outcome = outcome(&flow.line(Duration::from_secs(20))?)?;
                case.note(&format!(
                    "cut after {:?} and {} bytes",
                    began.elapsed(),
                    outcome.bytes
                ));
                require!(
                    outcome.bytes > 1_000_000,
                    "cut before it was forbidden: {outcome:?}"
                );
                require!(
                    ["reset", "closed"].contains(&outcome.end.as_str()),
                    "{outcome:?}"
                );
                require!(
                    began.elapsed() < Duration::from_secs(1),
                    "only after {:?}",
                    began.elapsed()
                );
                Ok(())
            });
        }
        Ok(())
    });
}

/// Everything is handed on to a next gateway, where streams are.
fn backed(names: &str) -> String {
    policy(names).replace(
        r#""mode": "sni-allowlist""#,
        &format!(r#""mode": "sni-allowlist", "backend": "{SITE}:4443""#),
    )
}

fn haproxy_to_streams(case: &Case, box_: &Planned) -> Result<Daemon> {
    let config = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 3s\n  retries 0\n  timeout client 30s\n  timeout server 30s\n\
         listen four\n  bind 0.0.0.0:10443\n  source 0.0.0.0 usesrc clientip\n  server next {SITE}:4443\n"
    );
    let config = box_.gateway.file("next.cfg", &config)?;
    box_.gateway.daemon(
        case,
        "haproxy",
        &format!("{} -db -f {}", HAPROXY.0, config.display()),
    )
}

#[test]
fn the_fronts_leg_ends_at_the_cap() {
    case("net-plan-front-cap", |case| {
        need(&[NFT, IP, HAPROXY])?;
        let box_ = Planned::new()?;
        // The cap is on a name: the next gateway is reached under that name.
        let policy = policy(r#""wire.example""#).replace(
            r#""mode": "sni-allowlist""#,
            r#""mode": "sni-allowlist", "backend": "wire.example:4443""#,
        );
        box_.enforce(&policy, 7, asked())?;
        let _haproxy = haproxy_to_streams(case, &box_)?;
        let streams = box_
            .gateway
            .internet
            .host
            .start(&["streams".to_owned(), "4443".to_owned()])?;
        let flow = eventually("the front", || box_.stream("1.1.1.1:443 --upload 20000000"))?;
        let began = Instant::now();
        let agents = outcome(&flow.line(Duration::from_secs(20))?)?;
        let took = began.elapsed();
        let sites = outcome(&streams.line(Duration::from_secs(20))?)?;
        case.note(&format!(
            "the site got {} bytes of a cap of {CAP}; the agent was told after {took:?}",
            sites.bytes
        ));
        require!(
            sites.bytes < CAP + 64 * 1024 && sites.bytes > CAP / 2,
            "{sites:?}"
        );
        require!(
            agents.end != "whole" && took < Duration::from_secs(2),
            "{agents:?} after {took:?}"
        );
        require!(
            box_.denied("agent-1", Reason::OverCap)? > 0,
            "the reason was another"
        );
        Ok(())
    });
}
