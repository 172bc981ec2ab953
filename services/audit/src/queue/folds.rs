//! Denials of nobody in particular: a bounded number is recorded one by one, what comes beyond it within a second becomes
//! one event with a count. So a flood of strangers pushes nobody's events out of queue and store, and none is uncounted.
//!
//! A fold begins on disk before it takes anything; one whose process died is an event without a count, marked so.

use std::time::{Duration, Instant};

use super::append::{Inner, Open};
use super::{Refused, Shared, interrupted, with_content_of};
use crate::event::{Begun, Decision, Outcome, Source, Text};

/// Recorded one by one at once, and then so many a second.
pub(super) const BURST: u32 = 2_000;
const A_SECOND: u32 = 20;
/// As DESIGN's grain allows.
const LONGEST: Duration = Duration::from_secs(1);
/// Whose share a fold is: no agent has this name.
const OWNER: &str = "\0folds";
/// Told apart at a time; all others share one that names no address.
const MOST: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    source: Source,
    reason: Option<Box<str>>,
    client: Option<Box<str>>,
}

struct Fold {
    key: Key,
    ticket: u64,
    position: u64,
    count: u64,
    until: Instant,
}

pub(super) struct Folds {
    open: Vec<Fold>,
    left: u32,
    filled: Instant,
}

enum Judged {
    Single,
    Counted(u64),
    New(Key),
}

impl Folds {
    pub(super) fn new() -> Self {
        Self {
            open: Vec::new(),
            left: BURST,
            filled: Instant::now(),
        }
    }

    /// When the next one is to end.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.open.iter().map(|fold| fold.until).min()
    }

    fn judge(&mut self, mut key: Key, count: u64, now: Instant) -> Judged {
        let more =
            now.saturating_duration_since(self.filled).as_millis() * u128::from(A_SECOND) / 1000;
        if more > 0 {
            self.left = BURST.min(
                self.left
                    .saturating_add(u32::try_from(more).unwrap_or(BURST)),
            );
            self.filled = now;
        }
        if self.left > 0 {
            self.left -= 1;
            return Judged::Single;
        }
        let known = |key: &Key| self.open.iter().position(|fold| fold.key == *key);
        let mut at = known(&key);
        if at.is_none() && self.open.len() >= MOST {
            (key.reason, key.client) = (None, None);
            at = known(&key);
        }
        match at.and_then(|at| self.open.get_mut(at)) {
            Some(fold) => {
                fold.count += count;
                Judged::Counted(fold.position)
            }
            None => Judged::New(key),
        }
    }
}

fn key_of(begun: &Begun<'_>, outcome: &Outcome<'_>) -> Option<Key> {
    let anonymous = begun.agent_id.is_none() && !begun.alert;
    let of_traffic = !matches!(begun.source, Source::Admin | Source::Audit);
    (anonymous && of_traffic && outcome.decision == Decision::Deny).then(|| Key {
        source: begun.source,
        reason: outcome.reason.as_deref().map(Box::from),
        client: begun.client_address.as_deref().map(Box::from),
    })
}

impl Shared {
    /// Up to which position it is on record; None: it is to be recorded by itself.
    pub(super) fn fold(
        &self,
        begun: &Begun<'_>,
        outcome: &Outcome<'_>,
    ) -> Result<Option<u64>, Refused> {
        let Some(key) = key_of(begun, outcome) else {
            return Ok(None);
        };
        let count = outcome.folded.unwrap_or(1);
        let key = match self.lock().folds.judge(key, count, Instant::now()) {
            Judged::Single => return Ok(None),
            Judged::Counted(position) => return Ok(Some(position)),
            Judged::New(key) => key,
        };
        let first = Begun {
            timestamp: begun.timestamp,
            request_id: begun.request_id.clone(),
            source: key.source,
            client_address: key.client.as_deref().map(Text::Borrowed),
            ..Begun::default()
        };
        with_content_of(OWNER, &first, None, |content| {
            let mut inner = self.lock();
            let (ticket, position) = inner.begin(self, content)?;
            inner.folds.open.push(Fold {
                key: key.clone(),
                ticket,
                position,
                count,
                until: Instant::now() + LONGEST,
            });
            Ok(Some(position))
        })
    }

    /// Ends those whose second is over; `all`: every one.
    pub(super) fn end_folds(&self, all: bool) {
        let now = Instant::now();
        let ended: Vec<Fold> = {
            let mut inner = self.lock();
            inner
                .folds
                .open
                .extract_if(.., |fold| all || fold.until <= now)
                .collect()
        };
        for Fold {
            key, ticket, count, ..
        } in ended
        {
            let outcome = Outcome {
                decision: Decision::Deny,
                reason: key.reason.as_deref().map(Text::Borrowed),
                folded: Some(count),
                ..Outcome::default()
            };
            self.end(ticket, &outcome);
        }
    }
}

/// How what was begun ends when its process is gone.
pub(super) fn interrupted_as(open: &Open) -> Outcome<'static> {
    if open.owner() == OWNER.as_bytes() {
        return Outcome {
            decision: Decision::Deny,
            reason: Some("folded".into()),
            ..interrupted()
        };
    }
    interrupted()
}

impl Inner {
    /// How long the keeper may sleep though nothing is appended; None: for ever.
    pub(super) fn patience(&self) -> Option<Duration> {
        let fold = self
            .folds
            .next_end()
            .map(|end| end.saturating_duration_since(Instant::now()));
        let retry = (!self.unended.is_empty()).then_some(super::RETRY);
        fold.into_iter().chain(retry).min()
    }
}
