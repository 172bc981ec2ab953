//! named with a plan's configuration and zones: it loads a hundred thousand names, lets through what they hold and no
//! more, and serves a changed zone within a third of a second.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use clawgress_enforcer::plan::{Carry, Plan, Zone};
use clawgress_policy::Moment;
use qemu_tests::error::IoContext;
use qemu_tests::{Case, Result, case, require};

use crate::gateway::{DIG, Daemon, NAMED, NFT, eventually, need};
use crate::plan::{NOON, Planned};

const CHECKCONF: (&str, &str) = ("/usr/bin/named-checkconf", "bind9-utils");
const CHECKZONE: (&str, &str) = ("/usr/bin/named-checkzone", "bind9-utils");
const NAMES: usize = 100_000;

fn policy(names: usize, more: &str) -> String {
    let mut list = String::new();
    for number in 0..names {
        // Writing into a String does not fail.
        let _ = write!(list, r#""host-{number}.example-{}.com","#, number % 997);
    }
    format!(
        r#"{{"version": 2, "allow": {{"domains": [{list}"*.wild.example", "kept.example"{more}], "ips": ["10.9.0.0/16"]}}}}"#
    )
}

fn plan(box_: &Planned, policy: &str) -> Result<Plan> {
    box_.compile(policy, Moment::trusted(NOON), 7, Carry::default())
}

fn write_zone(box_: &Planned, zone: &Zone) -> Result {
    let path = box_.gateway.path("zones").join(&zone.file);
    let aside = box_.gateway.path("zones").join("aside");
    fs::write(&aside, &zone.text).doing("writing", &aside)?;
    fs::rename(&aside, &path).doing("putting in place", &path)
}

/// Writes all of it where this test's named finds it, and returns the path of the configuration.
fn write(box_: &Planned, plan: &Plan) -> Result<String> {
    let zones = box_.gateway.path("zones");
    fs::create_dir_all(&zones).doing("making", &zones)?;
    for zone in &plan.zones.zones {
        write_zone(box_, zone)?;
    }
    let conf = plan
        .named
        .text
        .replace(
            "/run/clawgress/enforcer/zones",
            &zones.display().to_string(),
        )
        .replace(
            "/var/cache/bind",
            &box_.gateway.path("").display().to_string(),
        );
    Ok(box_
        .gateway
        .file("named.conf", &conf)?
        .display()
        .to_string())
}

fn named(case: &Case, box_: &Planned, conf: &str) -> Result<Daemon> {
    let program = box_.gateway.unconfined(NAMED.0)?;
    box_.gateway
        .daemon(case, "named", &format!("{program} -f -n 2 -c {conf}"))
}

fn dig(box_: &Planned, question: &str) -> Result<String> {
    box_.gateway
        .host
        .run(&format!("{} +time=1 +tries=1 @127.0.0.1 {question}", DIG.0))
}

fn served(box_: &Planned, zone: &Zone) -> Result {
    let said = dig(box_, &format!("+short TXT {}", zone.marker.name))?;
    require!(
        said.trim().trim_matches('"') == zone.marker.text,
        "{} says {said}",
        zone.marker.name
    );
    Ok(())
}

fn all_served(box_: &Planned, plan: &Plan) -> Result {
    plan.zones
        .zones
        .iter()
        .try_for_each(|zone| served(box_, zone))
}

#[test]
fn every_file_is_what_the_checkers_of_named_take() {
    case("net-plan-named-files", |case| {
        need(&[NAMED, CHECKCONF, CHECKZONE])?;
        let box_ = Planned::new()?;
        for (what, policy) in [
            ("no names", r#"{"version": 2}"#.to_owned()),
            ("a few", policy(10, "")),
            ("many", policy(5_000, "")),
        ] {
            case.check(what, || {
                let plan = plan(&box_, &policy)?;
                let conf = write(&box_, &plan)?;
                box_.gateway.host.run(&format!("{} {conf}", CHECKCONF.0))?;
                for zone in &plan.zones.zones {
                    let file = box_.gateway.path("zones").join(&zone.file);
                    box_.gateway.host.run(&format!(
                        "{} -i none {} {}",
                        CHECKZONE.0,
                        zone.name,
                        file.display()
                    ))?;
                }
                Ok(())
            });
        }
        Ok(())
    });
}

#[test]
fn a_hundred_thousand_names_load_and_one_change_is_served_at_once() {
    case("net-plan-named", |case| {
        need(&[NAMED, DIG])?;
        let box_ = Planned::new()?;
        let began = Instant::now();
        let before = plan(&box_, &policy(NAMES, ""))?;
        case.note(&format!(
            "compiled with the reading of the policy in {:?}: {} names in {} zones",
            began.elapsed(),
            before.zones.names,
            before.zones.zones.len()
        ));
        require!(
            before.zones.names == NAMES + 2,
            "{} names",
            before.zones.names
        );
        let conf = write(&box_, &before)?;
        let began = Instant::now();
        let daemon = named(case, &box_, &conf)?;
        eventually("every zone", || all_served(&box_, &before))?;
        case.note(&format!("named serves them after {:?}", began.elapsed()));

        case.check("what no zone holds is denied by the last one", || {
            for question in [
                "evil.example",
                "+dnssec evil.example",
                "+cdflag x.evil.example TXT",
                "wild.example",
                "host-1.example-2.com",
                "example-1.com",
            ] {
                let said = dig(&box_, question)?;
                require!(
                    said.contains("status: NXDOMAIN") && said.contains("rpz.clawgress."),
                    "{question}: {said}"
                );
            }
            Ok(())
        });
        case.check("what a zone holds is asked for outside", || {
            // Nobody outside answers as a root server would: failure, but no denial.
            for question in [
                "kept.example",
                "any.thing.wild.example",
                "host-1.example-1.com",
            ] {
                let said = dig(&box_, question).unwrap_or_default();
                require!(
                    !said.contains("rpz.clawgress."),
                    "{question} is denied: {said}"
                );
            }
            Ok(())
        });
        case.check(
            "one name more rewrites one zone and is served within 0.3 s, again and again",
            || {
                // Compiled before: the changes follow one another within the second that a file's time may be cut to.
                let plans = (0..5)
                    .map(|round| {
                        plan(
                            &box_,
                            &policy(NAMES, &format!(r#", "new-{round}.example""#)),
                        )
                    })
                    .collect::<Result<Vec<Plan>>>()?;
                let mut last = before.zones.clone();
                let mut fastest = Duration::MAX;
                for (round, now) in plans.iter().enumerate() {
                    let changed = now.zones.changed(&last);
                    // The name of the round before is gone again.
                    require!(
                        !changed.is_empty() && changed.len() <= 2,
                        "{} zones changed",
                        changed.len()
                    );
                    let began = Instant::now();
                    for zone in &changed {
                        write_zone(&box_, zone)?;
                    }
                    daemon.hang_up()?;
                    while !changed.iter().all(|zone| served(&box_, zone).is_ok()) {
                        require!(
                            began.elapsed() < Duration::from_secs(10),
                            "round {round}: not served"
                        );
                    }
                    let took = began.elapsed();
                    case.note(&format!("round {round}: served after {took:?}"));
                    fastest = fastest.min(took);
                    last = now.zones.clone();
                }
                // Other work on this machine makes a round slow, never fast.
                require!(
                    fastest < Duration::from_millis(300),
                    "only after {fastest:?}"
                );
                Ok(())
            },
        );
        Ok(())
    });
}

/// A zone's owner says where its servers are; an agent may be one.
#[test]
fn questions_go_to_nobody_inside_whatever_a_zone_says() {
    case("net-plan-named-asks", |case| {
        need(&[NFT, DIG])?;
        let box_ = Planned::new()?;
        box_.enforce(r#"{"version": 2}"#, 7, Carry::default())?;
        let servers = [
            "10.99.0.1",
            "172.16.0.1",
            "192.168.7.7",
            "100.64.0.1",
            "fd99::1",
            "198.51.100.99",
            "2001:db8:1::99",
        ];
        let frames = box_.gateway.outside_while(case, || {
            for server in servers {
                for transport in ["+notcp", "+tcp"] {
                    // Nobody answers: what counts is what leaves.
                    let question =
                        format!("{} +time=1 +tries=2 {transport} @{server} x.test", DIG.0);
                    let _ = box_.gateway.host.run(&question);
                }
            }
            Ok(())
        })?;
        let asked: BTreeSet<String> = frames
            .iter()
            .filter(|frame| frame.destination_port == Some(53))
            .filter_map(|frame| Some(frame.destination?.to_string()))
            .collect();
        let outside = BTreeSet::from(["198.51.100.99", "2001:db8:1::99"].map(str::to_owned));
        require!(asked == outside, "asked: {asked:?}");
        Ok(())
    });
}
