//! The store: each event once, gaps told, retention, a full disk, and power cuts at every step.

use std::collections::BTreeMap;

use super::*;
use crate::disk::simulated::Simulated;
use crate::event::{Begun, Decision, Event};
use crate::query::{Filter, Query, Tail, page};
use crate::verify::{Trust, verify};

pub(super) fn key() -> SigningKey {
    let directory = tempfile::tempdir().unwrap();
    SigningKey::open(&directory.path().join("key")).unwrap()
}

pub(crate) fn queued(sequence: u64, agent: &str, seconds: i64) -> Queued {
    let begun = Begun {
        timestamp: Micros(seconds * 1_000_000),
        request_id: format!("r{sequence}").into(),
        agent_id: Some(agent.to_owned().into()),
        destination_host: Some(format!("h{}.example.com", sequence % 7).into()),
        ..Begun::default()
    };
    let outcome = Outcome {
        decision: if sequence.is_multiple_of(3) {
            Decision::Deny
        } else {
            Decision::Allow
        },
        bytes_in: Some(sequence),
        ..Outcome::default()
    };
    let mut text = Vec::new();
    crate::event::open_text(&begun, &mut text).unwrap();
    crate::event::closing_text(&outcome, &mut text).unwrap();
    Queued { sequence, text }
}

pub(super) fn batch(range: std::ops::Range<u64>) -> Vec<Queued> {
    range
        .map(|sequence| {
            queued(
                sequence,
                &format!("a{}", sequence % 5),
                sequence.cast_signed(),
            )
        })
        .collect()
}

pub(super) fn small() -> Settings {
    Settings {
        segment_bytes: 8 * 1024,
    }
}

pub(super) fn all(store: &Store) -> Vec<Event> {
    let query = Query {
        limit: 10_000,
        ..Query::default()
    };
    let lines = page(store, &query).unwrap().lines;
    lines
        .iter()
        .map(|line| Event::parse(line.json.as_bytes()).unwrap())
        .collect()
}

#[test]
fn each_event_once_and_what_is_missing_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let signing = || SigningKey::open(&path.join("key")).unwrap();
    let store = Store::open(&path.join("s"), signing(), small()).unwrap();
    assert_eq!(store.append("gw", "q", &batch(1..50)).unwrap(), 49);
    assert_eq!(store.append("gw", "q", &batch(30..60)).unwrap(), 59);
    assert_eq!(store.append("gw", "q", &batch(1..10)).unwrap(), 59);
    assert_eq!(store.append("gw", "other", &batch(1..3)).unwrap(), 2);
    assert!(store.append("g w", "q", &[]).is_err());
    drop(store);
    let store = Store::open(&path.join("s"), signing(), small()).unwrap();
    assert_eq!(
        (store.highest("gw", "q"), store.highest("gw", "none")),
        (59, 0)
    );
    assert_eq!(store.append("gw", "q", &batch(70..71)).unwrap(), 70);
    let forged = Queued {
        sequence: 71,
        text:
            b"{\"gateway\":\"other\",\"timestamp\":\"1970-01-01T00:00:00Z\",\"decision\":\"allow\"}"
                .to_vec(),
    };
    assert_eq!(store.append("gw", "q", &[forged]).unwrap(), 71);
    let events = all(&store);
    let notices: Vec<_> = events
        .iter()
        .filter(|event| event.outcome.decision == Decision::Notice)
        .map(|event| {
            (
                event.origin.gateway.as_str(),
                event.outcome.reason.clone().unwrap().into_owned(),
                event.outcome.folded,
            )
        })
        .collect();
    assert_eq!(
        notices,
        [
            (OWN, "missing".to_owned(), Some(10)),
            ("gw", "unreadable".to_owned(), None)
        ]
    );
    let ours: Vec<u64> = events
        .iter()
        .filter(|event| event.origin.queue == "q")
        .map(|event| event.origin.sequence)
        .collect();
    assert_eq!(ours, (1..60).chain(70..72).collect::<Vec<_>>());
    assert!(store.status().segments >= 2);
    store.checkpoint(Micros::now()).unwrap().unwrap();
    assert_eq!(store.checkpoint(Micros::now()).unwrap(), None);
    let report = verify(
        &path.join("s"),
        &Trust {
            key: Some(store.public_key()),
            anchors: &[],
            growing: None,
        },
    )
    .unwrap();
    assert!(report.good, "{:?}", report.faults);
    assert_eq!((report.events, report.unsigned), (events.len() as u64, 0));
}

