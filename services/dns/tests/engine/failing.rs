//! Whatever fails, fails closed: no address without a pin, none without a policy, and floods end at their bounds.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clawgress_link::pins::FromEnforcer;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::world::{LIMITS, Manner, World, address, ask, ask_engine, eventually, policy, question};

const ONE: [u8; 4] = [10, 66, 0, 1];
/// Somebody on the LAN, who comes through the doors.
const DOOR: [u8; 4] = [127, 0, 0, 3];

async fn enforcing() -> World {
    let world = World::enforcing().await;
    for name in ["api.example", "everybody.example"] {
        world.set(name, vec![address(name, "198.51.100.1")]);
    }
    world
}

fn is_nothing(reply: &crate::world::Reply, code: ResponseCode) {
    assert_eq!(reply.code(), code);
    assert!(reply.message.answers.is_empty());
}

#[tokio::test]
async fn without_an_enforcer_there_is_no_policy_and_no_answer() {
    let world = World::new().await;
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    is_nothing(&reply, ResponseCode::Refused);
    assert_eq!(reply.why(), (14, "unavailable".to_owned()));
}

#[tokio::test]
async fn a_pin_that_is_refused_or_not_answered_is_no_answer() {
    let world = enforcing().await;
    for (manner, at_least) in [(Manner::Refusing, 0), (Manner::Silent, 450)] {
        world.minutes.lock().unwrap().manner = manner;
        let began = Instant::now();
        let reply = world.ask(ONE, "api.example", RecordType::A).await;
        is_nothing(&reply, ResponseCode::ServFail);
        let took = began.elapsed().as_millis();
        assert!(took >= at_least && took < 1500, "{took} ms");
    }
    world.minutes.lock().unwrap().manner = Manner::Willing;
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(reply.addresses(), ["198.51.100.1"]);
}

#[tokio::test]
async fn without_its_enforcer_not_even_a_pinned_name_is_answered() {
    let world = enforcing().await;
    world.ask(ONE, "api.example", RecordType::A).await;
    world.lose_enforcer().await;
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    is_nothing(&reply, ResponseCode::ServFail);
    // Denials need nobody.
    let denied = world.ask(ONE, "denied.example", RecordType::A).await;
    assert_eq!(denied.code(), ResponseCode::NXDomain);
    // It comes back, and says what is in force.
    world.start_enforcer();
    world.load(2, &policy()).await;
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(reply.addresses(), ["198.51.100.1"]);
    // The new enforcer need not know what the old one had pinned.
    assert_eq!(world.minutes.lock().unwrap().pins.len(), 2);
}

