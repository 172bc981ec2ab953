//! The queue on a real directory: interrupted requests, shares, a full queue, a full and a broken disk, lanes, strict
//! durability, and reading for shipping.

use super::*;
use crate::disk::simulated::Simulated;
use crate::event::Event;

pub(super) fn small() -> Settings {
    Settings {
        max_bytes: 2 * 1024 * 1024,
        share_per_agent: u64::MAX,
        ..Settings::default()
    }
}

pub(super) fn about(agent: &str, request: &str) -> Begun<'static> {
    Begun {
        request_id: request.to_owned().into(),
        agent_id: (!agent.is_empty()).then(|| agent.to_owned().into()),
        destination_host: Some("api.example.com".into()),
        ..Begun::default()
    }
}

pub(super) fn allowed() -> Outcome<'static> {
    Outcome {
        decision: Decision::Allow,
        bytes_in: Some(10),
        ..Outcome::default()
    }
}

pub(super) async fn all(queue: &Queue) -> Vec<(u64, Begun<'static>, Outcome<'static>)> {
    queue.flush().await.unwrap();
    queue
        .reader()
        .read(0, usize::MAX)
        .unwrap()
        .into_iter()
        .map(|queued| {
            (
                queued.sequence,
                serde_json::from_slice(&queued.text).unwrap(),
                serde_json::from_slice(&queued.text).unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn one_event_for_each_request_however_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::open(directory.path(), small()).unwrap();
    let ended = queue.begin(&about("a", "ended")).unwrap();
    let dropped = queue.begin(&about("a", "dropped")).unwrap();
    let crashed = queue.begin(&about("a", "crashed")).unwrap();
    queue
        .whole(&about("", "denied"), &Outcome::default())
        .unwrap();
    queue.end(ended, &allowed());
    drop(dropped);
    std::mem::forget(crashed);
    let seen = all(&queue).await;
    let words: Vec<_> = seen
        .iter()
        .map(|(sequence, begun, outcome)| {
            (*sequence, begun.request_id.as_ref(), outcome.interrupted)
        })
        .collect();
    assert_eq!(
        words,
        [
            (1, "denied", false),
            (2, "ended", false),
            (3, "dropped", true)
        ]
    );
    assert_eq!(seen[1].2, allowed());
    // The process that forgot a ticket keeps its lane, as one that hangs does; its directory is opened as if it had died.
    let left = std::fs::read_dir(directory.path().join("lane-1")).unwrap();
    let copy = directory.path().join("copy/lane-1");
    std::fs::create_dir_all(&copy).unwrap();
    for entry in left {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let after = Queue::open(&directory.path().join("copy"), small()).unwrap();
    let seen = all(&after).await;
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[3].1.request_id, "crashed");
    assert!(seen[3].2.interrupted && seen[3].2.decision == Decision::Allow);
    let line = {
        let mut line = Vec::new();
        let queued = after.reader().read(3, 1).unwrap().remove(0);
        let origin = event::Origin {
            gateway: "gw".to_owned(),
            queue: after.reader().queue(),
            sequence: queued.sequence,
        };
        event::with_origin(&origin, &queued.text, &mut line).unwrap();
        line
    };
    assert_eq!(Event::parse(&line).unwrap().origin.sequence, 4);
}

#[tokio::test]
async fn what_the_store_has_goes_and_numbers_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let long = {
        let queue = Queue::open(directory.path(), small()).unwrap();
        let long = queue.begin(&about("a", "long")).unwrap();
        let mut reader = queue.reader();
        let mut sent = 0;
        // Many times what the queue may hold.
        for number in 0..40_000 {
            queue
                .whole(&about("a", &format!("r{number}")), &allowed())
                .unwrap();
            if number % 500 == 0 {
                queue.flush().await.unwrap();
                for event in reader.read(sent, usize::MAX).unwrap() {
                    assert_eq!(event.sequence, sent + 1);
                    sent = event.sequence;
                }
                reader.acknowledge(sent);
            }
            assert!(queue.status().bytes <= small().max_bytes);
        }
        drop(long);
        queue.flush().await.unwrap();
        let rest = reader.read(sent, usize::MAX).unwrap();
        reader.acknowledge(rest.last().unwrap().sequence);
        rest.last().unwrap().clone()
    };
    assert_eq!(long.sequence, 40_001);
    assert!(String::from_utf8(long.text).unwrap().contains("\"long\""));
    let queue = Queue::open(directory.path(), small()).unwrap();
    queue.whole(&about("a", "next"), &allowed()).unwrap();
    assert_eq!(all(&queue).await.last().unwrap().0, 40_002);
}

#[test]
fn a_full_queue_refuses_and_still_takes_every_end() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::open(directory.path(), small()).unwrap();
    let mut tickets = Vec::new();
    let refused = loop {
        match queue.begin(&about("a", &tickets.len().to_string())) {
            Ok(ticket) => tickets.push(ticket),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refused::Full(_)), "{refused}");
    assert!(refused.to_string().contains("is clawgress-audit running?"));
    let begun = tickets.len();
    assert!(begun > 500, "{begun}");
    for ticket in tickets {
        queue.end(ticket, &allowed());
    }
    let status = queue.status();
    assert_eq!(
        (status.waiting, status.begun, status.broken),
        (begun as u64, 0, None)
    );
    assert!(status.bytes <= small().max_bytes);
}

#[tokio::test]
async fn one_agents_share_is_not_anothers_and_drops_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        when_full: WhenFull::DropCounted,
        share_per_agent: 0,
        max_bytes: 4 * 1024 * 1024,
        ..small()
    };
    let queue = Queue::open(directory.path(), settings).unwrap();
    for number in 0..5000 {
        queue
            .whole(&about("loud", &number.to_string()), &allowed())
            .unwrap();
    }
    let dropped = queue.status().dropped;
    assert!(dropped > 500, "{dropped}");
    drop(queue.begin(&about("loud", "uncounted")).unwrap());
    for number in 0..100 {
        queue
            .whole(&about("quiet", &number.to_string()), &allowed())
            .unwrap();
    }
    let mut reader = queue.reader();
    let mut seen = Vec::new();
    // The more the store takes, the more there is room for; in the end the sum is right.
    let told = loop {
        queue.flush().await.unwrap();
        for event in reader.read(seen.len() as u64, usize::MAX).unwrap() {
            assert_eq!(event.sequence, seen.len() as u64 + 1);
            seen.push(event.text);
        }
        reader.acknowledge(seen.len() as u64);
        let outcomes = seen
            .iter()
            .map(|text| serde_json::from_slice::<Outcome<'_>>(text).unwrap());
        let told: u64 = outcomes
            .filter(|outcome| outcome.reason.as_deref() == Some("queue-full"))
            .filter_map(|outcome| outcome.folded)
            .sum();
        if told >= dropped {
            break told;
        }
        // Nothing is read any more that would make the keeper look.
        queue.whole(&about("quiet", "tick"), &allowed()).unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(told, dropped + 1);
    let refusing = Settings {
        when_full: WhenFull::Refuse,
        ..settings
    };
    let other = tempfile::tempdir().unwrap();
    let queue = Queue::open(other.path(), refusing).unwrap();
    let refused = (0..5000)
        .find_map(|number| {
            queue
                .whole(&about("loud", &number.to_string()), &allowed())
                .err()
        })
        .unwrap();
    assert!(
        matches!(&refused, Refused::Share(agent) if agent == "loud"),
        "{refused}"
    );
    queue.whole(&about("quiet", "x"), &allowed()).unwrap();
}

#[test]
fn a_full_disk_refuses_and_a_broken_one_closes_the_queue() {
    let disk = Simulated::default();
    let shared = Shared::recover(Box::new(disk.clone()), small()).unwrap();
    let ticket = shared.begin(&about("a", "before")).unwrap();
    disk.fill(true);
    let refused = loop {
        match shared.whole(&about("a", "x"), &allowed()) {
            Ok(_) => {}
            Err(refused) => break refused,
        }
    };
    assert!(
        refused.to_string().contains("free space there"),
        "{refused}"
    );
    ticket.end(&allowed());
    assert_eq!(shared.lock().broken, None);
    disk.fill(false);
    shared.whole(&about("a", "x"), &allowed()).unwrap();
    disk.break_syncs();
    shared.sync_all();
    let refused = shared.begin(&about("a", "y")).err().unwrap();
    assert!(matches!(refused, Refused::Broken(_)), "{refused}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    assert!(runtime.block_on(shared.wait_until(u64::MAX)).is_err());
    assert!(shared.block_until(u64::MAX).is_err());
}

#[test]
fn two_processes_have_a_lane_each_and_a_dead_ones_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let first = Queue::open(directory.path(), small()).unwrap();
    let second = Queue::open(directory.path(), small()).unwrap();
    assert_ne!(first.reader().queue(), second.reader().queue());
    assert!(lanes(directory.path()).unwrap().is_empty());
    second.whole(&about("a", "left"), &allowed()).unwrap();
    drop(second);
    let mut left = lanes(directory.path()).unwrap();
    assert_eq!(left.len(), 1);
    let queue = left.remove(0).open(small()).unwrap();
    let mut reader = queue.reader();
    let event = reader.read(0, usize::MAX).unwrap().remove(0);
    reader.acknowledge(event.sequence);
    drop(reader);
    assert!(queue.discard().unwrap());
    assert!(lanes(directory.path()).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_is_on_disk_when_it_returns() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        durability: Durability::Strict,
        ..small()
    };
    let queue = Arc::new(Queue::open(directory.path(), settings).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let queue = Arc::clone(&queue);
        tasks.spawn(async move {
            for number in 0..20 {
                let request = format!("{task}-{number}");
                let ticket = queue.begin_durably(&about("a", &request)).await.unwrap();
                assert!(*queue.shared.durable.borrow() >= ticket.position);
                queue.end(ticket, &allowed());
            }
        });
    }
    tasks.join_all().await;
    queue
        .whole_durably(&about("a", "denied"), &Outcome::default())
        .await
        .unwrap();
    assert_eq!(all(&queue).await.len(), 321);
    let blocking = queue.begin(&about("a", "blocking")).unwrap();
    assert!(*queue.shared.durable.borrow() >= blocking.position);
}

#[test]
fn what_is_no_event_is_refused() {
    let shared = Shared::recover(Box::new(Simulated::default()), small()).unwrap();
    let mut begun = about("a", "x");
    begun.policy_id = Some("p".repeat(LONGEST).into());
    assert!(matches!(
        shared.begin(&begun).err(),
        Some(Refused::Event(_))
    ));
    let begun = about(&"ü".repeat(200), "x");
    let long = Outcome {
        reason: Some("r".repeat(5000).into()),
        bytes_out: Some(3),
        ..Outcome::default()
    };
    shared.begin(&begun).unwrap().end(&long);
    shared.sync_all();
    let text = Reader::new(shared).read(0, 1).unwrap().remove(0).text;
    let kept: Outcome<'_> = serde_json::from_slice(&text).unwrap();
    assert_eq!((kept.bytes_out, kept.reason), (Some(3), None));
}
