//! Requests that nobody could be charged with: malformed ones, and denials for which the queue has no room in their own
//! share. The first is written down at once; those alike within the next second become one event with a count.
//!
//! So a flood costs the queue one small event per second and source, and what the queue refuses is still counted here
//! until it has room. Memory is bounded: beyond so many sources all others are counted together, without an address.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use clawgress_audit::event::{Begun, Decision, Micros, Outcome, Source};
use clawgress_audit::queue::{Queue, Refused};

use super::events::timestamp;
use crate::request_id::RequestId;
use crate::source;

/// Sources of a kind that are told apart within a second.
const MOST: usize = 512;

/// Why it could not be an event of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// It could not be understood.
    Malformed,
    /// The queue, or the agent's share of it, is full.
    Queue,
    /// As many connections as there may be.
    Connections,
}

/// One such request, as far as anything is known of it.
#[derive(Debug, Clone)]
pub(super) struct Unread<'u> {
    pub(super) kind: Kind,
    pub(super) id: RequestId,
    pub(super) source: IpAddr,
    pub(super) reason: Cow<'u, str>,
    /// None: it was not even answered.
    pub(super) status: Option<u16>,
    /// By what the credential that it showed is recognised.
    pub(super) credential: Option<&'u str>,
}

#[derive(Debug, Default)]
pub(super) struct Folded(Mutex<HashMap<Key, Waiting>>);

/// None: all those for whom there was no room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key(Kind, Option<(IpAddr, Option<Box<str>>)>);

/// What is counted and not yet written down.
#[derive(Debug)]
struct Waiting {
    count: u64,
    since: Micros,
    id: RequestId,
    address: Option<IpAddr>,
    reason: Box<str>,
    status: Option<u16>,
    credential: Option<Box<str>>,
}

impl Folded {
    pub(super) fn note(&self, queue: &Queue, revision: Option<u64>, unread: &Unread<'_>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let network = source::network(unread.source);
        let mut key = Key(
            unread.kind,
            Some((network, unread.credential.map(Into::into))),
        );
        if known.len() >= MOST && !known.contains_key(&key) {
            key = Key(unread.kind, None);
        }
        let crowd = key.1.is_none();
        let mut first = false;
        let waiting = known.entry(key).or_insert_with(|| {
            first = true;
            Waiting::of(unread, crowd)
        });
        if waiting.count == 0 {
            *waiting = Waiting::of(unread, crowd);
        }
        waiting.count += 1;
        if first {
            waiting.write(queue, revision);
        }
    }

    /// To be called once a second: writes what was counted, and forgets who is quiet.
    pub(super) fn tell(&self, queue: &Queue, revision: Option<u64>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, waiting| {
            if waiting.count == 0 {
                return false;
            }
            waiting.write(queue, revision);
            true
        });
    }
}

impl Waiting {
    fn of(unread: &Unread<'_>, crowd: bool) -> Self {
        Self {
            count: 0,
            since: timestamp(),
            id: unread.id,
            address: (!crowd).then_some(unread.source),
            reason: unread.reason.as_ref().into(),
            status: unread.status,
            credential: unread.credential.filter(|_| !crowd).map(Into::into),
        }
    }

