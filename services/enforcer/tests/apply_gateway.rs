//! A cap over both ways out of a host, with the real gateway and the real enforcer around the real kernel.

#[allow(dead_code)] // Shared with tests that use all of it.
#[path = "support/appliance.rs"]
mod appliance;
#[allow(dead_code)]
#[path = "support/limited.rs"]
mod limited;
#[allow(dead_code)]
#[path = "../../gateway/tests/gateway/origin.rs"]
mod origin;
mod support;
#[allow(dead_code)]
#[path = "support/traffic.rs"]
mod traffic;
#[allow(dead_code)]
#[path = "../../gateway/tests/gateway/world.rs"]
mod world;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use appliance::{Resolver, eventually};
use clawgress_gateway::gateway::{Gateway, Sockets};
use clawgress_gateway::judge::Judge;
use clawgress_gateway::listen;
use clawgress_link::counted::SOCKET;
use clawgress_policy::Revision;
use limited::{AGENT, CAP, CAPPED, NAME, enforced, limited, own_flow, send, site, used};
use support::inside;
use traffic::{connect_from, on};
use world::World;

/// The gateway in this process, with one agent that has a key, asked for names by a resolver that knows one address.
fn real_gateway(revision: &Revision, place: &Path) -> (Gateway, Arc<Judge>, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let named = socket.local_addr().unwrap();
    std::thread::spawn(move || site_for_every_name(&socket));
    let mut world = World::with(&serde_json::json!({"version": 1}));
    world.revision = revision.clone();
    world.counter = Some(SOCKET.into());
    let key = world.agent("worker");
    let judge = world.judge(&place.join("gateway-queue"));
    let sockets = Sockets {
        plain: vec![listen::open("192.168.10.1:3128".parse().unwrap()).unwrap()],
        ..Sockets::default()
    };
    let (showing, doors) = (Arc::default(), Arc::default());
    let own = Arc::clone(&judge);
    let gateway = Gateway::start(own, world::LIMITS, named, &showing, &doors, vec![sockets]);
    (gateway.unwrap(), judge, key)
}

fn site_for_every_name(socket: &UdpSocket) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let name = buffer[12..length].iter().position(|byte| *byte == 0);
        let end = 12 + name.unwrap() + 5;
        let wanted = buffer[end - 4..end] == [0, 1, 0, 1];
        let mut answer = buffer[..end].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(wanted), 0, 0, 0, 0]);
        if wanted {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 2]);
        }
        let _ = socket.send_to(&answer, from);
    }
}

/// What the agent is answered when it asks for a tunnel, and the tunnel.
fn tunnel(key: &str) -> (String, TcpStream) {
    let key = key.to_owned();
    let asked = on("agent", move || {
        let mut stream = connect_from(AGENT, "192.168.10.1:3128").unwrap();
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).unwrap();
        let request = format!(
            "CONNECT {NAME}:443 HTTP/1.1\r\nHost: {NAME}:443\r\nProxy-Authorization: Bearer {key}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        if answer.starts_with("HTTP/1.1 200 ") {
            stream.write_all(&origin::hello(NAME)).unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
        (answer, stream)
    });
    asked.join().unwrap()
}

#[test]
fn a_cap_is_one_sum_with_the_real_gateway_and_its_end_is_told() {
    if !inside("a_cap_is_one_sum_with_the_real_gateway_and_its_end_is_told") {
        return;
    }
    let (mut appliance, resolver) = enforced(CAPPED);
    let (_gateway, judge, key) = real_gateway(&limited(1, CAPPED), &appliance.path(""));
    let arrived = site();
    let (order, went) = own_flow();
    order.send(CAP / 2).unwrap();
    assert_eq!(went.recv().unwrap(), CAP / 2);
    let (answer, mut agent) = tunnel(&key);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(send(&mut agent, 50_000), 50_000);
    drop(resolver);
    appliance.stop();
    // What is open goes on and is counted; nothing new that counts begins.
    assert_eq!(send(&mut agent, 20_000), 20_000);
    let (answer, _) = tunnel(&key);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    appliance.start();
    let _resolver = Resolver::connect();
    eventually("what went in the books", || {
        (used(&appliance, NAME) > CAP / 2 + 70_000).then_some(())
    });
    // More than is left, and then the end: whoever reads learns of it at once.
    send(&mut agent, CAP / 2);
    let begun = Instant::now();
    assert!(!matches!(agent.read(&mut [0]), Ok(1..)));
    assert!(begun.elapsed() < Duration::from_secs(1));
    order.send(20_000).unwrap();
    assert!(went.recv().unwrap() < 20_000);
    let total = arrived.load(Ordering::Relaxed);
    assert!(
        (CAP * 8 / 10..=CAP).contains(&total),
        "{total} bytes arrived"
    );
    let (answer, _) = tunnel(&key);
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains(r#""reason":"over-cap""#), "{answer}");
    let events = events(&judge);
    let of = |status: u16| -> Vec<&serde_json::Value> {
        let found = events.iter().filter(|event| event["status"] == status);
        found.collect()
    };
    let [cut] = of(200)[..] else {
        panic!("{events:#?}");
    };
    assert_eq!(
        (&cut["decision"], &cut["reason"]),
        (&"deny".into(), &"over-cap".into())
    );
    assert_eq!((of(403).len(), of(503).len(), events.len()), (1, 1, 3));
}

fn events(judge: &Judge) -> Vec<serde_json::Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(judge.queue().flush()).unwrap();
    let queued = judge.queue().reader().read(0, 1 << 20).unwrap();
    let events = queued
        .iter()
        .map(|event| serde_json::from_slice(&event.text));
    events.collect::<Result<_, _>>().unwrap()
}
