//! Whatever lies in a file or comes over a wire is read without a panic, and what is not ours is never called good: the
//! properties of the fuzz targets, over spoiled good texts.

use clawgress_audit::event::{Begun, Event, Origin, Outcome, with_origin};
use clawgress_audit::queue::{Queue, Settings, record};
use clawgress_audit::store::checkpoint::SigningKey;
use clawgress_audit::store::{self, Store};
use clawgress_audit::{ship, verify};
use proptest::collection::vec;
use proptest::prelude::*;

/// A queue's file and a segment with a checkpoint in the middle, as they are written.
fn written() -> (Vec<u8>, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let settings = Settings {
        max_bytes: 2 * 1024 * 1024,
        ..Settings::default()
    };
    let queue = Queue::open(&place.join("queue"), settings).unwrap();
    let key = SigningKey::open(&place.join("key")).unwrap();
    let store = Store::open(&place.join("store"), key, store::Settings::default()).unwrap();
    for number in 0..6 {
        let begun = Begun {
            request_id: format!("r{number}").into(),
            agent_id: Some("agent-1".into()),
            path: Some("/ünïcode/\u{7f}\"".into()),
            ..Begun::default()
        };
        queue.end(queue.begin(&begun).unwrap(), &Outcome::default());
        store.note(&begun, &Outcome::default()).unwrap();
        if number == 2 {
            store.checkpoint(begun.timestamp).unwrap();
        }
    }
    drop(queue);
    let file = std::fs::read_dir(place.join("queue/lane-1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "queue"))
        .map(|path| std::fs::read(path).unwrap())
        .max_by_key(|bytes| record::survey(bytes).0)
        .unwrap();
    let used = file.iter().rposition(|byte| *byte != 0).unwrap() + 64;
    let segment = std::fs::read(place.join("store/0000000000000001.audit")).unwrap();
    (file[..used].to_vec(), segment)
}

/// Bytes put over, cut out or put in.
#[derive(Debug, Clone)]
enum Spoil {
    Over(usize, Vec<u8>),
    Cut(usize, usize),
    In(usize, Vec<u8>),
}

fn spoiled(mut bytes: Vec<u8>, spoils: &[Spoil]) -> Vec<u8> {
    for spoil in spoils {
        let length = bytes.len();
        let place = |at: &usize| at % (length + 1);
        match spoil {
            Spoil::Over(at, new) => {
                let at = place(at);
                let end = (at + new.len()).min(length);
                bytes[at..end].copy_from_slice(&new[..end - at]);
            }
            Spoil::Cut(at, many) => {
                let at = place(at);
                bytes.drain(at..(at + many).min(length));
            }
            Spoil::In(at, new) => {
                let at = place(at);
                bytes.splice(at..at, new.iter().copied());
            }
        }
    }
    bytes
}

fn spoils() -> impl Strategy<Value = Vec<Spoil>> {
    let few = || {
        vec(
            prop_oneof![any::<u8>(), Just(b'\n'), Just(b'"'), Just(0)],
            1..6,
        )
    };
    let spoil = prop_oneof![
        (any::<usize>(), few()).prop_map(|(at, new)| Spoil::Over(at, new)),
        (any::<usize>(), 1..40_usize).prop_map(|(at, many)| Spoil::Cut(at, many)),
        (any::<usize>(), few()).prop_map(|(at, new)| Spoil::In(at, new)),
    ];
    vec(spoil, 1..5)
}

fn look(queue: &[u8], segment: &[u8]) {
    let (records, length) = record::survey(queue);
    assert!(records <= queue.len() && length <= queue.len());
    let lines = segment.split(|byte| *byte == b'\n').count();
    let (fault, counted, readable, _) = store::survey(segment);
    assert!(counted <= readable && readable <= lines);
    assert!(fault.is_none_or(|at| at <= segment.len()));
    verify::survey(segment);
    assert!(ship::survey(segment) <= segment.len());
    let mut line = Vec::new();
    if with_origin(&Origin::default(), segment, &mut line).is_some() {
        assert!(!line.contains(&b'\n'));
        // Whether it is one or not is told, not assumed.
        let _ = Event::parse(&line);
    }
}

#[test]
fn spoiled_files_are_read_without_a_panic_and_never_good() {
    let (queue, segment) = written();
    assert!(record::survey(&queue).0 > 6);
    assert!(verify::survey(&segment).good || verify::survey(&segment).faults.is_empty());
    proptest!(|(spoils in spoils(), any in vec(any::<u8>(), 0..300))| {
        let changed = spoiled(segment.clone(), &spoils);
        look(&spoiled(queue.clone(), &spoils), &changed);
        look(&record::with_head(&any), &store::chained(&any));
        look(&any, &any);
        // What is cut off the end alone only an anchor shows.
        if !segment.starts_with(&changed) {
            prop_assert!(!verify::survey(&changed).faults.is_empty(), "{spoils:?}");
        }
    });
}
