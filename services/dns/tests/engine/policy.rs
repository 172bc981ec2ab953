//! Who may have which name, and what of an answer is told.

use clawgress_link::pins::FromEnforcer;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{CNAME, TXT};
use hickory_proto::rr::{Name, RData, RecordType};
use std::net::IpAddr;
use std::time::Duration;

use clawgress_dns::rules::Rules;
use serde_json::json;

use crate::world::{World, address, ask_engine, policy, record, revision};

const ONE: [u8; 4] = [10, 66, 0, 1];
const TWO: [u8; 4] = [10, 66, 0, 2];
const SOMEBODY: [u8; 4] = [10, 66, 0, 3];
const NOBODY: [u8; 4] = [10, 67, 0, 1];

fn cname(name: &str, target: &str) -> hickory_proto::rr::Record {
    record(name, RData::CNAME(CNAME(Name::from_ascii(target).unwrap())))
}

#[tokio::test]
async fn an_allowed_name_is_pinned_and_only_then_answered() {
    let world = World::enforcing().await;
    for n in 0..250_u8 {
        let name = "api.example";
        let ip = format!("198.51.100.{n}");
        world.set(name, vec![address(name, &ip)]);
        world.load(u64::from(n) + 2, &policy()).await;
        let reply = world.ask(ONE, "aPi.eXample", RecordType::A).await;
        assert_eq!(reply.addresses().join(" "), ip);
        assert!(world.is_pinned("agent-1", name, ip.parse().unwrap()));
        assert_eq!(reply.message.answers[0].name.to_ascii(), "aPi.eXample.");
    }
    let minutes = world.minutes.lock().unwrap();
    let pin = minutes.pins.last().unwrap();
    assert_eq!(pin.revision, 251);
    assert!(
        pin.seconds >= 60 + 60 && pin.seconds <= 140,
        "{}",
        pin.seconds
    );
}

#[tokio::test]
async fn a_known_answer_costs_neither_a_question_nor_a_pin() {
    let world = World::enforcing().await;
    world.set("api.example", vec![address("api.example", "198.51.100.1")]);
    for _ in 0..20 {
        let reply = world.ask(ONE, "api.example", RecordType::A).await;
        assert_eq!(reply.addresses(), ["198.51.100.1"]);
    }
    assert_eq!(world.times_asked("api.example"), 1);
    assert_eq!(world.minutes.lock().unwrap().pins.len(), 1);
}

#[tokio::test]
async fn many_who_ask_at_once_are_one_question_upstream() {
    let world = World::enforcing().await;
    world.set("api.example", vec![address("api.example", "198.51.100.1")]);
    world.delay.store(50, std::sync::atomic::Ordering::Relaxed);
    let asks = (0..20).map(|_| {
        let engine = world.engine.clone();
        tokio::spawn(async move { ask_engine(&engine, ONE, "api.example", RecordType::A).await })
    });
    for ask in asks.collect::<Vec<_>>() {
        assert_eq!(ask.await.unwrap().addresses(), ["198.51.100.1"]);
    }
    assert_eq!(world.times_asked("api.example"), 1);
}

#[tokio::test]
async fn a_denied_name_is_asked_of_nobody_whatever_the_type() {
    let world = World::enforcing().await;
    for kind in [
        1, 28, 16, 10, 255, 65, 64, 5, 15, 33, 6, 2, 12, 257, 43, 48, 99, 65_399,
    ] {
        let reply = world
            .ask(ONE, "denied.example", RecordType::from(kind))
            .await;
        assert_eq!(reply.code(), ResponseCode::NXDomain);
        assert_eq!(reply.why(), (15, "not-allowlisted no-such-luck".to_owned()));
        let tld = world.ask(ONE, "com", RecordType::from(kind)).await;
        assert_eq!(tld.code(), ResponseCode::NXDomain);
    }
    assert!(world.asked.lock().unwrap().is_empty());
    assert!(world.minutes.lock().unwrap().pins.is_empty());
}

#[tokio::test]
async fn everyone_has_his_own_names() {
    let world = World::enforcing().await;
    for name in ["api.example", "two.example", "everybody.example"] {
        world.set(name, vec![address(name, "198.51.100.1")]);
    }
    let may = async |source, name| {
        world.ask(source, name, RecordType::A).await.code() == ResponseCode::NoError
    };
    for (source, own) in [
        (ONE, "api.example"),
        (TWO, "two.example"),
        (SOMEBODY, "everybody.example"),
    ] {
        for name in ["api.example", "two.example", "everybody.example"] {
            assert_eq!(may(source, name).await, name == own, "{source:?} {name}");
        }
    }
    assert!(world.is_pinned(
        "lan/eth1",
        "everybody.example",
        "198.51.100.1".parse().unwrap()
    ));
    let stranger = world.ask(NOBODY, "everybody.example", RecordType::A).await;
    assert_eq!(stranger.code(), ResponseCode::Refused);
    assert_eq!(stranger.why(), (18, "unknown-source".to_owned()));
}

