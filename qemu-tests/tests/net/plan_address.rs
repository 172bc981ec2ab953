//! Judgement by address: what was pinned for a source, on its ports, and nothing else, in both families.

use std::time::{Duration, Instant};

use clawgress_enforcer::plan::What;
use clawgress_policy::{Moment, Reason};
use qemu_tests::agent::trace;
use qemu_tests::frame::Mac;
use qemu_tests::lab::Internet;
use qemu_tests::{Result, case, fail, require};

use crate::gateway::{NFT, need};
use crate::plan::{IP, NOON, Planned, carry, pin};

/// agent-1 is the lab's agent; everybody else on the wire has the global scope.
const POLICY: &str = r#"{"version": 2,
    "allow": {"domains": ["everybody.example"], "ips": ["192.0.2.0/24"], "ports": [80, 443]},
    "hosts": {
        "agent-1": {"sources": ["10.66.0.7/32", "fd66::7/128"],
            "allow": {"domains": ["pinned.example"], "ips": ["2001:db8:1:f::/64"], "ports": [443, 853]}},
        "agent-2": {"sources": ["10.66.0.8/32"],
            "allow": {"domains": ["pinned.example"]}, "proxy": {"mode": "sni-allowlist"}}}}"#;
/// No target of the lab's attack.
const PINNED: [&str; 2] = ["198.51.100.99", "2001:db8:1::99"];
const AGENT_2: Mac = Mac([2, 0xa9, 0, 0, 0, 8]);
const STRANGER: Mac = Mac([2, 0xa9, 0, 0, 0, 9]);

/// Denied, and told so at once instead of being left to wait.
fn denied_at_once(host: &qemu_tests::lab::Host, to: &str) -> Result {
    let began = Instant::now();
    match host.dial(to) {
        Ok(said) => fail!("{to} answered {said:?}"),
        Err(error) if began.elapsed() > Duration::from_secs(2) => {
            fail!("{to}: only after {:?}: {error}", began.elapsed())
        }
        Err(_) => Ok(()),
    }
}

#[test]
fn an_agent_reaches_what_is_pinned_for_it_and_nothing_else() {
    case("net-plan-address", |case| {
        need(&[NFT, IP])?;
        let box_ = Planned::new()?;
        let agent_2 = box_.neighbour("agent2", AGENT_2, &["10.66.0.8/24"])?;
        let stranger = box_.neighbour("stranger", STRANGER, &["10.66.0.9/24", "fd66::9/64"])?;
        case.step("the plan loads", || {
            box_.enforce(
                POLICY,
                7,
                carry(&[pin("agent-1", "pinned.example", &PINNED)]),
            )
            .map(|took| case.note(&format!("nft took {took:?}")))
        })?;
        let agent = &box_.gateway.agent.host;
        for to in ["198.51.100.99:443", "[2001:db8:1::99]:443"] {
            case.check(&format!("pinned: {to}"), || agent.dial(to).map(drop));
        }
        for (to, reason) in [
            ("198.51.100.98:443", Reason::NotAllowlisted),
            ("1.1.1.1:443", Reason::NotAllowlisted),
            ("[2606:4700:4700::1111]:443", Reason::NotAllowlisted),
            // The global scope is not the host's.
            ("192.0.2.7:443", Reason::NotAllowlisted),
            ("198.51.100.99:80", Reason::Port),
            ("[2001:db8:1::99]:22", Reason::Port),
            ("198.51.100.99:853", Reason::DnsBypass),
            ("8.8.8.8:853", Reason::DnsBypass),
            // The box itself.
            ("10.66.0.1:22", Reason::NotAllowlisted),
            ("[fd66::1]:443", Reason::NotAllowlisted),
        ] {
            case.check(&format!("{to} is denied: {reason}"), || {
                let before = box_.denied("agent-1", reason)?;
                denied_at_once(agent, to)?;
                let after = box_.denied("agent-1", reason)?;
                require!(after > before, "it was not counted");
                Ok(())
            });
        }
        case.check("another host's pins are nobody else's", || {
            for (host, to) in [
                (&agent_2, "198.51.100.99:443"),
                (&stranger, "198.51.100.99:443"),
                (&stranger, "[2001:db8:1::99]:443"),
            ] {
                denied_at_once(host, to)?;
            }
            Ok(())
        });
        case.check("a network of the scope is reached by address", || {
            stranger.dial("192.0.2.7:443")?;
            denied_at_once(&stranger, "192.0.2.7:22")
        });
        case.check(
            "port 53 ends at the box, whichever address was asked",
            || {
                // Nobody listens there in this lab: the box refuses, no packet goes on.
                denied_at_once(agent, "8.8.8.8:53")
            },
        );
        case.check("flows and bytes are counted", || {
            let (flows, out) = (
                box_.metered("agent-1", &What::Flows)?,
                box_.metered("agent-1", &What::BytesOut)?,
            );
            require!(flows == 2, "{flows} flows");
            require!(
                out > 100 && box_.metered("agent-1", &What::BytesIn)? > out / 2,
                "{out} bytes out"
            );
            Ok(())
        });
        Ok(())
    });
}

