//! The enforcer under traffic: an agent on one wire, a site on the other, the real kernel between them.

#[path = "support/appliance.rs"]
mod appliance;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use appliance::{Appliance, Resolver, eventually, generation, revision};
use clawgress_link::control::{Reply, Request, Telemetry, Window};
use clawgress_link::pins::FromEnforcer;
use support::{inside, nft};
use traffic::{connect_from, on, send_from, sink};

const CAP: u64 = 300_000;

const CAPPED: &str = r#"{
    "version": 2,
    "allow": {"domains": ["example.com"]},
    "labels": {"shop.example": "no shopping"},
    "hosts": {
        "agent-1": {
            "sources": ["192.168.10.10/32"],
            "allow": {"domains": ["api.example.net"], "ports": [443]},
            "exfil": {"domains": {"api.example.net": {"bytes": 300000, "period": "day"}}}
        }
    }
}"#;

fn telemetry(appliance: &Appliance) -> Telemetry {
    let window = Window::Minute;
    match appliance.ask(&Request::Telemetry { window }) {
        Reply::Telemetry(telemetry) => *telemetry,
        other => panic!("{other:?}"),
    }
}

fn used(appliance: &Appliance) -> u64 {
    let telemetry = telemetry(appliance);
    let caps = telemetry
        .principals
        .get("agent-1")
        .map(|who| who.caps.clone());
    caps.unwrap_or_default().first().map_or(0, |cap| cap.used)
}

fn is_over(message: &FromEnforcer) -> Option<()> {
    let FromEnforcer::State { over_cap, .. } = message else {
        return None;
    };
    over_cap
        .iter()
        .any(|(who, name)| who == "agent-1" && name == "api.example.net")
        .then_some(())
}

#[test]
fn a_cap_cuts_is_told_and_survives_restart_and_reboot() {
    if !inside("a_cap_cuts_is_told_and_survives_restart_and_reboot") {
        return;
    }
    let mut appliance = Appliance::sealed();
    appliance.start();
    let mut resolver = Resolver::connect();
    let report = appliance.apply(&revision(1, CAPPED));
    assert!(report.ok, "{report:#?}\n{}", appliance.log());
    assert_eq!(
        resolver.pin(1, "agent-1", "api.example.net", &["192.0.2.2"], 300),
        None
    );

    let site = sink("192.0.2.2:443");
    send_from("192.168.10.10", "192.0.2.2:443")
        .join()
        .unwrap()
        .unwrap();
    let arrived = site.load(Ordering::Relaxed);
    assert!(
        arrived > CAP / 2 && arrived <= CAP + 65_536,
        "{arrived} bytes arrived"
    );
    resolver.hear("the cap's being told to the resolver", is_over);
    assert_eq!(used(&appliance), CAP);
    eventually("the flow's being counted", || {
        let agent = telemetry(&appliance).principals["agent-1"].clone();
        (agent.bytes_out >= arrived && agent.flows == 1).then_some(())
    });

    // A commit of something else gives nothing back, and what a boot begins with is what is on the disk.
    let report = appliance.apply(&revision(2, &CAPPED.replace("example.com", "example.org")));
    assert!(report.ok, "{report:#?}");
    assert_eq!(used(&appliance), CAP);
    appliance.boot_with(&revision(2, &CAPPED.replace("example.com", "example.org")));
    appliance.stop();
    nft(&fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../rootfs-overlay/etc/clawgress/sealed.nft"
    ))
    .unwrap());
    nft("delete table inet clawgress_meter");
    fs::remove_file("/run/clawgress/enforcer/applied.json").unwrap();
    fs::remove_file("/run/clawgress/enforcer/pins.journal").unwrap();
    appliance.start();
    let mut resolver = Resolver::connect();
    eventually("the boot's revision in force", || {
        appliance.status().enforcing.then_some(())
    });
    eventually("the cap's use from the disk", || {
        (used(&appliance) == CAP).then_some(())
    });
    resolver.hear("the cap's being told again", is_over);
    assert_eq!(
        resolver.pin(2, "agent-1", "api.example.net", &["192.0.2.2"], 300),
        None
    );
    let again = send_from("192.168.10.10", "192.0.2.2:443").join().unwrap();
    assert!(again.is_err(), "nothing is left of the cap");
}

