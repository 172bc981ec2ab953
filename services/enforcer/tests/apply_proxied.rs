//! Limits of a host over both of its ways out: its own flows, and those that the gateway opens for it. The gateway is
//! played by the test: it opens the flow and says whose it is. The kernel between agent and site is the real one.

#[allow(dead_code)] // Shared with tests that use all of it.
#[path = "support/appliance.rs"]
mod appliance;
#[allow(dead_code)]
#[path = "support/limited.rs"]
mod limited;
mod support;
#[allow(dead_code)]
#[path = "support/traffic.rs"]
mod traffic;

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use appliance::{Resolver, eventually};
use clawgress_link::control::Request;
use clawgress_link::counted::{self, Answer, Class, Leg, Question, SOCKET};
use clawgress_link::pins::FromEnforcer;
use limited::{AGENT, CAP, CAPPED, NAME, SITE, enforced, own_flow, send, site, used};
use support::inside;
use traffic::{connect_from, on};

fn ask(name: Option<&str>, flow: Option<&TcpStream>) -> Result<Answer, String> {
    let leg = |stream: &TcpStream| Leg {
        local: stream.local_addr().unwrap(),
        remote: stream.peer_addr().unwrap(),
    };
    let question = Question {
        source: AGENT.parse().unwrap(),
        name: name.map(str::to_owned),
        flow: flow.map(leg),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let asked = counted::ask(Path::new(SOCKET), &question, Duration::from_secs(20));
    runtime.block_on(asked).map_err(|error| error.to_string())
}

fn as_class(pattern: Option<&str>) -> Answer {
    Answer::Counted(Class {
        holder: "agent-1".to_owned(),
        pattern: pattern.map(str::to_owned),
    })
}

/// A flow of the gateway, counted for this name.
fn proxied(name: Option<&str>, pattern: Option<&str>) -> TcpStream {
    let stream = TcpStream::connect(SITE).unwrap();
    assert_eq!(ask(name, Some(&stream)), Ok(as_class(pattern)));
    stream
}

#[test]
fn a_cap_is_one_sum_beside_and_by_way_of_the_gateway_over_restarts() {
    if !inside("a_cap_is_one_sum_beside_and_by_way_of_the_gateway_over_restarts") {
        return;
    }
    let (mut appliance, resolver) = enforced(CAPPED);
    let arrived = site();
    let (order, went) = own_flow();
    order.send(CAP / 2 - 30_000).unwrap();
    assert_eq!(went.recv().unwrap(), CAP / 2 - 30_000);
    let mut tunnel = proxied(Some(NAME), Some(NAME));
    assert_eq!(send(&mut tunnel, 60_000), 60_000);
    let half = used(&appliance, NAME);
    eventually("both ways in the books", || {
        (used(&appliance, NAME) > CAP / 2 + 30_000).then_some(())
    });
    assert!(half < CAP);

    // While nobody is there to count, the kernel does; and afterwards nothing is forgotten.
    drop(resolver);
    appliance.stop();
    assert_eq!(send(&mut tunnel, 20_000), 20_000);
    assert!(ask(Some(NAME), None).is_err(), "nobody answers");
    appliance.start();
    let _resolver = Resolver::connect();
    eventually("what went meanwhile in the books", || {
        (used(&appliance, NAME) > CAP / 2 + 50_000).then_some(())
    });
    assert_eq!(ask(Some(NAME), None), Ok(as_class(Some(NAME))));

    let begun = Instant::now();
    let rest = send(&mut tunnel, CAP);
    assert!(
        rest < CAP / 2,
        "{rest} bytes more went by way of the gateway"
    );
    let sum = CAP / 2 - 30_000 + 80_000 + rest;
    assert!((CAP * 8 / 10..=CAP).contains(&sum), "{sum} of {CAP}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let total = arrived.load(Ordering::Relaxed);
    assert!(total <= CAP, "{total} bytes arrived");
    // The next byte on either way is one too many.
    order.send(20_000).unwrap();
    let more = went.recv().unwrap();
    assert!(more < 20_000, "{more} bytes more went beside the gateway");
    assert_eq!(ask(Some(NAME), None), Ok(Answer::OverCap));
    let late = TcpStream::connect(SITE).unwrap();
    assert_eq!(ask(Some(NAME), Some(&late)), Ok(Answer::OverCap));
    let refused = on("agent", || connect_from(AGENT, SITE).is_err());
    assert!(refused.join().unwrap());
    std::thread::sleep(Duration::from_millis(300));
    assert!(arrived.load(Ordering::Relaxed) <= CAP);
    eventually("a full cap in the books", || {
        (used(&appliance, NAME) == CAP).then_some(())
    });
}

#[test]
fn what_goes_by_way_of_the_gateway_uses_a_cap_up_for_both_ways() {
    if !inside("what_goes_by_way_of_the_gateway_uses_a_cap_up_for_both_ways") {
        return;
    }
    // A cap on the name and one around it: what goes there counts against both.
    let (appliance, resolver) = enforced(
        r#""exfil": {"domains": {"api.example.net": {"bytes": 9000000, "period": "day"},
            "*.example.net": {"bytes": 200000, "period": "day"}}}"#,
    );
    let _site = site();
    let (order, went) = own_flow();
    order.send(1000).unwrap();
    assert_eq!(went.recv().unwrap(), 1000);
    // Names without a cap are not counted, and an address may be any name's.
    assert_eq!(ask(Some("other.example"), None), Ok(Answer::Uncounted));
    assert_eq!(ask(None, None), Ok(as_class(None)));
    let mut literal = proxied(None, None);
    assert_eq!(send(&mut literal, 20_000), 20_000);
    let mut tunnel = proxied(Some(NAME), Some(NAME));
    // Another flow, whose name is below the wider cap alone.
    let mut beside = proxied(Some("x.example.net"), Some("*.example.net"));
    assert_eq!(send(&mut beside, 50_000), 50_000);
    let sent = send(&mut tunnel, 400_000);
    assert!((80_000..150_000).contains(&sent), "{sent}");
    assert!(send(&mut beside, 20_000) < 20_000);
    assert!(send(&mut literal, 20_000) < 20_000);
    order.send(20_000).unwrap();
    assert!(went.recv().unwrap() < 20_000);
    for name in [NAME, "x.example.net"] {
        assert_eq!(ask(Some(name), None), Ok(Answer::OverCap), "{name}");
    }
    resolver.hear(
        "the cap's being told to the resolver",
        |message| match message {
            FromEnforcer::State { over_cap, .. } => over_cap
                .iter()
                .any(|(who, name)| who == "agent-1" && name == "*.example.net")
                .then_some(()),
            _ => None,
        },
    );
    assert_eq!(used(&appliance, "*.example.net"), 200_000);
}

