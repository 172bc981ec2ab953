//! The service in numbers, as Prometheus reads them, and whether it can do its work.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::Micros;
use crate::forward::Progress;
use crate::store::Status;
use crate::verify::Report;

/// What the last proof of the whole trail has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Proved {
    pub at: Micros,
    pub good: bool,
    pub faults: usize,
    pub missing: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Proof(Arc<Mutex<Option<Proved>>>);

impl Proof {
    pub fn tell(&self, at: Micros, report: &Report) {
        let proved = Proved {
            at,
            good: report.good,
            faults: report.faults.len(),
            missing: report.missing_events,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(proved);
    }

    pub fn last(&self) -> Option<Proved> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of one collector.
pub struct Forwarding {
    pub name: &'static str,
    pub progress: Progress,
    pub behind: u64,
}

/// Name, kind, and what it says.
type About = (&'static str, &'static str, &'static str);

const STORE: [About; 10] = [
    (
        "events_received_total",
        "counter",
        "Events taken from shippers since the service started.",
    ),
    (
        "events_duplicate_total",
        "counter",
        "Events that came once more and were dropped or refused.",
    ),
    (
        "events_missing_total",
        "counter",
        "Sequences that never came and are marked as missing.",
    ),
    (
        "events_unreadable_total",
        "counter",
        "Events that were none; their names are kept.",
    ),
    (
        "events_total",
        "counter",
        "Events in the trail, pruned ones included.",
    ),
    ("segments", "gauge", "Segments held."),
    ("bytes", "gauge", "Bytes of the segments held."),
    (
        "queues",
        "gauge",
        "Queues of gateways that events came from.",
    ),
    (
        "unsigned_events",
        "gauge",
        "Events since the last signed checkpoint.",
    ),
    ("ready", "gauge", "1: events are taken."),
];
const AGE: About = (
    "checkpoint_age_seconds",
    "gauge",
    "Since the last signed checkpoint.",
);
const FORWARD: [About; 3] = [
    (
        "forward_delivered_total",
        "counter",
        "Events that a collector has confirmed since the service started.",
    ),
    (
        "forward_lag_events",
        "gauge",
        "Events that a collector has still to get.",
    ),
    (
        "forward_up",
        "gauge",
        "0: nothing goes through to this collector.",
    ),
];
const VERIFY: [About; 4] = [
    (
        "verify_good",
        "gauge",
        "1: the last proof of the whole trail found no fault.",
    ),
    (
        "verify_faults",
        "gauge",
        "Faults that the last proof found.",
    ),
    (
        "verify_missing_events",
        "gauge",
        "Events that the last proof found marked as missing.",
    ),
    ("verify_age_seconds", "gauge", "Since the last proof."),
];

fn put(text: &mut String, (name, kind, help): About, values: &[(Option<&str>, u64)]) {
    // Writing to memory does not fail.
    let _ = write!(
        text,
        "# HELP clawgress_audit_{name} {help}\n# TYPE clawgress_audit_{name} {kind}\n"
    );
    for (collector, value) in values {
        let label = collector.map_or_else(String::new, |name| format!("{{collector=\"{name}\"}}"));
        let _ = writeln!(text, "clawgress_audit_{name}{label} {value}");
    }
}

pub fn render(
    status: &Status,
    forwarding: &[Forwarding],
    proved: Option<Proved>,
    now: Micros,
) -> String {
    let mut text = String::new();
    let age = |at: Micros| u64::try_from(now.0.saturating_sub(at.0) / 1_000_000).unwrap_or(0);
    let counts = &status.counts;
    let values = [
        counts.received,
        counts.duplicate,
        counts.missing,
        counts.unreadable,
        status.events,
        status.segments as u64,
        status.bytes,
        status.gateways.len() as u64,
        status.unsigned,
        u64::from(status.broken.is_none()),
    ];
    for (about, value) in STORE.into_iter().zip(values) {
        put(&mut text, about, &[(None, value)]);
    }
    if let Some(at) = status.checkpoint {
        put(&mut text, AGE, &[(None, age(at))]);
    }
    for (at, about) in FORWARD.into_iter().enumerate() {
        let values: Vec<_> = forwarding
            .iter()
            .map(|forward| {
                let up = u64::from(forward.progress.outage.is_none());
                let value = [forward.progress.delivered, forward.behind, up][at];
                (Some(forward.name), value)
            })
            .collect();
        put(&mut text, about, &values);
    }
    if let Some(proved) = proved {
        let values = [
            u64::from(proved.good),
            proved.faults as u64,
            proved.missing,
            age(proved.at),
        ];
        for (about, value) in VERIFY.into_iter().zip(values) {
            put(&mut text, about, &[(None, value)]);
        }
    }
    text
}