#[test]
fn denials_are_told_with_name_and_reason() {
    if !inside("denials_are_told_with_name_and_reason") {
        return;
    }
    let mut appliance = Appliance::sealed();
    appliance.start();
    let mut resolver = Resolver::connect();
    let report = appliance.apply(&revision(1, CAPPED));
    assert!(report.ok, "{report:#?}\n{}", appliance.log());
    // An address that another principal resolved: the name is known, and may not be used.
    assert_eq!(
        resolver.pin(1, "lan/lan0", "example.com", &["192.0.2.1"], 300),
        None
    );
    let refused = on("agent", || {
        connect_from("192.168.10.10", "192.0.2.1:443").map(drop)
    });
    assert!(refused.join().unwrap().is_err());
    let line = eventually("the denial's being told", || {
        let log = appliance.log();
        log.lines()
            .find(|line| line.contains("\"event\":\"deny\""))
            .map(str::to_owned)
    });
    let denial: serde_json::Value = serde_json::from_str(&line).unwrap();
    for (key, value) in [
        ("principal", "agent-1"),
        ("source", "192.168.10.10"),
        ("destination", "192.0.2.1"),
        ("protocol", "tcp"),
        ("name", "example.com"),
        ("reason", "not-allowlisted"),
    ] {
        assert_eq!(denial[key], value, "{line}");
    }
    assert_eq!(denial["port"], 443);
    let telemetry = eventually("the denial's being counted", || {
        let telemetry = telemetry(&appliance);
        let denied = telemetry
            .principals
            .get("agent-1")?
            .denied
            .get("not-allowlisted")
            .copied();
        denied.is_some_and(|many| many > 0).then_some(telemetry)
    });
    assert!(
        telemetry
            .top_denied
            .iter()
            .any(|(target, _)| target == "example.com"),
        "{telemetry:?}"
    );
}

#[test]
fn a_window_that_closes_cuts_its_live_flow_within_a_second() {
    if !inside("a_window_that_closes_cuts_its_live_flow_within_a_second") {
        return;
    }
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    // Closes with the next minute that is far enough to get everything going.
    let end = (now() + 20).div_ceil(60) * 60;
    let minutes = end % 86_400 / 60;
    let clock = |minutes: u64| format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
    let days = r#"["mon", "tue", "wed", "thu", "fri", "sat", "sun"]"#;
    let policy = format!(
        r#"{{"version": 2, "allow": {{"domains": ["example.com", "always.example"]}},
            "domain_time_windows": {{"example.com": {{"days": {days}, "start": "{}", "end": "{}"}}}}}}"#,
        clock((minutes + 1440 - 60) % 1440),
        clock(minutes),
    );
    let mut revision = revision(1, &policy);
    revision.time_zone = "UTC".to_owned();
    let mut appliance = Appliance::sealed();
    appliance.start();
    let mut resolver = Resolver::connect();
    let report = appliance.apply(&revision);
    assert!(report.ok, "{report:#?}\n{}", appliance.log());
    assert_eq!(appliance.status().next_change, i64::try_from(end).ok());
    assert_eq!(
        resolver.pin(1, "lan/lan0", "example.com", &["192.0.2.1"], 300),
        None
    );
    assert_eq!(
        resolver.pin(1, "lan/lan0", "always.example", &["192.0.2.2"], 300),
        None
    );
    let _site = sink("192.0.2.1:443");
    let other_site = sink("192.0.2.2:443");
    let cut = send_from("192.168.10.20", "192.0.2.1:443");
    let kept = send_from("192.168.10.20", "192.0.2.2:443");
    cut.join().unwrap().unwrap();
    let late = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
        - end as f64;
    assert!(
        (0.0..1.0).contains(&late),
        "cut {late} s after the window's end\n{}",
        appliance.log()
    );
    assert_eq!(generation(), Some(2));
    assert!(
        resolver
            .pin(1, "lan/lan0", "example.com", &["192.0.2.1"], 300)
            .is_some()
    );
    let before = other_site.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!kept.is_finished(), "what is allowed goes on");
    assert!(other_site.load(Ordering::Relaxed) > before);
}
