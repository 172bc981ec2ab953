//! Live flows: a new generation judges them again. What it allows loses no byte; what it forbids, and what
//! reaches its cap, is reset: either end at its next packet, and the one that is only being sent to at once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clawgress_policy::Reason;
use qemu_tests::process::Helper;
use qemu_tests::{Case, Result, case, require};

use crate::gateway::{NFT, need};
use crate::plan::{IP, Outcome, Planned, STREAMS, carry, outcome, pin};

const ALLOWS: &str = r#"{"version": 2, "hosts": {"agent-1": {"sources": ["10.66.0.7/32", "fd66::7/128"],
    "allow": {"domains": ["pinned.example"], "ports": [8443]}}}}"#;
const FORBIDS: &str = r#"{"version": 2, "hosts": {"agent-1": {"sources": ["10.66.0.7/32", "fd66::7/128"],
    "allow": {"domains": ["other.example"], "ports": [8443]}}}}"#;
const PINNED: [&str; 2] = ["198.51.100.99", "2001:db8:1::99"];
/// What a packet under way may still bring.
const SOON: Duration = Duration::from_secs(1);

fn pins() -> clawgress_enforcer::plan::Carry {
    carry(&[pin("agent-1", "pinned.example", &PINNED)])
}

/// The end of a flow, and how long it took from now.
fn ended(helper: &Helper) -> Result<(Outcome, Duration)> {
    let began = Instant::now();
    let line = helper.line(Duration::from_secs(20))?;
    Ok((outcome(&line)?, began.elapsed()))
}

fn to(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]:{STREAMS}")
    } else {
        format!("{address}:{STREAMS}")
    }
}

#[test]
fn an_allowed_flow_runs_through_new_generations_without_losing_a_byte() {
    case("net-plan-kept", |case| {
        need(&[NFT, IP])?;
        let box_ = Planned::new()?;
        box_.enforce(ALLOWS, 7, pins())?;
        let _streams = box_.streams()?;
        for (address, way) in PINNED
            .iter()
            .flat_map(|address| [(address, "download"), (address, "upload")])
        {
            case.check(&format!("{way} with {address}"), || {
                let flow =
                    box_.stream(&format!("{} --{way} 4000000 --pace 1000000", to(address)))?;
                for generation in 10..40 {
                    // Every second one makes the table anew.
                    if generation % 2 == 0 {
                        box_.forget();
                    }
                    box_.enforce(ALLOWS, generation, pins())?;
                    sleep(Duration::from_millis(100));
                }
                let (outcome, _) = ended(&flow)?;
                require!(
                    outcome.end == "whole" && outcome.intact && outcome.bytes == 4_000_000,
                    "{outcome:?}; {}",
                    box_.nonzero()?
                );
                require!(box_.packets("cut")? == 0, "something was cut");
                Ok(())
            });
        }
        Ok(())
    });
}

fn is_cut(case: &Case, box_: &Planned, what: &str, way: &str, address: &str, generation: u32) {
    case.check(&format!("{what}: {way} with {address}"), || {
        box_.enforce(ALLOWS, generation, pins())?;
        let streams = box_.streams()?;
        let flow = box_.stream(&format!("{} --{way} 40000000 --pace 1000000", to(address)))?;
        sleep(Duration::from_millis(700));
        box_.enforce(FORBIDS, generation + 1, pins())?;
        let (agents, took) = ended(&flow)?;
        require!(agents.end == "reset", "the agent's end: {agents:?}");
        require!(took < SOON, "the agent's end only after {took:?}");
        let (sites, took) = ended(&streams)?;
        if way == "download" {
            require!(sites.end == "reset", "the site's end: {sites:?}");
            require!(took < SOON, "the site's end only after {took:?}");
        } else {
            // It is told when it next says something, which one that only listens may not.
            require!(
                sites.end == "reset" || sites.end == "silence",
                "the site's end: {sites:?}"
            );
        }
        let (got, given) = if way == "upload" {
            (sites, agents)
        } else {
            (agents, sites)
        };
        require!(
            got.intact && got.bytes > 300_000 && got.bytes <= given.bytes,
            "{got:?} of {given:?}"
        );
        require!(
            box_.denied("agent-1", Reason::Revised)? > 0,
            "the reason was another"
        );
        Ok(())
    });
}