#[tokio::test]
async fn inside_addresses_are_taken_out_unless_the_policy_holds_them() {
    let world = World::enforcing().await;
    for inside in [
        "10.1.2.3",
        "169.254.169.254",
        "100.64.1.1",
        "127.0.0.1",
        "0.0.0.0",
        "203.0.113.77",
        "127.0.5.5",
        "::1",
        "fd00::1",
        "::ffff:10.9.0.1",
        "64:ff9b::a09:1",
        "2002:a09:1::",
    ] {
        let kind = if inside.contains(':') {
            RecordType::AAAA
        } else {
            RecordType::A
        };
        let next = world.minutes.lock().unwrap().loaded.len() as u64 + 1;
        world.load(next, &policy()).await;
        world.set("api.example", vec![address("api.example", inside)]);
        let reply = world.ask(ONE, "api.example", kind).await;
        assert_eq!(reply.code(), ResponseCode::NoError, "{inside}");
        assert!(reply.message.answers.is_empty(), "{inside}");
        assert_eq!(reply.why(), (15, "rebinding llm".to_owned()));
    }
    assert!(world.minutes.lock().unwrap().pins.is_empty());
    let mixed = ["10.1.2.3", "10.9.0.1", "198.51.100.1"];
    world.load(100, &policy()).await;
    world.set("api.example", mixed.map(|ip| address("api.example", ip)));
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(reply.addresses(), ["10.9.0.1", "198.51.100.1"]);
    let minutes = world.minutes.lock().unwrap();
    assert_eq!(minutes.pins[0].addresses.len(), 2);
}

#[tokio::test]
async fn from_an_allowed_name_to_elsewhere_but_not_back() {
    let world = World::enforcing().await;
    let chain = vec![
        cname("api.example", "cdn.elsewhere.example."),
        address("cdn.elsewhere.example", "198.51.100.9"),
    ];
    world.set("api.example", chain);
    let back = vec![
        cname("cdn.elsewhere.example", "api.example."),
        address("api.example", "198.51.100.8"),
    ];
    world.set("cdn.elsewhere.example", back);
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(reply.addresses(), ["198.51.100.9"]);
    assert_eq!(reply.message.answers.len(), 2);
    assert!(world.is_pinned("agent-1", "api.example", "198.51.100.9".parse().unwrap()));
    let denied = world.ask(ONE, "cdn.elsewhere.example", RecordType::A).await;
    assert_eq!(denied.code(), ResponseCode::NXDomain);
    assert_eq!(world.times_asked("cdn.elsewhere.example"), 0);
}

