//! Denials as structured events: one JSON object a line.
//!
//! Bounded per principal, so that no agent can drown another's events or the disk; what was held back is told as a
//! number. A reader that stalls never holds up an answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clawgress_link::deny_lines::USUAL_FACILITY;
use clawgress_policy::Reason;
use serde::Serialize;

/// Events of one principal that may come at once, and how many a second after that.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 10.0;
const QUEUED: usize = 1024;
const MOST_PRINCIPALS: usize = 4096;

#[derive(Debug, Serialize)]
pub struct Deny<'a> {
    pub principal: &'a str,
    pub source: IpAddr,
    pub name: &'a str,
    #[serde(rename = "type")]
    pub kind: String,
    pub reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<&'a str>,
    pub revision: u64,
}

#[derive(Serialize)]
struct Line<'a, T> {
    event: &'static str,
    path: &'static str,
    #[serde(flatten)]
    what: &'a T,
}

#[derive(Serialize)]
struct Suppressed<'a> {
    principal: &'a str,
    suppressed: u64,
}

/// On its way to whoever writes it.
struct Told {
    text: String,
    principal: Box<str>,
    /// How many denials nobody hears of if it is lost.
    stands_for: u64,
}

/// Denials by principal that were on their way and were not told.
type Lost = Arc<Mutex<HashMap<Box<str>, u64>>>;

#[derive(Debug)]
pub struct Events {
    lines: SyncSender<Told>,
    facility: Arc<AtomicU8>,
    lost: Lost,
    principals: HashMap<Box<str>, Share>,
}

#[derive(Debug)]
struct Share {
    left: f64,
    since: Instant,
    suppressed: u64,
}

impl Events {
    /// Lines go to `write` from a thread of their own, each with the facility that it belongs to. It says whether it
    /// could tell one.
    pub fn to(write: impl FnMut(u8, &str) -> bool + Send + 'static) -> std::io::Result<Self> {
        let mut write = write;
        let (lines, queue) = sync_channel::<Told>(QUEUED);
        let facility = Arc::new(AtomicU8::new(USUAL_FACILITY));
        let lost = Lost::default();
        let (of, losses) = (Arc::clone(&facility), Arc::clone(&lost));
        std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                for told in queue {
                    if !write(of.load(Ordering::Relaxed), &told.text) {
                        let mut losses = losses.lock().unwrap_or_else(PoisonError::into_inner);
                        *losses.entry(told.principal).or_default() += told.stands_for;
                    }
                }
            })?;
        Ok(Self {
            lines,
            facility,
            lost,
            principals: HashMap::new(),
        })
    }

    /// Of what is told from now on.
    pub fn set_facility(&self, number: u8) {
        self.facility.store(number, Ordering::Relaxed);
    }

    pub fn deny(&mut self, deny: &Deny<'_>, now: Instant) {
        if !self.principals.contains_key(deny.principal) {
            if self.principals.len() >= MOST_PRINCIPALS {
                self.report_suppressed(now);
                self.principals.retain(|_, share| share.left < BURST);
            }
            self.principals
                .insert(deny.principal.into(), Share::new(now));
        }
        let Some(share) = self.principals.get_mut(deny.principal) else {
            return;
        };
        if !share.take(now) || !send(&self.lines, deny.principal, 1, "deny", deny) {
            share.suppressed += 1;
        }
    }

    /// Tells how many events each principal had held back; to be called about once a second.
    pub fn report_suppressed(&mut self, now: Instant) {
        let lost = std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        for (principal, number) in lost {
            let share = self.principals.entry(principal);
            share.or_insert_with(|| Share::new(now)).suppressed += number;
        }
        for (principal, share) in &mut self.principals {
            share.refill(now);
            let suppressed = Suppressed {
                principal,
                suppressed: share.suppressed,
            };
            if share.suppressed > 0
                && send(
                    &self.lines,
                    principal,
                    share.suppressed,
                    "suppressed",
                    &suppressed,
                )
            {
                share.suppressed = 0;
            }
        }
    }
}