#[test]
fn a_flow_that_the_new_generation_forbids_is_reset() {
    case("net-plan-cut", |case| {
        need(&[NFT, IP])?;
        let box_ = Planned::new()?;
        let mut generation = 7;
        for address in PINNED {
            for way in ["download", "upload"] {
                generation += 10;
                is_cut(case, &box_, "a rule is gone", way, address, generation);
            }
        }
        Ok(())
    });
}

#[test]
fn a_flow_ends_at_its_cap() {
    const CAPPED: &str = r#"{"version": 2, "hosts": {"agent-1": {"sources": ["10.66.0.7/32", "fd66::7/128"],
        "allow": {"domains": ["pinned.example", "same.example", "free.example"], "ports": [8443]},
        "exfil": {"domains": {"pinned.example": {"bytes": 1000000, "period": "hour"},
                              "same.example": {"bytes": 3000000, "period": "hour"}}}}}}"#;
    const CAP: u64 = 1_000_000;
    case("net-plan-cap", |case| {
        need(&[NFT, IP])?;
        let box_ = Planned::new()?;
        // One address under two capped names.
        let mut pins = carry(&[
            pin(
                "agent-1",
                "pinned.example",
                &["198.51.100.99", "2001:db8:1::99"],
            ),
            pin("agent-1", "same.example", &["198.51.100.99"]),
            pin("agent-1", "free.example", &["198.51.100.98"]),
        ]);
        box_.enforce(CAPPED, 7, pins.clone())?;
        let streams = box_.streams()?;
        case.step("an upload is cut at the cap", || {
            let flow = box_.stream(&format!("{} --upload 20000000", to("198.51.100.99")))?;
            let (agents, _) = ended(&flow)?;
            let (sites, _) = ended(&streams)?;
            case.note(&format!(
                "the site got {} bytes of a cap of {CAP}",
                sites.bytes
            ));
            require!(agents.end == "reset", "{agents:?}");
            // Told when it next says something; this one only listens.
            require!(sites.end != "whole" && sites.end != "closed", "{sites:?}");
            require!(sites.intact && sites.bytes < CAP + 64 * 1024, "{sites:?}");
            require!(sites.bytes > CAP * 9 / 10, "cut too early: {sites:?}");
            require!(
                box_.denied("agent-1", Reason::OverCap)? > 0,
                "the reason was another"
            );
            Ok(())
        })?;
        case.check("over the cap nothing opens, in either family", || {
            for address in ["198.51.100.99", "2001:db8:1::99"] {
                require!(
                    box_.stream(&format!("{} --upload 1000", to(address)))
                        .is_err(),
                    "{address} is open"
                );
            }
            Ok(())
        });
        case.check("another name is not concerned", || {
            let flow = box_.stream(&format!("{} --upload 2000000", to("198.51.100.98")))?;
            let (outcome, _) = ended(&flow)?;
            require!(outcome.end == "whole", "{outcome:?}");
            Ok(())
        });
        case.check(
            "a new plan does not give it back, nor does one made anew",
            || {
                for generation in [8, 9] {
                    if generation == 9 {
                        box_.forget();
                    }
                    box_.enforce(CAPPED, generation, pins.clone())?;
                    require!(
                        box_.stream(&format!("{} --upload 1000", to("198.51.100.99")))
                            .is_err(),
                        "{generation}: it is open"
                    );
                }
                Ok(())
            },
        );
        case.check("the other name at that address was counted, too", || {
            let listed = box_.listed("clawgress_meter")?;
            let used = listed
                .lines()
                .filter(|line| line.contains("over ") && line.contains("used"))
                .count();
            require!(used == 2, "{listed}");
            Ok(())
        });
        case.check("a quota that was gone takes up where it was", || {
            box_.gateway
                .host
                .run(&format!("{} delete table inet clawgress_meter", NFT.0))?;
            let fresh = Planned::new()?;
            let key = ("agent-1".to_owned(), "pinned.example".to_owned());
            pins.used.insert(key, CAP - 100);
            fresh.enforce(CAPPED, 20, pins.clone())?;
            let _streams = fresh.streams()?;
            let flow = fresh.stream(&format!("{} --upload 1000000", to("198.51.100.99")));
            if let Ok(flow) = flow {
                let (outcome, _) = ended(&flow)?;
                require!(outcome.end == "reset", "{outcome:?}");
            }
            Ok(())
        });
        Ok(())
    });
}