#[test]
fn questions_by_field_and_time_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), key(), small()).unwrap();
    for from in (1..301).step_by(20) {
        store.append("gw", "q", &batch(from..from + 20)).unwrap();
    }
    let filter = |fields: &[(&str, &str)]| Filter {
        from: Some(Micros(50_000_000)),
        to: Some(Micros(250_000_000)),
        fields: fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let ask = |filter: Filter, newest_first: bool, limit: usize| {
        let mut found: Vec<u64> = Vec::new();
        let mut after = None;
        loop {
            let query = Query {
                filter: filter.clone(),
                newest_first,
                limit,
                after,
            };
            let page = page(&store, &query).unwrap();
            assert!(page.lines.len() <= limit);
            found.extend(
                page.lines
                    .iter()
                    .map(|line| Event::parse(line.json.as_bytes()).unwrap().origin.sequence),
            );
            match page.next {
                Some(next) => after = Some(next.to_string()),
                None => return found,
            }
        }
    };
    let expected = |keep: &dyn Fn(u64) -> bool| {
        (50..250)
            .filter(|number| keep(*number))
            .collect::<Vec<u64>>()
    };
    assert_eq!(ask(filter(&[]), false, 7), expected(&|_| true));
    assert_eq!(
        ask(filter(&[("agent_id", "a2")]), false, 3),
        expected(&|number| number % 5 == 2)
    );
    assert_eq!(
        ask(
            filter(&[
                ("agent_id", "a2"),
                ("decision", "deny"),
                ("destination_host", "h4.example.com")
            ]),
            false,
            100
        ),
        expected(&|number| number % 5 == 2 && number % 3 == 0 && number % 7 == 4)
    );
    assert_eq!(ask(filter(&[("bytes_in", "77")]), false, 100), [77]);
    assert_eq!(ask(filter(&[("request_id", "r78")]), false, 100), [78]);
    assert!(ask(filter(&[("agent_id", "nobody")]), false, 100).is_empty());
    let mut newest = ask(filter(&[("agent_id", "a0")]), true, 4);
    newest.reverse();
    assert_eq!(newest, expected(&|number| number % 5 == 0));
    let wrong = Query {
        after: Some("x".to_owned()),
        ..Query::default()
    };
    assert!(
        page(&store, &wrong)
            .unwrap_err()
            .to_string()
            .contains("as in 12-3456")
    );
    assert!(
        page(
            &store,
            &Query {
                filter: filter(&[("decision", "maybe")]),
                ..Query::default()
            }
        )
        .is_err()
    );
}

#[tokio::test]
async fn a_tail_leaves_nothing_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), key(), small()).unwrap();
    store.append("gw", "q", &batch(1..10)).unwrap();
    let filter = Filter {
        fields: BTreeMap::from([("agent_id".to_owned(), "a1".to_owned())]),
        ..Filter::default()
    };
    let mut tail = Tail::new(&store, filter, None);
    assert!(tail.next(&store).unwrap().is_empty());
    let mut seen = Vec::new();
    for from in (10..2000).step_by(199) {
        store.append("gw", "q", &batch(from..from + 199)).unwrap();
        assert!(tail.more().await);
        if from % 2 == 0 {
            seen.extend(tail.next(&store).unwrap());
        }
    }
    seen.extend(tail.next(&store).unwrap());
    let sequences: Vec<u64> = seen
        .iter()
        .map(|line| Event::parse(line.json.as_bytes()).unwrap().origin.sequence)
        .collect();
    assert_eq!(
        sequences,
        (10..2000)
            .filter(|number| number % 5 == 1)
            .collect::<Vec<_>>()
    );
}

#[test]
fn what_retention_removes_leaves_its_seal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = Store::open(&path, key(), small()).unwrap();
    for from in (1..1001).step_by(20) {
        store.append("gw", "q", &batch(from..from + 20)).unwrap();
    }
    // All events are of 1970; what counts is when they came.
    let retention = |bytes| Retention { days: 1, bytes };
    assert!(
        store
            .prune(retention(u64::MAX), Micros::now(), None)
            .unwrap()
            .is_empty()
    );
    let removed = store
        .prune(retention(100_000), Micros::now(), None)
        .unwrap();
    assert!(
        removed.len() > 10 && store.status().bytes <= 100_000,
        "{removed:?}"
    );
    store.checkpoint(Micros::now()).unwrap();
    let trust = Trust {
        key: Some(store.public_key()),
        anchors: &[],
        growing: None,
    };
    let report = verify(&path, &trust).unwrap();
    assert!(
        report.good && report.events == 1000 && report.pruned > 10,
        "{report:?}"
    );
    assert!(all(&store).first().unwrap().origin.sequence > 500);
    let tomorrow = Micros(Micros::now().0 + 86_401_000_000);
    while store.status().segments > 1 {
        let gone = store.prune(retention(u64::MAX), tomorrow, None).unwrap();
        assert_eq!(gone.len(), 1, "by age one goes at a step");
    }
    let report = verify(&path, &trust).unwrap();
    assert!(report.good && report.events == 1000, "{report:?}");
    let seal = path.join(pruned_name(3));
    let text = std::fs::read_to_string(&seal).unwrap();
    std::fs::write(&seal, text.replacen("\"events\":", "\"events\":1", 1)).unwrap();
    assert!(
        verify(&path, &trust).unwrap().faults[0]
            .to_string()
            .contains("0000000000000003.pruned")
    );
    std::fs::remove_file(seal).unwrap();
    let fault = verify(&path, &trust).unwrap().faults[0].to_string();
    assert!(fault.contains("segment 3 is missing"), "{fault}");
}

