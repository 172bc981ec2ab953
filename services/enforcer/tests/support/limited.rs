//! A host with limits, both of its ways out, and a site that counts what comes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use clawgress_link::control::{Reply, Request, Window};
use clawgress_policy::Revision;

use crate::appliance::{Appliance, Resolver, revision};
use crate::support::run;
use crate::traffic::{connect_from, on};

pub(crate) const AGENT: &str = "192.168.10.10";
pub(crate) const SITE: &str = "192.0.2.2:443";
pub(crate) const NAME: &str = "api.example.net";

pub(crate) const CAP: u64 = 300_000;
pub(crate) const CAPPED: &str =
    r#""exfil": {"domains": {"api.example.net": {"bytes": 300000, "period": "day"}}}"#;

pub(crate) fn limited(number: u64, limits: &str) -> Revision {
    let policy = format!(
        r#"{{"version": 2, "hosts": {{"agent-1": {{"sources": ["{AGENT}/32"],
            "allow": {{"domains": ["{NAME}", "*.example.net", "other.example"], "ports": [443]}}, {limits}}}}}}}"#
    );
    let mut revision = revision(number, &policy);
    revision.access.gateway.enabled = true;
    revision
}

pub(crate) fn enforced(limits: &str) -> (Appliance, Resolver) {
    let mut appliance = Appliance::sealed();
    appliance.start();
    let mut resolver = Resolver::connect();
    apply(&appliance, &limited(1, limits));
    pin(&mut resolver);
    (appliance, resolver)
}

fn pin(resolver: &mut Resolver) {
    assert_eq!(resolver.pin(1, "agent-1", NAME, &["192.0.2.2"], 300), None);
}

/// The ruleset knows the gateway by its user; in this namespace there is one user.
fn apply(appliance: &Appliance, revision: &Revision) {
    let report = appliance.apply(revision);
    assert!(report.ok, "{report:#?}\n{}", appliance.log());
    let words = "insert rule inet clawgress output oifname wan0 tcp flags syn / fin,syn,rst,ack meta skuid 0 ct mark 0 \
                 ct mark set 0x08000000 accept";
    run("/usr/sbin/nft", &words.split(' ').collect::<Vec<_>>());
}

/// Takes whoever comes, and counts what all of them send.
pub(crate) fn site() -> Arc<AtomicU64> {
    let (ready, is_ready) = mpsc::channel();
    let total = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&total);
    on("site", move || {
        let listener = TcpListener::bind(SITE).unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming() {
            let (mut stream, counted) = (stream.unwrap(), Arc::clone(&counted));
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                let mut greeted = false;
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    // Whoever says hello is answered.
                    if !std::mem::replace(&mut greeted, true) && stream.write_all(b"!").is_err() {
                        return;
                    }
                    counted.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
        }
    });
    is_ready.recv().unwrap();
    total
}

/// Sends so much, in pieces that fit into a packet each; how much of it went before the flow was cut.
pub(crate) fn send(stream: &mut TcpStream, bytes: u64) -> u64 {
    let mut sent = 0;
    while sent < bytes && stream.write_all(&[7; 1000]).is_ok() {
        sent += 1000;
        std::thread::sleep(Duration::from_micros(500));
    }
    sent
}

/// The agent's own flow, that sends so much whenever it is told to and says how much went.
pub(crate) fn own_flow() -> (mpsc::Sender<u64>, mpsc::Receiver<u64>) {
    let (order, orders) = mpsc::channel();
    let (said, says) = mpsc::channel();
    on("agent", move || {
        let mut stream = connect_from(AGENT, SITE).unwrap();
        for bytes in orders {
            said.send(send(&mut stream, bytes)).unwrap();
        }
    });
    (order, says)
}

pub(crate) fn used(appliance: &Appliance, domain: &str) -> u64 {
    let window = Window::Minute;
    let Reply::Telemetry(telemetry) = appliance.ask(&Request::Telemetry { window }) else {
        panic!("no telemetry");
    };
    let caps = telemetry.principals.get("agent-1").map(|who| &who.caps);
    let cap = caps.and_then(|caps| caps.iter().find(|cap| cap.domain == domain));
    cap.map_or(0, |cap| cap.used)
}
