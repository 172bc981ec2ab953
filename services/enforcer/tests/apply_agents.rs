//! The enforcer under traffic, as far as it is about who: the kill switch, and what the audit trail says of flows.

#[path = "support/appliance.rs"]
mod appliance;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::fs;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use appliance::{Appliance, Resolver, eventually, generation, revision};
use clawgress_audit::queue::{Queue, Settings};
use clawgress_enforcer::kernel::{Socket, conntrack};
use clawgress_link::control::Request;
use clawgress_link::pins::FromEnforcer;
use support::inside;
use traffic::{connect_from, on, send_from, sink};

const LISTED: &str = r#"{
    "version": 2,
    "hosts": {"agent-1": {"sources": ["192.168.10.10/32"], "allow": {"domains": ["api.example.net"], "ports": [443]}}}
}"#;

#[test]
fn the_kill_switch_cuts_within_a_second_and_outlives_the_process() {
    if !inside("the_kill_switch_cuts_within_a_second_and_outlives_the_process") {
        return;
    }
    // Both are one machine, whose hardware address may have the addresses of hosts alone.
    let policy = r#"{"version": 2, "hosts": {
        "agent-1": {"sources": ["192.168.10.10/32"], "allow": {"domains": ["example.com"]}},
        "agent-2": {"sources": ["192.168.10.20/32"], "allow": {"domains": ["example.com"]}}}}"#;
    let mut appliance = Appliance::sealed();
    appliance.start();
    let mut resolver = Resolver::connect();
    let report = appliance.apply(&revision(1, policy));
    assert!(report.ok, "{report:#?}\n{}", appliance.log());
    for (who, site) in [("agent-1", "192.0.2.1"), ("agent-2", "192.0.2.2")] {
        assert_eq!(resolver.pin(1, who, "example.com", &[site], 300), None);
    }
    let _site = sink("192.0.2.1:443");
    let _other = sink("192.0.2.2:443");
    let cut = send_from("192.168.10.10", "192.0.2.1:443");
    let kept = send_from("192.168.10.20", "192.0.2.2:443");
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    let block = |agents: &[&str], all| Request::Block {
        agents: agents.iter().map(|id| (*id).to_owned()).collect(),
        all,
    };
    let report = appliance.report(&block(&["agent-1"], false));
    assert!(report.ok, "{report:#?}");
    cut.join().unwrap().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    assert!(!kept.is_finished(), "what is not blocked goes on");
    let is_told = |message: &FromEnforcer| {
        let FromEnforcer::Blocked {
            principals, all, ..
        } = message
        else {
            return None;
        };
        (principals == &["agent-1"] && !all).then_some(())
    };
    resolver.hear("the resolver's being told", is_told);

    // Neither a restart nor a commit lets it go on.
    assert_eq!(generation(), Some(2));
    appliance.boot_with(&revision(1, policy));
    appliance.stop();
    appliance.start();
    let resolver = Resolver::connect();
    resolver.hear("the resolver's being told again", is_told);
    eventually("enforcing again", || {
        appliance.status().enforcing.then_some(())
    });
    let try_again = || {
        let again = on("agent", || {
            connect_from("192.168.10.10", "192.0.2.1:443").map(drop)
        });
        again.join().unwrap()
    };
    assert!(try_again().is_err());
    let report = appliance.apply(&revision(2, policy));
    assert!(report.ok, "{report:#?}");
    assert!(try_again().is_err());
    assert!(appliance.report(&block(&[], true)).ok);
    eventually("everybody's being cut", || kept.is_finished().then_some(()));
    assert!(appliance.report(&block(&[], false)).ok);
    let mut resolver = resolver;
    assert_eq!(
        resolver.pin(2, "agent-1", "example.com", &["192.0.2.1"], 300),
        None
    );
    let _site = sink("192.0.2.1:80");
    let open = on("agent", || {
        connect_from("192.168.10.10", "192.0.2.1:80").map(drop)
    });
    assert_eq!(open.join().unwrap(), Ok(()));
}

#[test]
fn flows_are_on_the_audit_trail_with_who_and_why() {
    if !inside("flows_are_on_the_audit_trail_with_who_and_why") {
        return;
    }
    let mut appliance = Appliance::sealed();
    appliance.start();
    let mut resolver = Resolver::connect();
    let report = appliance.apply(&revision(1, LISTED));
    assert!(report.ok, "{report:#?}\n{}", appliance.log());
    assert_eq!(
        resolver.pin(1, "agent-1", "api.example.net", &["192.0.2.2"], 300),
        None
    );
    for state in ["time_wait", "close_wait", "last_ack", "fin_wait", "close"] {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{state}");
        fs::write(path, "1").unwrap();
    }
    let site = sink("192.0.2.2:443");
    on("agent", || {
        let mut stream = connect_from("192.168.10.10", "192.0.2.2:443").unwrap();
        stream.write_all(&[7; 1000]).unwrap();
    })
    .join()
    .unwrap();
    eventually("what was sent", || {
        (site.load(Ordering::Relaxed) == 1000).then_some(())
    });
    let refused = on("agent", || {
        connect_from("192.168.10.10", "192.0.2.1:443").map(drop)
    });
    assert!(refused.join().unwrap().is_err());
    eventually("the denial's being told", || {
        appliance.log().contains("\"event\":\"deny\"").then_some(())
    });
    // A flow that is over is forgotten after a while, and at the latest when somebody asks what there is.
    let mut socket = Socket::open().unwrap();
    eventually("the flow's being forgotten", || {
        let mut left = 0;
        conntrack::visit(
            &mut socket,
            |_| {},
            |seen| left += usize::from(seen.mark != 0),
        )
        .unwrap();
        (left == 0).then_some(())
    });
    std::thread::sleep(Duration::from_millis(500));
    appliance.stop();
    let queue = Queue::open(&appliance.path("state/queue"), Settings::default()).unwrap();
    let events: Vec<serde_json::Value> = queue
        .reader()
        .read(0, 1 << 20)
        .unwrap()
        .iter()
        .map(|queued| serde_json::from_slice(&queued.text).unwrap())
        .collect();
    let find = |decision: &str| {
        let found = events.iter().filter(|event| event["decision"] == decision);
        let found: Vec<&serde_json::Value> = found.collect();
        assert_eq!(found.len(), 1, "{events:#?}");
        found[0].clone()
    };
    let (allowed, denied) = (find("allow"), find("deny"));
    for event in [&allowed, &denied] {
        assert_eq!(event["source"], "nft");
        assert_eq!(event["agent_id"], "agent-1");
        assert_eq!(event["client_address"], "192.168.10.10");
        assert_eq!(event["destination_port"], 443);
        assert_eq!(event["revision"], 1);
    }
    assert_eq!(allowed["destination_host"], "api.example.net");
    assert_eq!(allowed["policy_id"], "policy.json");
    assert!(allowed["bytes_out"].as_u64().unwrap() > 1000, "{allowed}");
    assert_eq!(denied["destination_address"], "192.0.2.1");
    assert_eq!(
        (&denied["reason"], &denied["policy_id"]),
        (&"not-allowlisted".into(), &"default-deny".into())
    );
}