#[tokio::test]
async fn a_policy_that_is_taken_back_leaves_nothing() {
    let world = enforcing().await;
    world.ask(ONE, "api.example", RecordType::A).await;
    world.tell(&FromEnforcer::Unload);
    let mut code = ResponseCode::NoError;
    for _ in 0..100 {
        code = world.ask(ONE, "api.example", RecordType::A).await.code();
        if code == ResponseCode::Refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(code, ResponseCode::Refused);
}

#[tokio::test]
async fn a_revision_that_cannot_be_read_leaves_the_last_one_in_force() {
    let world = enforcing().await;
    world.tell_load(2, std::path::Path::new("/nonexistent/2.json"));
    eventually(|| world.minutes.lock().unwrap().loaded.len() == 2).await;
    let error = world.minutes.lock().unwrap().loaded[1].1.clone().unwrap();
    assert!(error.contains("/nonexistent/2.json"), "{error}");
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(reply.addresses(), ["198.51.100.1"]);
}

#[tokio::test]
async fn an_upstream_that_is_slow_holds_up_so_many_and_no_more() {
    let world = enforcing().await;
    world.delay.store(1500, Ordering::Relaxed);
    let names: Vec<String> = (0..50).map(|n| format!("n{n}.wild.example")).collect();
    let began = Instant::now();
    let asks: Vec<_> = names
        .iter()
        .map(|name| {
            let (engine, name) = (world.engine.clone(), name.clone());
            tokio::spawn(async move { ask_engine(&engine, ONE, &name, RecordType::A).await })
        })
        .collect();
    let mut at_once = 0;
    for ask in asks {
        let reply = ask.await.unwrap();
        at_once += usize::from(reply.code() == ResponseCode::ServFail);
    }
    assert_eq!(at_once, 50 - LIMITS.flights.of_source);
    assert!(began.elapsed() < Duration::from_secs(4));
    // Another source is served meanwhile and after.
    world.delay.store(0, Ordering::Relaxed);
    let reply = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(reply.code(), ResponseCode::NoError);
}

async fn connect(world: &World) -> TcpStream {
    connect_from(world, DOOR).await
}

async fn connect_from(world: &World, source: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket.connect(world.agents_tcp).await.unwrap()
}

async fn converse(
    stream: &mut TcpStream,
    name: &str,
    kind: RecordType,
) -> std::io::Result<Message> {
    let asked = question(name, kind);
    stream.write_u16(asked.len() as u16).await?;
    stream.write_all(&asked).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(Message::from_vec(&answer).unwrap())
}

#[tokio::test]
async fn a_connection_takes_many_questions_and_large_answers() {
    let world = enforcing().await;
    // More than a datagram of those who speak no EDNS takes.
    let many = (0..64).map(|n| address("everybody.example", &format!("2001:db8::{n:x}")));
    world.set_kind("everybody.example", RecordType::AAAA, many.collect());
    let mut stream = connect(&world).await;
    for _ in 0..3 {
        let answer = converse(&mut stream, "everybody.example", RecordType::AAAA)
            .await
            .unwrap();
        assert_eq!(answer.answers.len(), 64);
    }
    let datagram = ask(world.agents, DOOR, "everybody.example", RecordType::AAAA).await;
    assert!(datagram.message.metadata.truncation && datagram.message.answers.is_empty());
}

#[tokio::test]
async fn one_source_has_so_many_connections_and_no_more() {
    let world = enforcing().await;
    let mut open = Vec::new();
    for n in 0..6 {
        let mut stream = connect(&world).await;
        let answered = converse(&mut stream, "everybody.example", RecordType::AAAA)
            .await
            .is_ok();
        assert_eq!(answered, n < 3, "connection {n}");
        open.push(stream);
    }
    open.clear();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        converse(
            &mut connect(&world).await,
            "everybody.example",
            RecordType::A
        )
        .await
        .is_ok()
    );
}

#[tokio::test]
async fn all_addresses_of_a_principal_together_have_so_many_connections() {
    let world = enforcing().await;
    let mut open = Vec::new();
    let mut answered = 0;
    for n in 1..=20 {
        let mut stream = connect_from(&world, [127, 0, 1, n]).await;
        let answer = converse(&mut stream, "everybody.example", RecordType::A).await;
        answered += usize::from(answer.is_ok());
        open.push(stream);
    }
    assert_eq!(answered, 8);
}

#[tokio::test]
async fn who_is_nobody_has_no_connection() {
    let world = enforcing().await;
    let mut stream = connect_from(&world, [127, 9, 0, 1]).await;
    let answer = converse(&mut stream, "everybody.example", RecordType::A).await;
    assert!(answer.is_err());
}

#[tokio::test]
async fn a_connection_ends_after_so_many_questions() {
    let world = enforcing().await;
    let mut stream = connect(&world).await;
    let mut answered = 0;
    while answered < 1000
        && converse(&mut stream, "everybody.example", RecordType::A)
            .await
            .is_ok()
    {
        answered += 1;
    }
    assert_eq!(answered, 256);
}

#[tokio::test]
async fn garbage_on_a_connection_ends_it() {
    let world = enforcing().await;
    for garbage in [&[0_u8, 0][..], &[0xff, 0xff, 1, 2, 3], &[0, 4, 1, 2, 3, 4]] {
        let mut stream = connect(&world).await;
        stream.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }
}
