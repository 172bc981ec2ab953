//! Shipping over streams that are cut anywhere: every event arrives, none twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::event::{Begun, Outcome};
use crate::query::{Query, page};
use crate::queue::{Queue, Settings};
use crate::store::Store;
use crate::store::checkpoint::SigningKey;

fn store(directory: &std::path::Path) -> Arc<Store> {
    let key = SigningKey::open(&directory.join("key")).unwrap();
    Arc::new(
        Store::open(
            &directory.join("store"),
            key,
            crate::store::Settings::default(),
        )
        .unwrap(),
    )
}

fn whole(queue: &Queue, number: usize) {
    let begun = Begun {
        request_id: format!("r{number}").into(),
        agent_id: Some("agent-1".into()),
        ..Begun::default()
    };
    queue.whole(&begun, &Outcome::default()).unwrap();
}

fn requests(store: &Store) -> Vec<String> {
    let query = Query {
        limit: 10_000,
        ..Query::default()
    };
    let lines = page(store, &query).unwrap().lines;
    lines
        .iter()
        .map(|line| {
            serde_json::from_str::<Begun<'_>>(&line.json)
                .unwrap()
                .request_id
                .into_owned()
        })
        .collect()
}

/// A stream that dies after so many bytes in either direction.
fn cut_after(bytes: usize, mut far: DuplexStream) -> DuplexStream {
    let (near, mut between) = duplex(4096);
    tokio::spawn(async move {
        let mut left = bytes;
        let (mut one, mut other) = ([0; 97], [0; 89]);
        while left > 0 {
            let moved = tokio::select! {
                read = between.read(&mut one) => match read {
                    Ok(count) if count > 0 => {
                        let count = count.min(left);
                        if far.write_all(&one[..count]).await.is_err() { return }
                        count
                    }
                    _ => return,
                },
                read = far.read(&mut other) => match read {
                    Ok(count) if count > 0 => {
                        let count = count.min(left);
                        if between.write_all(&other[..count]).await.is_err() { return }
                        count
                    }
                    _ => return,
                },
            };
            left -= moved;
        }
    });
    near
}

#[tokio::test]
async fn however_often_it_is_cut_each_event_arrives_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let queue = Queue::open(&directory.path().join("queue"), Settings::default()).unwrap();
    let mut reader = queue.reader();
    let mut number = 0;
    for round in 0..60 {
        for _ in 0..20 {
            whole(&queue, number);
            number += 1;
        }
        queue.flush().await.unwrap();
        let (near, far) = duplex(4096);
        let receiving = Arc::clone(&store);
        let receiver =
            tokio::spawn(async move { receive(far, &receiving, |name| name == "gw").await });
        // Most are cut in the greeting, in a batch, before the acknowledgement.
        let near = cut_after(40 + round * 97, near);
        // How it ends depends on where it is cut; what counts is what has arrived in the end.
        let _ = ship(near, &mut reader, "gw", true).await;
        let _ = receiver.await.unwrap();
    }
    let (near, far) = duplex(4096);
    let receiving = Arc::clone(&store);
    tokio::spawn(async move { receive(far, &receiving, |name| name == "gw").await });
    ship(near, &mut reader, "gw", true).await.unwrap();
    assert_eq!(
        requests(&store),
        (0..number)
            .map(|number| format!("r{number}"))
            .collect::<Vec<_>>()
    );
    assert_eq!(queue.status().waiting, 0);
}

#[tokio::test]
async fn events_go_on_by_themselves_when_the_store_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::open(&directory.path().join("queue"), Settings::default()).unwrap();
    let socket = directory.path().join("ship.sock");
    let reader = queue.reader();
    let to = socket.clone();
    let shipping = tokio::spawn(async move {
        keep_shipping(|| tokio::net::UnixStream::connect(to.clone()), reader, "gw").await;
    });
    whole(&queue, 0);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let store = store(directory.path());
    let mut connections = 0;
    for number in 1..40 {
        // The listener comes and goes.
        let _ = std::fs::remove_file(&socket);
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        if number % 10 == 1 {
            let (stream, _) = listener.accept().await.unwrap();
            let receiving = Arc::clone(&store);
            let receiver = tokio::spawn(async move { receive(stream, &receiving, |_| true).await });
            whole(&queue, number);
            tokio::time::sleep(Duration::from_millis(120)).await;
            receiver.abort();
            connections += 1;
        } else {
            whole(&queue, number);
        }
    }
    let _ = std::fs::remove_file(&socket);
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let receiving = Arc::clone(&store);
    tokio::spawn(async move { receive(stream, &receiving, |_| true).await });
    while queue.status().waiting > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shipping.abort();
    assert_eq!(connections, 4);
    assert_eq!(
        requests(&store),
        (0..40)
            .map(|number| format!("r{number}"))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_peer_ships_under_its_own_name_alone_and_speaks_the_protocol() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let queue = Queue::open(&directory.path().join("queue"), Settings::default()).unwrap();
    for name in ["other", "audit", "g w"] {
        let (near, far) = duplex(4096);
        let receiving = Arc::clone(&store);
        tokio::spawn(async move { receive(far, &receiving, |name| name != "other").await });
        let refused = ship(near, &mut queue.reader(), name, true)
            .await
            .unwrap_err();
        assert!(
            matches!(&refused, ShipError::Refused(words) if words.contains(name)),
            "{refused}"
        );
    }
    for wrong in [
        &b"\x09\x01\0\0\0x"[..],
        b"\x01\xff\xff\xff\xff",
        b"\x01\x02\0\0\0{}",
        b"\x03\x01\0\0\0x",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let (mut near, far) = duplex(4096);
        let receiving = Arc::clone(&store);
        let receiver = tokio::spawn(async move { receive(far, &receiving, |_| true).await });
        near.write_all(wrong).await.unwrap();
        drop(near);
        assert!(receiver.await.unwrap().is_err(), "{wrong:?}");
    }
    assert_eq!(store.status().events, 0);
}