    /// What the queue refuses goes on being counted.
    fn write(&mut self, queue: &Queue, revision: Option<u64>) {
        let begun = Begun {
            timestamp: self.since,
            request_id: Cow::Owned(self.id.to_string()),
            source: Source::Proxy,
            client_address: self.address.map(|address| Cow::Owned(address.to_string())),
            credential: self.credential.as_deref().map(Cow::Borrowed),
            revision,
            ..Begun::default()
        };
        let outcome = Outcome {
            decision: Decision::Deny,
            reason: Some(Cow::Borrowed(&self.reason)),
            status: self.status,
            folded: (self.count > 1).then_some(self.count),
            ..Outcome::default()
        };
        match queue.whole(&begun, &outcome) {
            Ok(()) => self.count = 0,
            // It is told each second as long as it lasts: how much waits is in the count.
            Err(Refused::Broken(_)) => {}
            Err(refused) => tracing::warn!(
                request_id = %self.id,
                "recording {} refused requests: {refused}; they are counted until there is room",
                self.count
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use clawgress_audit::queue::Settings;
    use serde_json::Value;

    use super::*;

    fn unread(source: &str) -> Unread<'static> {
        Unread {
            kind: Kind::Malformed,
            id: RequestId::fresh(),
            source: source.parse().unwrap(),
            reason: "malformed-request".into(),
            status: Some(400),
            credential: None,
        }
    }

    fn events(queue: &Queue) -> Vec<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(queue.flush()).unwrap();
        let queued = queue.reader().read(0, 1 << 30).unwrap();
        let parse = |event: &clawgress_audit::queue::Queued| serde_json::from_slice(&event.text);
        queued.iter().map(|event| parse(event).unwrap()).collect()
    }

    fn stands_for(event: &Value) -> u64 {
        event["folded"].as_u64().unwrap_or(1)
    }

    #[test]
    fn a_flood_is_one_event_a_second_and_source_and_none_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let queue = Queue::open(directory.path(), Settings::default()).unwrap();
        let folded = Folded::default();
        for _ in 0..1000 {
            folded.note(&queue, Some(7), &unread("192.0.2.1"));
            // One network, whichever of its addresses.
            folded.note(&queue, Some(7), &unread("2001:db8::1"));
            folded.note(&queue, Some(7), &unread("2001:db8::2"));
        }
        folded.tell(&queue, Some(7));
        let events = events(&queue);
        assert_eq!(events.len(), 4, "{events:?}");
        assert_eq!(events.iter().map(stands_for).sum::<u64>(), 3000);
        assert_eq!(events[0]["client_address"], "192.0.2.1");
        assert_eq!(events[0]["revision"], 7);
        assert!(events[0].get("destination_host").is_none());
        folded.tell(&queue, None);
        assert!(folded.0.lock().unwrap().is_empty());
    }

    fn eventually(queue: &Queue, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let since = std::time::Instant::now();
        loop {
            let events = events(queue);
            if wanted(&events) {
                return events;
            }
            assert!(since.elapsed().as_secs() < 20, "{events:?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    #[test]
    fn no_number_of_sources_takes_more_than_its_room() {
        let directory = tempfile::tempdir().unwrap();
        let queue = Queue::open(directory.path(), Settings::default()).unwrap();
        let folded = Folded::default();
        for n in 0..3 * MOST as u32 {
            let source = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
            folded.note(&queue, None, &unread(&source));
        }
        assert_eq!(folded.0.lock().unwrap().len(), MOST + 1);
        folded.tell(&queue, None);
        // The queue folds floods of strangers once more, and ends that a moment later.
        let events = eventually(&queue, |events| {
            events.iter().map(stands_for).sum::<u64>() == 3 * MOST as u64
        });
        assert!(events.len() <= MOST + 2, "{}", events.len());
    }

    #[test]
    fn what_a_full_queue_refuses_is_told_when_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            max_bytes: 1 << 20,
            share_per_agent: 1 << 18,
            ..Settings::default()
        };
        let queue = Queue::open(directory.path(), settings).unwrap();
        let begun = Begun {
            path: Some("x".repeat(4000).into()),
            ..Begun::default()
        };
        // Large ones, and small ones where no large one fits.
        while queue.whole(&begun, &Outcome::default()).is_ok() {}
        while queue.whole(&Begun::default(), &Outcome::default()).is_ok() {}
        let folded = Folded::default();
        for _ in 0..5 {
            folded.note(&queue, None, &unread("192.0.2.1"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(queue.flush()).unwrap();
        let mut reader = queue.reader();
        let read = reader.read(0, 1 << 30).unwrap();
        reader.acknowledge(read.last().unwrap().sequence);
        // Room is made by a thread of the queue's own.
        let since = std::time::Instant::now();
        while folded.0.lock().unwrap().values().any(|left| left.count > 0) {
            assert!(since.elapsed().as_secs() < 10, "no room is made");
            folded.tell(&queue, None);
        }
        eventually(&queue, |events| {
            let own = events
                .iter()
                .filter(|event| event["client_address"] == "192.0.2.1");
            own.map(stands_for).sum::<u64>() == 5
        });
    }
}