#[test]
fn an_attack_gets_nothing_out_and_an_allowed_flow_leaves_under_the_boxs_address() {
    case("net-plan-attack", |case| {
        need(&[NFT, IP])?;
        let box_ = Planned::new()?;
        let pins = carry(&[pin("agent-1", "pinned.example", &PINNED)]);
        box_.enforce(POLICY, 7, pins.clone())?;
        let gateway = &box_.gateway;
        case.check(
            "nothing of the attack gets out, plans coming and going",
            || {
                let mut generation = 7;
                let frames = gateway.outside_while(case, || {
                    let hammer = gateway.agent.hammer(1000)?;
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_secs(4) {
                        generation += 1;
                        box_.enforce(POLICY, generation, pins.clone())?;
                    }
                    let attack = hammer.stop()?;
                    require!(
                        attack.rounds > 0,
                        "the attack did not get through its repertoire once: {attack:?}"
                    );
                    Ok(())
                })?;
                case.note(&format!("{} plans under attack", generation - 7));
                match frames.iter().find(|frame| trace(frame).is_some()) {
                    Some(first) => fail!("a packet of the agent got out: {}", first.describe()),
                    None => Ok(()),
                }
            },
        );
        case.check("the whole table made anew opens no gap either", || {
            let frames = gateway.outside_while(case, || {
                let hammer = gateway.agent.hammer(1000)?;
                let began = Instant::now();
                let mut generation = 1000;
                while began.elapsed() < Duration::from_secs(4) {
                    generation += 1;
                    box_.forget();
                    box_.enforce(POLICY, generation, pins.clone())?;
                }
                hammer.stop().map(drop)
            })?;
            match frames.iter().find(|frame| trace(frame).is_some()) {
                Some(first) => fail!("a packet of the agent got out: {}", first.describe()),
                None => Ok(()),
            }
        });
        case.check("what is allowed leaves under the box's own address", || {
            let agent = &gateway.agent.host;
            let frames =
                gateway.outside_while(case, || agent.dial("198.51.100.99:443").map(drop))?;
            let ours = frames
                .iter()
                .filter(|frame| frame.destination_port == Some(443))
                .count();
            require!(ours > 2, "only {ours} frames went to the site");
            let stranger = frames
                .iter()
                .filter(|frame| frame.destination_port == Some(443));
            let stranger = stranger
                .filter(|frame| frame.source != Some(Internet::LEASE.into()))
                .count();
            require!(stranger == 0, "{stranger} frames under another address");
            Ok(())
        });
        Ok(())
    });
}

#[test]
fn outside_its_window_a_scope_is_shut() {
    case("net-plan-window", |case| {
        need(&[NFT, IP])?;
        // NOON is a Friday.
        let policy = r#"{"version": 2, "hosts": {"agent-1": {"sources": ["10.66.0.7/32"],
            "allow": {"domains": ["pinned.example", "night.example"], "ips": ["192.0.2.0/24"], "ports": [443]},
            "time_window": {"days": ["mon"], "start": "08:00", "end": "18:00"},
            "domain_time_windows": {"night.example": {"days": ["fri"], "start": "00:00", "end": "24:00"}}}}}"#;
        let box_ = Planned::new()?;
        let pins = carry(&[
            pin("agent-1", "pinned.example", &["198.51.100.99"]),
            pin("agent-1", "night.example", &["198.51.100.98"]),
        ]);
        let agent = &box_.gateway.agent.host;
        box_.enforce(policy, 7, pins.clone())?;
        case.check("a name with a window of its own is open", || {
            agent.dial("198.51.100.98:443").map(drop)
        });
        for to in ["198.51.100.99:443", "192.0.2.7:443", "1.1.1.1:443"] {
            case.check(&format!("{to} is shut"), || {
                let before = box_.denied("agent-1", Reason::OutsideWindow)?;
                denied_at_once(agent, to)?;
                require!(
                    box_.denied("agent-1", Reason::OutsideWindow)? > before,
                    "denied for another reason"
                );
                Ok(())
            });
        }
        case.check(
            "with a clock that can't be trusted nothing that has a window is open",
            || {
                box_.load(box_.compile(policy, Moment::untrusted(NOON), 8, pins.clone())?)?;
                denied_at_once(agent, "198.51.100.98:443")?;
                require!(
                    box_.denied("agent-1", Reason::ClockUntrusted)? > 0,
                    "denied for another reason"
                );
                Ok(())
            },
        );
        Ok(())
    });
}