#[tokio::test]
async fn a_lane_whose_process_died_is_shipped_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let place = directory.path().join("queue");
    let queue = Queue::open(&place, Settings::default()).unwrap();
    whole(&queue, 1);
    drop(queue);
    let lane = crate::queue::lanes(&place).unwrap().remove(0);
    let (near, far) = duplex(4096);
    let receiving = Arc::clone(&store);
    tokio::spawn(async move { receive(far, &receiving, |_| true).await });
    assert!(
        drain(near, lane.open(Settings::default()).unwrap(), "gw")
            .await
            .unwrap()
    );
    assert_eq!(requests(&store), ["r1"]);
    assert!(crate::queue::lanes(&place).unwrap().is_empty());
}

/// The lane of a process that died while this one lived.
#[tokio::test]
async fn who_ships_drains_the_lanes_beside_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let place = directory.path().join("queue");
    let queue = Queue::open(&place, Settings::default()).unwrap();
    let other = Queue::open(&place, Settings::default()).unwrap();
    whole(&other, 1);
    let begun = other.begin(&Begun::default()).unwrap();
    drop(other);
    // Its ticket outlives the queue, as a request that hangs does.
    drop(begun);
    let socket = directory.path().join("ship.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let receiving = Arc::clone(&store);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let receiving = Arc::clone(&receiving);
            tokio::spawn(async move { receive(stream, &receiving, |_| true).await });
        }
    });
    let reader = queue.reader();
    let shipping = tokio::spawn(async move {
        keep_shipping(
            || tokio::net::UnixStream::connect(socket.clone()),
            reader,
            "gw",
        )
        .await;
    });
    whole(&queue, 2);
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while store.status().events < 3 {
        assert!(std::time::Instant::now() < until, "{:?}", requests(&store));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shipping.abort();
    let mut seen = requests(&store);
    seen.sort_unstable();
    assert_eq!(seen, ["", "r1", "r2"]);
}

#[tokio::test]
async fn a_queue_that_was_put_back_lets_go_of_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let queue = Queue::open(&directory.path().join("queue"), Settings::default()).unwrap();
    whole(&queue, 1);
    queue.flush().await.unwrap();
    // The store has more of it than it has ever had.
    let of_a_later_life: Vec<_> = (1..10)
        .map(|sequence| crate::store::tests::queued(sequence, "a", 0))
        .collect();
    store
        .append("gw", &queue.reader().queue(), &of_a_later_life)
        .unwrap();
    let (near, far) = duplex(4096);
    let receiving = Arc::clone(&store);
    tokio::spawn(async move { receive(far, &receiving, |_| true).await });
    let refused = ship(near, &mut queue.reader(), "gw", true)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("an older copy of the queue"), "{refused}");
    assert_eq!(queue.status().waiting, 1);
}

#[tokio::test]
async fn the_newest_connection_of_a_queue_has_the_turn() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let connect = async |gone: u64| {
        let (mut near, far) = duplex(4096);
        let receiving = Arc::clone(&store);
        tokio::spawn(async move { receive(far, &receiving, |_| true).await });
        let hello = Hello {
            version: VERSION,
            gateway: "gw".to_owned(),
            queue: "q".to_owned(),
            gone,
        };
        Frame::Hello(hello).send(&mut near).await.unwrap();
        let answer = Frame::receive(&mut near).await.unwrap().unwrap();
        (near, answer)
    };
    let batch = |from: u64, to: u64| {
        let events = (from..to).map(|sequence| crate::store::tests::queued(sequence, "a", 0));
        Frame::Batch(events.collect())
    };
    let (mut first, _) = connect(0).await;
    batch(1, 4).send(&mut first).await.unwrap();
    let ack = Frame::receive(&mut first).await.unwrap();
    assert!(matches!(ack, Some(Frame::Ack(3))), "{ack:?}");
    // It says that its queue has nothing up to 5: what the store lacks of that is missing.
    let (mut second, welcome) = connect(5).await;
    assert!(
        matches!(welcome, Frame::Welcome(Welcome { highest: 5 })),
        "{welcome:?}"
    );
    for (stream, events, why) in [
        (&mut first, batch(6, 7), "taken over"),
        (&mut second, batch(5, 7), "event 5 behind event 5"),
    ] {
        events.send(stream).await.unwrap();
        let refused = Frame::receive(stream).await.unwrap();
        assert!(
            matches!(&refused, Some(Frame::Refusal(words)) if words.contains(why)),
            "{refused:?}"
        );
    }
    let (_, far) = connect(1 << 40).await;
    assert!(matches!(far, Frame::Refusal(_)), "{far:?}");
    assert_eq!(store.highest("gw", "q"), 5);
}
