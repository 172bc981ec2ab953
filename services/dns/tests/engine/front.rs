//! What the TLS front is told, which speaks for everybody: names that somebody may have on the wire, none of its own
//! under a wildcard, and the next gateways.

use std::collections::HashSet;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::world::{World, address, ask, policy};

const ONE: [u8; 4] = [10, 66, 0, 1];
const TWO: [u8; 4] = [10, 66, 0, 2];

#[tokio::test]
async fn the_front_has_the_names_that_somebody_may_have_on_the_wire() {
    let world = World::enforcing().await;
    for name in ["two.example", "api.example"] {
        world.set(
            name,
            vec![address(name, "198.51.100.1"), address(name, "10.9.0.1")],
        );
    }
    let wire = ask(world.front, [127, 0, 0, 1], "two.example", RecordType::A).await;
    assert_eq!(wire.addresses(), ["198.51.100.1"]);
    assert!(world.is_pinned("sni", "two.example", "198.51.100.1".parse().unwrap()));
    // agent-1 has names judged by address alone.
    let other = ask(world.front, [127, 0, 0, 1], "api.example", RecordType::A).await;
    assert_eq!(other.code(), ResponseCode::NXDomain);
}

/// agent-2 and agent-3 have names below `wild.example` on the wire, agent-3 one of them by its full name.
fn wild_on_the_wire() -> serde_json::Value {
    let mut wild = policy();
    wild["hosts"]["agent-2"]["allow"]["domains"] = json!(["two.example", "*.wild.example"]);
    wild["hosts"]["agent-3"] = json!({
        "sources": ["10.66.0.3/32"],
        "allow": {"domains": ["*.wild.example", "full.wild.example"]},
        "proxy": {"mode": "sni-allowlist"},
    });
    wild
}

#[tokio::test]
async fn the_front_sends_no_name_under_a_wildcard_that_nobody_had_by_dns() {
    let world = World::enforcing().await;
    world.load(2, &wild_on_the_wire()).await;
    for n in 0..100 {
        let name = format!("n{n}.wild.example");
        world.set(&name, vec![address(&name, "198.51.100.3")]);
    }
    let front = async |n: u32| {
        let name = format!("n{n}.wild.example");
        ask(world.front, [127, 0, 0, 1], &name, RecordType::A).await
    };
    // What one agent brings about there is nobody else's loss.
    for n in 0..100 {
        assert_eq!(front(n).await.why(), (15, "name-budget".to_owned()));
    }
    // agent-1 may have such names by address alone.
    world.ask(ONE, "n0.wild.example", RecordType::A).await;
    world.load(3, &wild_on_the_wire()).await;
    assert_eq!(front(0).await.why(), (15, "name-budget".to_owned()));
    let mut asked = 0;
    for n in 1..100 {
        let name = format!("n{n}.wild.example");
        let reply = world.ask(TWO, &name, RecordType::A).await;
        asked += usize::from(reply.code() == ResponseCode::NoError);
    }
    assert_eq!(asked, 60);
    // Its answers are forgotten with the revision: the front has named asked again, and no name more.
    world.load(4, &wild_on_the_wire()).await;
    for n in 1..=60 {
        assert_eq!(front(n).await.addresses(), ["198.51.100.3"], "{n}");
    }
    assert_eq!(front(61).await.code(), ResponseCode::NXDomain);
    let different: HashSet<String> = world.asked.lock().unwrap().iter().cloned().collect();
    assert_eq!(different.len(), 1 + 60);
}

#[tokio::test]
async fn the_front_has_a_name_that_is_written_in_full_without_dns() {
    let world = World::enforcing().await;
    world.load(2, &wild_on_the_wire()).await;
    for name in ["full.wild.example", "two.example"] {
        world.set(name, vec![address(name, "198.51.100.3")]);
        let reply = ask(world.front, [127, 0, 0, 1], name, RecordType::A).await;
        assert_eq!(reply.addresses(), ["198.51.100.3"]);
    }
}

#[tokio::test]
async fn the_next_gateway_is_the_fronts_to_ask_for_and_may_be_inside() {
    let world = World::enforcing().await;
    let mut next = policy();
    next["hosts"]["agent-2"]["proxy"]["backend"] = json!("gw.corp.example:3128");
    world.load(2, &next).await;
    // Of the box itself, and of the network beside it.
    let all = [
        "203.0.113.77",
        "10.66.0.200",
        "127.0.0.1",
        "10.1.2.3",
        "192.168.9.9",
    ];
    let all = all.map(|ip| address("gw.corp.example", ip));
    world.set_kind("gw.corp.example", RecordType::A, all.to_vec());
    let reply = ask(
        world.front,
        [127, 0, 0, 1],
        "gw.corp.example",
        RecordType::A,
    )
    .await;
    assert_eq!(reply.addresses(), ["10.1.2.3", "192.168.9.9"]);
    assert!(world.is_pinned("sni", "gw.corp.example", "10.1.2.3".parse().unwrap()));
    let in_disguise = vec![
        address("gw.corp.example", "::ffff:10.1.2.3"),
        address("gw.corp.example", "::1"),
        address("gw.corp.example", "fd00::7"),
    ];
    world.set_kind("gw.corp.example", RecordType::AAAA, in_disguise);
    let reply = ask(
        world.front,
        [127, 0, 0, 1],
        "gw.corp.example",
        RecordType::AAAA,
    )
    .await;
    assert_eq!(reply.addresses(), ["fd00::7"]);
    let agent = world.ask(TWO, "gw.corp.example", RecordType::A).await;
    assert_eq!(agent.why(), (15, "not-allowlisted".to_owned()));
}