#[test]
fn a_flow_that_the_kernel_has_forgotten_does_not_come_back_without_its_number() {
    if !inside("a_flow_that_the_kernel_has_forgotten_does_not_come_back_without_its_number") {
        return;
    }
    let (_appliance, _resolver) = enforced(CAPPED);
    let arrived = site();
    let mut tunnel = proxied(Some(NAME), Some(NAME));
    assert_eq!(send(&mut tunnel, 20_000), 20_000);
    let before = eventually("all of it at the site", || {
        Some(arrived.load(Ordering::Relaxed)).filter(|bytes| *bytes >= 20_000)
    });
    // As its entry's time does, if both ends keep silent for longer than the kernel remembers.
    support::run("/usr/sbin/conntrack", &["-D", "-p", "tcp"]);
    send(&mut tunnel, 20_000);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(arrived.load(Ordering::Relaxed), before);
}

#[test]
fn nobody_has_anything_counted_but_the_gateways_own_flows() {
    if !inside("nobody_has_anything_counted_but_the_gateways_own_flows") {
        return;
    }
    let (appliance, _resolver) = enforced(CAPPED);
    let _site = site();
    let mine = TcpStream::connect(SITE).unwrap();
    let own = on("agent", || connect_from(AGENT, SITE).unwrap())
        .join()
        .unwrap();
    let error = ask(Some(NAME), Some(&own)).unwrap_err();
    assert!(error.contains("the gateway has no flow from"), "{error}");
    assert_eq!(ask(Some(NAME), Some(&mine)), Ok(as_class(Some(NAME))));
    // A sealed box counts nothing, and says so.
    assert!(appliance.report(&Request::Seal).ok);
    let error = ask(Some(NAME), None).unwrap_err();
    assert!(error.contains("sealed"), "{error}");
}

const KBPS: u64 = 2_000;

#[test]
fn a_rate_holds_over_both_ways_at_once() {
    if !inside("a_rate_holds_over_both_ways_at_once") {
        return;
    }
    let (_appliance, _resolver) = enforced(r#""limits": {"egress_kbps": 2000}"#);
    let arrived = site();
    let (order, went) = own_flow();
    order.send(100).unwrap();
    went.recv().unwrap();
    // The name has no cap, but whoever has a rate is counted whatever he asks for.
    let mut tunnel = proxied(Some(NAME), None);
    let alone = rate(&arrived, || send_for(&mut tunnel, Duration::from_secs(4)));
    assert!(within(alone, KBPS), "by way of the gateway: {alone} kbit/s");
    order.send(KBPS * 1000 / 8 * 20).unwrap();
    let both = rate(&arrived, || send_for(&mut tunnel, Duration::from_secs(6)));
    assert!(within(both, KBPS), "both ways at once: {both} kbit/s");
    assert!(
        went.try_recv().is_err(),
        "the other flow was at it meanwhile"
    );
}

/// As much as goes.
fn send_for(stream: &mut TcpStream, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        stream.write_all(&[7; 8 * 1024]).unwrap();
    }
}

/// Kilobits a second that came to the site while something went on, without its first second: queues fill then.
fn rate(arrived: &AtomicU64, work: impl FnOnce() + Send) -> u64 {
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        std::thread::sleep(Duration::from_secs(1));
        let (before, begun) = (arrived.load(Ordering::Relaxed), Instant::now());
        working.join().unwrap();
        let bytes = arrived.load(Ordering::Relaxed) - before;
        bytes * 8 / u64::try_from(begun.elapsed().as_millis()).unwrap()
    })
}

/// The promise is in bytes of packets: payload is a little less.
fn within(measured: u64, kbps: u64) -> bool {
    (kbps * 85 / 100..=kbps * 105 / 100).contains(&measured)
}
