//! The enforcer with the real kernel, named and haproxy: revisions come into force whole, or not at all, and stay so.

#[path = "support/appliance.rs"]
mod appliance;
mod support;

use std::fs;

use appliance::{Appliance, Resolver, eventually, generation, revision};
use clawgress_link::control::{Reply, Report, Request, Window};
use support::{inside, nft, run};

const TWO_HOSTS: &str = r#"{
    "version": 2,
    "allow": {"domains": ["example.com", "*.example.org"], "ips": ["198.51.100.0/24"], "ports": [443]},
    "limits": {"egress_kbps": 8000},
    "hosts": {
        "agent-1": {
            "sources": ["192.168.10.10/32"],
            "allow": {"domains": ["api.example.net"]},
            "exfil": {"domains": {"api.example.net": {"bytes": 100000, "period": "hour"}}}
        }
    }
}"#;

const FEWER: &str = r#"{"version": 2, "allow": {"domains": ["example.com"]}}"#;

/// Whether the kernel lets anything through at all.
fn forwards() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
        .unwrap()
        .trim()
        == "1"
}

fn stages(report: &Report) -> Vec<&str> {
    report
        .stages
        .iter()
        .map(|stage| stage.name.as_str())
        .collect()
}

/// Without what counters count, for the kernel of the namespace says things of its own; with the handles, by which a rule
/// that was put in again is another one.
fn listing() -> String {
    run(
        "/usr/sbin/nft",
        &["-s", "-a", "list", "table", "inet", "clawgress"],
    )
}

#[test]
fn a_revision_comes_into_force_whole() {
    if !inside("a_revision_comes_into_force_whole") {
        return;
    }
    let mut appliance = Appliance::sealed();
    appliance.start();
    assert!(!appliance.status().enforcing);
    let mut resolver = Resolver::connect();
    let file = appliance.write(&revision(3, TWO_HOSTS));
    let check = appliance.report(&Request::Check { file });
    assert!(check.ok && !check.applied, "{check:#?}");
    assert_eq!(stages(&check), ["compile", "nft", "named", "haproxy"]);
    assert_eq!(generation(), Some(0), "a check changes nothing");
    assert!(!forwards());

    let report = appliance.apply(&revision(3, TWO_HOSTS));
    assert!(
        report.ok && report.applied,
        "{report:#?}\n{}",
        appliance.log()
    );
    assert_eq!(
        stages(&report),
        ["compile", "named", "haproxy", "nft", "dns", "verify"]
    );
    assert_eq!(generation(), Some(1));
    assert!(forwards());
    let status = appliance.status();
    assert!(status.enforcing);
    assert_eq!(
        (status.revision, status.principals, status.domains),
        (Some(3), 2, 3)
    );

    assert_eq!(
        resolver.pin(
            3,
            "lan/lan0",
            "example.com",
            &["192.0.2.1", "2001:db8::1"],
            60
        ),
        None
    );
    assert_eq!(
        resolver.pin(3, "agent-1", "api.example.net", &["192.0.2.2"], 60),
        None
    );
    let error = resolver
        .pin(3, "agent-1", "example.com", &["192.0.2.1"], 60)
        .unwrap();
    assert!(error.contains("may not reach example.com"), "{error}");
    let error = resolver
        .pin(2, "lan/lan0", "example.com", &["192.0.2.9"], 60)
        .unwrap();
    assert!(error.contains("revision 2"), "{error}");
    let pinned = listing();
    assert!(
        pinned.contains("192.0.2.1")
            && pinned.contains("2001:db8::1")
            && !pinned.contains("192.0.2.9")
    );
    let meter = run(
        "/usr/sbin/nft",
        &["list", "table", "inet", "clawgress_meter"],
    );
    assert!(
        meter.contains("192.0.2.2"),
        "a capped name's address is counted: {meter}"
    );
}

#[test]
fn a_restart_changes_nothing_and_the_next_revision_goes_on_from_there() {
    if !inside("a_restart_changes_nothing_and_the_next_revision_goes_on_from_there") {
        return;
    }
    let mut appliance = Appliance::sealed();
    appliance.start();
    let mut resolver = Resolver::connect();
    let report = appliance.apply(&revision(3, TWO_HOSTS));
    assert!(
        report.ok && report.applied,
        "{report:#?}\n{}",
        appliance.log()
    );
    let both = ["192.0.2.1", "2001:db8::1"];
    assert_eq!(resolver.pin(3, "lan/lan0", "example.com", &both, 60), None);
    assert_eq!(
        resolver.pin(3, "agent-1", "api.example.net", &["192.0.2.2"], 60),
        None
    );

    let report = appliance.apply(&revision(2, FEWER));
    assert!(!report.ok && !report.applied);
    assert!(
        report.stages[0].detail.contains("not higher than 3"),
        "{report:?}"
    );

    let before = listing();
    appliance.stop();
    assert_eq!(listing(), before, "an end changes nothing");
    appliance.start();
    let status = eventually("the enforcer's taking over", || {
        Some(appliance.status()).filter(|status| status.enforcing)
    });
    assert_eq!(
        (status.revision, status.generation, status.pins),
        (Some(3), 1, 3)
    );
    assert_eq!(listing(), before, "a restart changes nothing");
    let mut resolver = Resolver::connect();
    assert_eq!(
        resolver.pin(3, "lan/lan0", "a.example.org", &["192.0.2.77"], 60),
        None
    );

    let report = appliance.apply(&revision(4, FEWER));
    assert!(
        report.ok && report.applied,
        "{report:#?}\n{}",
        appliance.log()
    );
    let after = listing();
    assert!(
        after.contains("192.0.2.1") && !after.contains("192.0.2.77"),
        "pins of what is still allowed stay"
    );
    let Reply::Zone { names, total } = appliance.ask(&Request::Zone { limit: 10 }) else {
        panic!()
    };
    assert_eq!((names, total), (vec!["example.com".to_owned()], 1));
    let Reply::Text { text } = appliance.ask(&Request::Firewall) else {
        panic!()
    };
    assert!(text.contains("table inet clawgress_meter"));
    let window = Window::Minute;
    assert!(matches!(
        appliance.ask(&Request::Telemetry { window }),
        Reply::Telemetry(_)
    ));
}

