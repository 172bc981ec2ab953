//! The enforcer under traffic: an agent on one wire, a site on the other, the real kernel between them.

#[path = "support/appliance.rs"]
mod appliance;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use appliance::{Appliance, Resolver, eventually, generation, revision};
use clawgress_audit::queue::{Queue, Settings};
use clawgress_enforcer::kernel::{Socket, conntrack};
use clawgress_link::control::{Reply, Request, Telemetry, Window};
use clawgress_link::pins::FromEnforcer;
use support::{inside, nft};

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

/// Does something on one of these machines, in a thread of its own.
fn on<T: Send + 'static>(
    machine: &str,
    what: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let namespace = fs::File::open(format!("/run/netns/{machine}")).unwrap();
    std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        what()
    })
}

/// Takes one connection and counts what comes. It is never told of an end: a site that only listens learns of a cut
/// when it next says something.
fn sink(address: &'static str) -> Arc<AtomicU64> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let total = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&total);
    on("site", move || {
        let listener = TcpListener::bind(address).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            counted.fetch_add(length as u64, Ordering::Relaxed);
        }
    });
    is_ready.recv().unwrap();
    total
}

/// Connects from an address of the agent and sends until it can't; how long that went on.
fn send_from(
    source: &'static str,
    to: &'static str,
) -> std::thread::JoinHandle<Result<Duration, String>> {
    on("agent", move || {
        let mut stream = connect_from(source, to)?;
        let begun = Instant::now();
        let chunk = vec![7; 16 * 1024];
        while stream.write_all(&chunk).is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(begun.elapsed())
    })
}

fn connect_from(source: &str, to: &str) -> Result<TcpStream, String> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let failed = |error: nix::Error| error.to_string();
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(failed)?;
    let source: std::net::SocketAddrV4 = format!("{source}:0").parse().unwrap();
    let to: std::net::SocketAddrV4 = to.parse().unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(source)).map_err(failed)?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).map_err(failed)?;
    Ok(TcpStream::from(socket))
}

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
    let report = appliance.apply(&revision(1, CAPPED));
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
