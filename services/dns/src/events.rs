//! Denials as structured events: one JSON object a line on standard output, which journald keeps.
//!
//! Bounded per principal, so that no agent can drown another's events or the disk; what was held back is told as a
//! number. A reader that stalls never holds up an answer.

use std::collections::HashMap;
use std::io::Write;
use std::net::IpAddr;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Instant;

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

#[derive(Debug)]
pub struct Events {
    lines: SyncSender<String>,
    principals: HashMap<Box<str>, Share>,
}

#[derive(Debug)]
struct Share {
    left: f64,
    since: Instant,
    suppressed: u64,
}

impl Events {
    /// Lines go to `out` from a thread of their own.
    pub fn to(mut out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (lines, queue) = sync_channel::<String>(QUEUED);
        std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                for line in queue {
                    // Without a reader there is nobody to tell.
                    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
                }
            })?;
        Ok(Self {
            lines,
            principals: HashMap::new(),
        })
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
        if !share.take(now) || !send(&self.lines, "deny", deny) {
            share.suppressed += 1;
        }
    }

    /// Tells how many events each principal had held back; to be called about once a second.
    pub fn report_suppressed(&mut self, now: Instant) {
        for (principal, share) in &mut self.principals {
            share.refill(now);
            let suppressed = Suppressed {
                principal,
                suppressed: share.suppressed,
            };
            if share.suppressed > 0 && send(&self.lines, "suppressed", &suppressed) {
                share.suppressed = 0;
            }
        }
    }
}

fn send<T: Serialize>(lines: &SyncSender<String>, event: &'static str, what: &T) -> bool {
    let line = Line {
        event,
        path: "dns",
        what,
    };
    let Ok(mut text) = serde_json::to_string(&line) else {
        return false;
    };
    text.push('\n');
    !matches!(
        lines.try_send(text),
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
    )
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
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
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
            let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
            if text.lines().count() >= least {
                return text
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no lines");
    }

    #[test]
    fn an_event_has_all_its_fields() {
        let sink = Sink::default();
        let mut events = Events::to(sink.clone()).unwrap();
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
        let mut events = Events::to(sink.clone()).unwrap();
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
}