/// Power cuts everywhere: what `append` returned for is there, once, and the store verifies.
#[test]
fn whatever_a_power_cut_leaves_the_store_is_whole() {
    let disk = Simulated::default();
    let signing = tempfile::tempdir().unwrap();
    let key = || SigningKey::open(&signing.path().join("key")).unwrap();
    let settings = Settings {
        segment_bytes: 3000,
    };
    let store = Store::on(Box::new(disk.clone()), key(), settings).unwrap();
    let mut acknowledged = vec![(disk.steps(), 0)];
    for round in 0..12 {
        let from = 1 + round * 4;
        acknowledged.push((
            disk.steps(),
            store.append("gw", "q", &batch(from..from + 4)).unwrap(),
        ));
        acknowledged.last_mut().unwrap().0 = disk.steps();
        if round % 3 == 2 {
            store.checkpoint(Micros(1)).unwrap();
        }
        if round == 8 {
            store
                .prune(
                    Retention {
                        days: 0,
                        bytes: 4000,
                    },
                    Micros(0),
                    None,
                )
                .unwrap();
        }
    }
    let first = store.writer().segments.keys().next().copied().unwrap();
    assert!(first > 1);
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut coin = |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        !dice.is_multiple_of(sides)
    };
    for step in acknowledged[0].0..=disk.steps() {
        for variant in 0..4 {
            let crashed = disk.after_crash(step, || match variant {
                0 => true,
                1 => false,
                sides => coin(sides),
            });
            let promised = acknowledged.iter().rfind(|(at, _)| *at <= step).unwrap().1;
            let again = Store::on(Box::new(crashed.clone()), key(), settings)
                .unwrap_or_else(|error| panic!("{step}/{variant}: {error}"));
            assert!(again.highest("gw", "q") >= promised, "{step}/{variant}");
            // The queue ships again what was not acknowledged.
            again.append("gw", "q", &batch(promised + 1..50)).unwrap();
            again.checkpoint(Micros(2)).unwrap();
            let events = all(&again);
            let ours: Vec<u64> = events
                .iter()
                .filter(|event| event.origin.gateway == "gw")
                .map(|event| event.origin.sequence)
                .collect();
            let begin = ours[0];
            assert_eq!(ours, (begin..50).collect::<Vec<_>>(), "{step}/{variant}");
            let there = tempfile::tempdir().unwrap();
            for name in crashed.names().unwrap() {
                let bytes = crate::disk::read_all(&*crashed.open(&name).unwrap()).unwrap();
                std::fs::write(there.path().join(name), bytes).unwrap();
            }
            let report = verify(
                there.path(),
                &Trust {
                    key: Some(again.public_key()),
                    anchors: &[],
                    growing: None,
                },
            )
            .unwrap();
            assert!(report.good, "{step}/{variant}: {:?}", report.faults);
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_no_loss() {
    let disk = Simulated::default();
    let store = Store::on(
        Box::new(disk.clone()),
        key(),
        Settings {
            segment_bytes: 1000,
        },
    )
    .unwrap();
    store.append("gw", "q", &batch(1..10)).unwrap();
    disk.fill(true);
    let error = store.append("gw", "q", &batch(10..20)).unwrap_err();
    assert!(error.to_string().contains("free space there"), "{error}");
    disk.fill(false);
    assert_eq!(store.append("gw", "q", &batch(10..20)).unwrap(), 19);
    disk.break_syncs();
    assert!(store.append("gw", "q", &batch(20..30)).is_err());
    assert!(matches!(
        store.append("gw", "q", &batch(20..30)),
        Err(StoreError::Broken(_))
    ));
}