#[test]
fn what_cannot_be_brought_about_whole_is_taken_back() {
    if !inside("what_cannot_be_brought_about_whole_is_taken_back") {
        return;
    }
    let mut appliance = Appliance::sealed();
    appliance.start();
    let mut resolver = Resolver::refusing(8);
    let report = appliance.apply(&revision(7, TWO_HOSTS));
    assert!(report.ok, "{report:#?}\n{}", appliance.log());
    assert_eq!(
        resolver.pin(7, "lan/lan0", "a.example.org", &["192.0.2.1"], 60),
        None
    );

    let report = appliance.apply(&revision(8, FEWER));
    assert!(!report.ok && !report.applied);
    assert_eq!(*stages(&report).last().unwrap(), "rollback");
    let rollback = report.stages.last().unwrap();
    assert!(
        rollback.ok && rollback.detail.contains("revision 7 is in force again"),
        "{report:#?}"
    );
    let status = appliance.status();
    assert_eq!((status.revision, status.enforcing), (Some(7), true));
    assert_eq!(generation(), Some(3), "numbers of plans only rise");
    assert!(listing().contains("192.0.2.1"), "what was pinned is pinned");
    assert!(forwards());
    assert_eq!(
        resolver.pin(7, "lan/lan0", "example.com", &["192.0.2.2"], 60),
        None
    );

    // Without a good plan to go back to there is only the seal.
    appliance.stop();
    nft(&fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../rootfs-overlay/etc/clawgress/sealed.nft"
    ))
    .unwrap());
    fs::remove_file("/run/clawgress/enforcer/applied.json").unwrap();
    appliance.start();
    let _resolver = Resolver::refusing(8);
    let report = appliance.apply(&revision(8, FEWER));
    let rollback = report.stages.last().unwrap();
    assert!(rollback.detail.contains("the box is sealed"), "{report:#?}");
    assert_eq!(generation(), Some(0));
    assert!(!forwards());
}

#[test]
fn sealing_and_resuming() {
    if !inside("sealing_and_resuming") {
        return;
    }
    let mut appliance = Appliance::sealed();
    appliance.boot_with(&revision(5, TWO_HOSTS));
    appliance.start();
    let mut resolver = Resolver::connect();
    eventually("the boot's revision in force", || {
        appliance.status().enforcing.then_some(())
    });
    assert!(forwards());
    let report = appliance.report(&Request::Seal);
    assert!(report.ok, "{report:#?}");
    assert_eq!(generation(), Some(0));
    assert!(!forwards());
    assert!(
        resolver
            .pin(5, "lan/lan0", "example.com", &["192.0.2.1"], 60)
            .is_some()
    );
    resolver.hear("the order to forget", |message| {
        matches!(message, clawgress_link::pins::FromEnforcer::Unload).then_some(())
    });

    // A restart does not undo it.
    appliance.stop();
    appliance.start();
    let _resolver = Resolver::connect();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(
        (generation(), appliance.status().enforcing),
        (Some(0), false)
    );

    let report = appliance.report(&Request::Resume);
    assert!(report.ok && report.applied, "{report:#?}");
    assert!(generation() > Some(1) && forwards());

    // Somebody else seals: it is noticed, and left alone until told otherwise.
    nft(&fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../rootfs-overlay/etc/clawgress/sealed.nft"
    ))
    .unwrap());
    eventually("notice of the seal", || {
        (!appliance.status().enforcing).then_some(())
    });
    assert_eq!(generation(), Some(0));
    let report = appliance.report(&Request::Resume);
    assert!(report.ok && appliance.status().enforcing, "{report:#?}");

    let mut disabled = revision(6, TWO_HOSTS);
    disabled.enabled = false;
    let report = appliance.apply(&disabled);
    assert!(report.ok, "{report:#?}");
    assert_eq!(generation(), Some(0));
    assert!(!forwards() && !appliance.status().enforcing);
}