fn send<T: Serialize>(
    lines: &SyncSender<Told>,
    principal: &str,
    stands_for: u64,
    event: &'static str,
    what: &T,
) -> bool {
    let line = Line {
        event,
        path: "dns",
        what,
    };
    let Ok(text) = serde_json::to_string(&line) else {
        return false;
    };
    let told = Told {
        text,
        principal: principal.into(),
        stands_for,
    };
    lines.try_send(told).is_ok()
}

impl Share {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
            suppressed: 0,
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.left = (self.left + passed * PER_SECOND).min(BURST);
    }

    fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What was told, as `facility line`.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<(u8, String)>>>);

    impl Sink {
        fn events(&self) -> Events {
            let told = Arc::clone(&self.0);
            let write = move |facility, line: &str| {
                told.lock().unwrap().push((facility, line.to_owned()));
                true
            };
            Events::to(write).unwrap()
        }
    }

    fn deny(principal: &str) -> Deny<'_> {
        Deny {
            principal,
            source: IpAddr::from([10, 0, 0, 1]),
            name: "x\"y.example",
            kind: "A".to_owned(),
            reason: Reason::NotAllowlisted,
            label: Some("llm"),
            revision: 7,
        }
    }

    fn lines(sink: &Sink, least: usize) -> Vec<serde_json::Value> {
        for _ in 0..200 {
            let told = sink.0.lock().unwrap().clone();
            if told.len() >= least {
                return told
                    .iter()
                    .map(|(_, line)| serde_json::from_str(line).unwrap())
                    .collect();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no lines");
    }

    #[test]
    fn an_event_has_all_its_fields() {
        let sink = Sink::default();
        let mut events = sink.events();
        events.deny(&deny("agent-1"), Instant::now());
        let expected = serde_json::json!({
            "event": "deny", "path": "dns", "principal": "agent-1", "source": "10.0.0.1",
            "name": "x\"y.example", "type": "A", "reason": "not-allowlisted", "label": "llm", "revision": 7,
        });
        assert_eq!(lines(&sink, 1), [expected]);
    }

    #[test]
    fn a_flood_is_held_back_and_its_number_told() {
        let sink = Sink::default();
        let mut events = sink.events();
        let now = Instant::now();
        for _ in 0..1000 {
            events.deny(&deny("loud"), now);
        }
        events.deny(&deny("quiet"), now);
        events.report_suppressed(now);
        events.report_suppressed(now);
        let lines = lines(&sink, 52);
        let of = |principal: &str| lines.iter().filter(|l| l["principal"] == principal).count();
        assert_eq!((of("loud"), of("quiet")), (51, 1));
        let told = lines.iter().find(|l| l["event"] == "suppressed").unwrap();
        assert_eq!(told["suppressed"], 950);
    }

    #[test]
    fn events_bear_the_facility_of_the_revision() {
        let sink = Sink::default();
        let mut events = sink.events();
        events.set_facility(19);
        events.deny(&deny("agent-1"), Instant::now());
        lines(&sink, 1);
        assert_eq!(sink.0.lock().unwrap()[0].0, 19);
    }

    #[test]
    fn what_could_not_be_told_is_told_as_a_number() {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, room) = (Arc::clone(&told), Arc::new(AtomicU8::new(0)));
        let has_room = Arc::clone(&room);
        let write = move |_, line: &str| {
            let has_room = has_room.load(Ordering::SeqCst) == 1;
            if has_room {
                lines.lock().unwrap().push(line.to_owned());
            }
            has_room
        };
        let mut events = Events::to(write).unwrap();
        for _ in 0..7 {
            events.deny(&deny("agent-1"), Instant::now());
        }
        let lost = |events: &Events| events.lost.lock().unwrap().values().sum::<u64>();
        while lost(&events) < 7 {
            std::thread::sleep(Duration::from_millis(5));
        }
        // The first report is lost, too, and what it stood for is not.
        events.report_suppressed(Instant::now());
        while lost(&events) < 7 {
            std::thread::sleep(Duration::from_millis(5));
        }
        room.store(1, Ordering::SeqCst);
        events.report_suppressed(Instant::now());
        while told.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(told.lock().unwrap()[0].ends_with("\"suppressed\":7}"));
    }
}
