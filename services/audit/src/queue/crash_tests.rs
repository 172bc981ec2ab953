//! Power cuts at every step of a random life of the queue: each event that was promised is there exactly once, none is
//! there twice, and no number that was shipped ever means something else.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::*;
use crate::disk::simulated::Simulated;
use crate::event::Text;

const SETTINGS: Settings = Settings {
    durability: Durability::Batch,
    when_full: WhenFull::Refuse,
    max_bytes: 16 * 256 * 1024,
    share_per_agent: u64::MAX,
};

/// xorshift: the same life for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What had been done, and after which step of the disk.
#[derive(Default)]
struct Diary {
    /// Request, the step behind its append, the step behind its sync.
    appended: Vec<(String, usize, Option<usize>)>,
    /// Sequence, text and the step when it was handed out.
    shipped: Vec<(u64, Vec<u8>, usize)>,
}

fn about(request: &str) -> Begun<'static> {
    Begun {
        request_id: Text::Owned(request.to_owned()),
        agent_id: Some("agent-1".into()),
        path: Some("/x".repeat(1500).into()),
        ..Begun::default()
    }
}

fn live(disk: &Simulated, seed: u64) -> Diary {
    let shared = Shared::recover(Box::new(disk.clone()), SETTINGS).unwrap();
    let mut dice = Dice(seed);
    let mut diary = Diary::default();
    let mut tickets = Vec::new();
    let mut reader = Reader::new(Arc::clone(&shared));
    let (mut shipped, mut acknowledged) = (0, 0);
    for number in 0..400 {
        let request = format!("r{number}");
        match dice.roll(20) {
            0..=7 => {
                tickets.push(shared.begin(&about(&request)).unwrap());
                diary.appended.push((request, disk.steps(), None));
            }
            8..=12 if !tickets.is_empty() => {
                let at = dice.roll(tickets.len() as u64) as usize;
                tickets.swap_remove(at).end(&Outcome::default());
            }
            8..=14 => {
                shared.whole(&about(&request), &Outcome::default()).unwrap();
                diary.appended.push((request, disk.steps(), None));
            }
            15 => {
                shared.sync_all();
                for entry in &mut diary.appended {
                    entry.2.get_or_insert(disk.steps());
                }
            }
            16 | 17 => {
                for event in reader.read(shipped, 20_000).unwrap() {
                    shipped = event.sequence;
                    diary
                        .shipped
                        .push((event.sequence, event.text, disk.steps()));
                }
            }
            18 => {
                acknowledged = shipped.max(acknowledged);
                reader.acknowledge(acknowledged);
            }
            _ => shared.tidy().unwrap(),
        }
    }
    std::mem::forget(tickets);
    diary
}

fn request_of(text: &[u8]) -> String {
    serde_json::from_slice::<Begun<'_>>(text)
        .unwrap()
        .request_id
        .into_owned()
}

/// Recovers, ships all that is left to a store that has what was shipped before, and looks at that store.
fn check(diary: &Diary, crashed: &Simulated, step: usize, all_kept: bool, what: &str) {
    let mut store: BTreeMap<u64, &[u8]> = BTreeMap::new();
    for (sequence, text, at) in &diary.shipped {
        if *at <= step {
            store.insert(*sequence, text);
        }
    }
    let highest = store.keys().last().copied().unwrap_or(0);
    let shared = Shared::recover(Box::new(crashed.clone()), SETTINGS).unwrap();
    shared.sync_all();
    let mut reader = Reader::new(Arc::clone(&shared));
    let left = reader.read(0, usize::MAX).unwrap();
    let mut last = 0;
    for event in &left {
        assert!(
            event.sequence > last,
            "{what}: {} after {last}",
            event.sequence
        );
        last = event.sequence;
        if event.sequence <= highest {
            assert_eq!(
                store.get(&event.sequence),
                Some(&&event.text[..]),
                "{what}: renamed"
            );
        } else {
            store.insert(event.sequence, &event.text);
        }
    }
    let mut seen = HashSet::new();
    for text in store.values() {
        let request = request_of(text);
        assert!(seen.insert(request.clone()), "{what}: {request} twice");
    }
    for (request, appended, synced) in &diary.appended {
        let promised = synced.is_some_and(|synced| synced <= step) || all_kept && *appended <= step;
        assert!(
            !promised || seen.contains(request),
            "{what}: {request} is lost"
        );
    }
    // Recovery itself ended everything; nothing changes by opening it again.
    let again = Shared::recover(Box::new(crashed.clone()), SETTINGS).unwrap();
    again.sync_all();
    assert_eq!(
        Reader::new(again).read(0, usize::MAX).unwrap(),
        left,
        "{what}: second recovery"
    );
}

#[test]
fn whatever_a_power_cut_leaves_every_promised_event_is_there_once() {
    for (seed, stride) in [(0x9e37_79b9_7f4a_7c15, 1), (0x1234_5678_9abc_def1, 5)] {
        let disk = Simulated::default();
        let diary = live(&disk, seed);
        assert!(diary.appended.len() > 150 && diary.shipped.len() > 50);
        let steps = disk.steps();
        let mut dice = Dice(seed ^ 0xff);
        for step in (0..=steps).step_by(stride) {
            check(
                &diary,
                &disk.after_crash(step, || true),
                step,
                true,
                &format!("{step} all"),
            );
            check(
                &diary,
                &disk.after_crash(step, || false),
                step,
                false,
                &format!("{step} none"),
            );
            for likely in [2, 8] {
                let crashed = disk.after_crash(step, || dice.roll(likely) > 0);
                check(
                    &diary,
                    &crashed,
                    step,
                    false,
                    &format!("{step} torn 1/{likely}"),
                );
            }
        }
    }
}

#[test]
fn a_crash_during_recovery_changes_nothing() {
    let disk = Simulated::default();
    let diary = live(&disk, 77);
    let mut dice = Dice(5);
    for step in (0..disk.steps()).step_by(37) {
        let crashed = disk.after_crash(step, || dice.roll(3) > 0);
        drop(Shared::recover(Box::new(crashed.clone()), SETTINGS).unwrap());
        for second in 0..=crashed.steps() {
            let twice = crashed.after_crash(second, || dice.roll(2) > 0);
            check(
                &diary,
                &twice,
                step,
                false,
                &format!("{step}, then {second}"),
            );
        }
    }
}