#[tokio::test]
async fn kinds_that_lead_past_the_policy_are_empty() {
    let world = World::enforcing().await;
    for kind in [64, 65, 10, 2, 6, 12, 257, 99] {
        let reply = world.ask(ONE, "api.example", RecordType::from(kind)).await;
        assert_eq!(reply.code(), ResponseCode::NoError);
        assert!(reply.message.answers.is_empty(), "{kind}");
    }
    let any = world.ask(ONE, "api.example", RecordType::ANY).await;
    assert!(
        matches!(&any.message.answers[0].data, RData::HINFO(hinfo) if &*hinfo.cpu == b"RFC8482")
    );
    assert!(world.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn text_only_where_a_rule_names_the_whole_name() {
    let world = World::enforcing().await;
    for name in ["api.example", "x.wild.example"] {
        let text = RData::TXT(TXT::new(vec!["data".to_owned()]));
        world.set_kind(name, RecordType::TXT, vec![record(name, text)]);
    }
    let exact = world.ask(ONE, "api.example", RecordType::TXT).await;
    assert_eq!(exact.message.answers.len(), 1);
    let wild = world.ask(ONE, "x.wild.example", RecordType::TXT).await;
    assert!(wild.message.answers.is_empty());
    assert_eq!(world.times_asked("x.wild.example"), 0);
}

#[tokio::test]
async fn under_a_wildcard_neither_names_come_back_nor_more_go_out_than_the_budget() {
    let world = World::enforcing().await;
    let mut answered = 0;
    for n in 0..100 {
        let name = format!("n{n}.wild.example");
        let chain = vec![
            cname(&name, "secret.wild.example."),
            address("secret.wild.example", "198.51.100.3"),
        ];
        world.set(&name, chain);
        let reply = world.ask(ONE, &name, RecordType::A).await;
        if reply.code() == ResponseCode::NoError {
            answered += 1;
            assert_eq!(reply.message.answers.len(), 1);
            assert_eq!(reply.addresses(), ["198.51.100.3"]);
        } else {
            assert_eq!(reply.why(), (15, "name-budget".to_owned()));
        }
    }
    assert_eq!(answered, 60);
    assert_eq!(world.asked.lock().unwrap().len(), 60);
    // The names of the running minute stay.
    let again = world.ask(ONE, "n0.wild.example", RecordType::A).await;
    assert_eq!(again.code(), ResponseCode::NoError);
    // The base itself is not meant.
    let base = world.ask(ONE, "wild.example", RecordType::A).await;
    assert_eq!(base.why(), (15, "not-allowlisted".to_owned()));
}

#[tokio::test]
async fn a_name_over_its_cap_is_denied_until_it_is_under_again() {
    let world = World::enforcing().await;
    world.set(
        "capped.example",
        vec![address("capped.example", "198.51.100.1")],
    );
    let state = |over_cap| FromEnforcer::State {
        over_cap,
        clock_trusted: true,
    };
    world.tell(&state(vec![(
        "agent-1".to_owned(),
        "capped.example".to_owned(),
    )]));
    world.load(2, &policy()).await;
    let reply = world.ask(ONE, "capped.example", RecordType::A).await;
    assert_eq!(reply.why(), (15, "over-cap".to_owned()));
    assert_eq!(world.times_asked("capped.example"), 0);
    world.tell(&state(Vec::new()));
    world.load(3, &policy()).await;
    let reply = world.ask(ONE, "capped.example", RecordType::A).await;
    assert_eq!(reply.code(), ResponseCode::NoError);
}

#[tokio::test]
async fn windows_are_shut_while_the_clock_is_not_trusted() {
    let world = World::enforcing().await;
    world.set("api.example", vec![address("api.example", "198.51.100.1")]);
    let mut windowed = policy();
    windowed["hosts"]["agent-1"]["time_window"] = json!({
        "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "start": "00:00", "end": "24:00",
    });
    world.load(2, &windowed).await;
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(reply.why(), (15, "clock-untrusted llm".to_owned()));
    world.tell(&FromEnforcer::State {
        over_cap: Vec::new(),
        clock_trusted: true,
    });
    world.load(3, &windowed).await;
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(reply.code(), ResponseCode::NoError);
}

#[tokio::test]
async fn a_network_that_is_the_world_lets_no_name_lead_inside() {
    let world = World::enforcing().await;
    let mut wide = policy();
    wide["hosts"]["agent-1"]["allow"]["ips"] = json!(["0.0.0.0/0", "10.9.0.0/16", "127.0.0.0/8"]);
    world.load(2, &wide).await;
    let all = ["10.1.2.3", "169.254.169.254", "127.0.0.1", "10.9.0.1"];
    world.set("api.example", all.map(|ip| address("api.example", ip)));
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(reply.addresses(), ["10.9.0.1"]);
}

#[test]
fn only_the_enforcer_says_whether_the_clock_is_to_be_believed() {
    let mut trusting = revision(1, &policy());
    trusting.trust_hardware_clock = true;
    let rules = Rules::of(&trusting).unwrap();
    assert!(!rules.moment(1, false).trusted && rules.moment(1, true).trusted);
}

#[tokio::test]
async fn a_question_on_its_way_is_judged_by_the_revision_that_came_meanwhile() {
    let world = World::enforcing().await;
    world.set(
        "late.example",
        vec![address("late.example", "198.51.100.1")],
    );
    world.delay.store(300, std::sync::atomic::Ordering::Relaxed);
    let pending = {
        let engine = world.engine.clone();
        tokio::spawn(async move { ask_engine(&engine, ONE, "late.example", RecordType::A).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut without = policy();
    without["hosts"]["agent-1"]["allow"]["domains"] = json!(["api.example"]);
    world.load(2, &without).await;
    let reply = pending.await.unwrap();
    assert_eq!(reply.why(), (15, "not-allowlisted".to_owned()));
    let address: IpAddr = "198.51.100.1".parse().unwrap();
    assert!(!world.is_pinned("agent-1", "late.example", address));
}

#[tokio::test]
async fn what_happened_is_counted_exactly() {
    let world = World::enforcing().await;
    world.set("api.example", vec![address("api.example", "198.51.100.1")]);
    for _ in 0..5 {
        world.ask(ONE, "api.example", RecordType::A).await;
    }
    for _ in 0..3 {
        world.ask(ONE, "a.b.denied.example", RecordType::A).await;
    }
    let sum = |domain: &str| {
        let minutes = world.minutes.lock().unwrap();
        let of = minutes
            .counts
            .iter()
            .filter(|count| count.principal == "agent-1" && count.domain == domain);
        of.fold((0, 0, 0), |(queries, hits, denied), count| {
            let denials: u64 = count.denied.iter().map(|(_, number)| number).sum();
            (
                queries + count.queries,
                hits + count.cache_hits,
                denied + denials,
            )
        })
    };
    crate::world::eventually(|| sum("denied.example").0 == 3 && sum("api.example").0 == 5).await;
    assert_eq!(sum("api.example"), (5, 4, 0));
    assert_eq!(sum("denied.example"), (3, 0, 3));
}
