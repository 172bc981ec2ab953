//! Floods of strangers, ends that a full disk holds up, and whose share a record is after a restart.

use super::folds::BURST;
use super::tests::{about, all, allowed, small};
use super::*;
use crate::disk::simulated::Simulated;

fn denied(client: &str) -> (Begun<'static>, Outcome<'static>) {
    let begun = Begun {
        client_address: Some(client.to_owned().into()),
        destination_host: Some("anything.example.com".into()),
        ..Begun::default()
    };
    let outcome = Outcome {
        decision: Decision::Deny,
        reason: Some("no-identity".into()),
        ..Outcome::default()
    };
    (begun, outcome)
}

fn counted(events: &[(u64, Begun<'static>, Outcome<'static>)]) -> u64 {
    let strangers = events
        .iter()
        .filter(|(_, begun, _)| begun.agent_id.is_none());
    strangers
        .map(|(_, _, outcome)| outcome.folded.unwrap_or(1))
        .sum()
}

#[tokio::test]
async fn a_flood_of_strangers_is_counted_and_takes_nobodys_place() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Queue::open(directory.path(), small()).unwrap();
    for number in 0..20_000 {
        let (begun, outcome) = denied(&format!("10.0.{}.{}", number % 7, number % 3));
        queue.whole(&begun, &outcome).unwrap();
        if number % 200 == 0 {
            queue.whole(&about("named", "x"), &outcome).unwrap();
        }
    }
    // A flood's rest is told when its second is over.
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while queue.status().begun > 0 {
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let events = all(&queue).await;
    assert_eq!(counted(&events), 20_000, "none is uncounted");
    let named = events
        .iter()
        .filter(|(_, begun, _)| begun.agent_id.is_some());
    assert_eq!(named.count(), 100, "each named one is an event of its own");
    let folds: Vec<_> = events
        .iter()
        .filter(|(_, _, outcome)| outcome.folded.is_some())
        .collect();
    assert!(
        !folds.is_empty() && events.len() < 100 + BURST as usize + 200,
        "{}",
        events.len()
    );
    assert!(folds.iter().all(|(_, begun, outcome)| {
        outcome.decision == Decision::Deny
            && begun.destination_host.is_none()
            && !outcome.interrupted
    }));
    assert!(
        folds
            .iter()
            .any(|(_, begun, outcome)| begun.client_address.is_some()
                && outcome.reason.as_deref() == Some("no-identity"))
    );
}

#[test]
fn a_fold_whose_process_died_is_one_denial_marked_so() {
    let disk = Simulated::default();
    let shared = Shared::recover(Box::new(disk.clone()), small()).unwrap();
    let (begun, outcome) = denied("10.0.0.1");
    for _ in 0..BURST + 30 {
        shared.whole(&begun, &outcome).unwrap();
    }
    assert_eq!(shared.lock().begun.len(), 1);
    let again = Shared::recover(Box::new(disk), small()).unwrap();
    again.sync_all();
    let events = Reader::new(again).read(0, usize::MAX).unwrap();
    assert_eq!(events.len(), BURST as usize + 1);
    let last: Outcome<'_> = serde_json::from_slice(&events.last().unwrap().text).unwrap();
    assert!(
        last.interrupted
            && last.decision == Decision::Deny
            && last.reason.as_deref() == Some("folded")
    );
}

#[test]
fn an_end_that_finds_no_room_is_written_as_soon_as_there_is() {
    let disk = Simulated::default();
    let shared = Shared::recover(Box::new(disk.clone()), small()).unwrap();
    let ticket = shared.begin(&about("a", "held up")).unwrap();
    // Nothing of it may go meanwhile, whatever is acknowledged.
    let reader = Reader::new(Arc::clone(&shared));
    disk.fill_writes(true);
    ticket.end(&allowed());
    for _ in 0..3 {
        let refused = shared.begin(&about("b", "refused")).err().unwrap();
        assert!(
            refused.to_string().contains("free space there"),
            "{refused}"
        );
        assert!(shared.whole(&about("b", "refused"), &allowed()).is_err());
        shared.sync_all();
        reader.acknowledge(u64::MAX);
        // What it complains of is the keeper's to say.
        let _ = shared.tidy();
    }
    assert_eq!(shared.lock().broken, None);
    assert_eq!(shared.lock().begun.len(), 1);
    disk.fill_writes(false);
    shared.begin(&about("b", "taken")).unwrap().end(&allowed());
    shared.sync_all();
    let events = Reader::new(Arc::clone(&shared))
        .read(0, usize::MAX)
        .unwrap();
    let seen: Vec<_> = events
        .iter()
        .map(|queued| {
            let begun: Begun<'_> = serde_json::from_slice(&queued.text).unwrap();
            let outcome: Outcome<'_> = serde_json::from_slice(&queued.text).unwrap();
            (
                begun.request_id.into_owned(),
                outcome.interrupted,
                outcome.bytes_in,
            )
        })
        .collect();
    let expected = ["held up", "taken"].map(|request| (request.to_owned(), false, Some(10)));
    assert_eq!(seen, expected);
}

/// The keeper tries again though nobody appends.
#[tokio::test]
async fn the_keeper_ends_what_was_held_up() {
    let disk = Simulated::default();
    let queue = Queue::start(Box::new(disk.clone()), small()).unwrap();
    let ticket = queue.begin(&about("a", "held up")).unwrap();
    queue.flush().await.unwrap();
    disk.fill_writes(true);
    queue.end(ticket, &allowed());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(queue.status().begun, 1);
    disk.fill_writes(false);
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while queue.status().begun > 0 {
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(all(&queue).await[0].2, allowed());
}

#[test]
fn what_has_ended_is_its_agents_share_after_a_restart() {
    let disk = Simulated::default();
    let shared = Shared::recover(Box::new(disk.clone()), small()).unwrap();
    for number in 0..50 {
        let request = format!("r{number}");
        shared
            .begin(&about("loud", &request))
            .unwrap()
            .end(&allowed());
    }
    let again = Shared::recover(Box::new(disk), small()).unwrap();
    let inner = again.lock();
    let owners: Vec<&str> = inner.shares.keys().map(AsRef::as_ref).collect();
    assert_eq!(owners, ["loud"]);
}

#[tokio::test]
async fn a_queue_whose_keeper_died_takes_nothing() {
    let disk = Simulated::default();
    let queue = Queue::start(Box::new(disk.clone()), small()).unwrap();
    disk.kill_syncs();
    queue.whole(&about("a", "x"), &allowed()).unwrap();
    // Whoever waits for the disk is told, and not left waiting.
    let waited = tokio::time::timeout(Duration::from_secs(10), queue.flush()).await;
    assert!(matches!(waited, Ok(Err(Refused::Broken(_)))), "{waited:?}");
    let refused = queue.begin(&about("a", "y")).err().unwrap();
    assert!(
        refused.to_string().contains("its keeper has died"),
        "{refused}"
    );
}
