//! Finding events: by any field and time, in pages, and as a stream that goes on with what comes.
//!
//! Order is that of arrival. A page looks at a bounded number of lines, so that no question holds the store up: it may
//! have fewer events than asked for and still a place to go on from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{Decision, Micros};
use crate::store::index::Wanted;
use crate::store::{Line, Place, Store, StoreError};

pub const MOST_EVENTS: usize = 10_000;
/// Lines that a page may read.
const MOST_READ: usize = 100_000;
/// Text that a page may hold; one event may be longer than what is left.
const MOST_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// From this moment on, and before that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Micros>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Micros>,
    /// Field and value, as in the event; all must be equal.
    #[serde(default, rename = "where", skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    #[serde(flatten)]
    pub filter: Filter,
    /// Otherwise the oldest is first.
    #[serde(default)]
    pub newest_first: bool,
    #[serde(default = "hundred")]
    pub limit: usize,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

fn hundred() -> usize {
    100
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub lines: Vec<Line>,
    /// None: there is nothing behind it.
    pub next: Option<Place>,
}

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("after: '{0}' is no place; {1}")]
    After(String, &'static str),
    #[error("decision: '{0}' is none; write allow, deny or notice")]
    Decision(String),
}

impl Filter {
    fn wanted(&self) -> Result<Wanted<'_>, QueryError> {
        let field = |name: &str| self.fields.get(name).map(String::as_str);
        let decision = field("decision").map(|word| {
            [Decision::Allow, Decision::Deny, Decision::Notice]
                .into_iter()
                .find(|decision| decision.word() == word)
                .ok_or_else(|| QueryError::Decision(word.to_owned()))
        });
        Ok(Wanted {
            from: self.from,
            to: self.to,
            agent: field("agent_id"),
            host: field("destination_host"),
            decision: decision.transpose()?,
        })
    }

    /// Whether the fields that no index knows are as they should be.
    fn fits(&self, json: &str) -> bool {
        let mut others = self
            .fields
            .iter()
            .filter(|(name, _)| {
                !["agent_id", "destination_host", "decision"].contains(&name.as_str())
            })
            .peekable();
        if others.peek().is_none() {
            return true;
        }
        let Ok(event) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json)
        else {
            return false;
        };
        others.all(|(name, wanted)| match event.get(name) {
            Some(serde_json::Value::String(text)) => text == wanted,
            Some(value) => {
                let text = value.to_string();
                text == *wanted
            }
            None => false,
        })
    }
}

/// One page.
pub fn page(store: &Store, query: &Query) -> Result<Page, QueryError> {
    let after = query.after.as_deref().map(|text| {
        text.parse::<Place>()
            .map_err(|why| QueryError::After(text.to_owned(), why))
    });
    let after = after.transpose()?;
    let limit = query.limit.clamp(1, MOST_EVENTS);
    let wanted = query.filter.wanted()?;
    let mut segments = store.segments_between(query.filter.from, query.filter.to);
    segments.retain(|segment| {
        after.is_none_or(|after| {
            if query.newest_first {
                *segment <= after.segment
            } else {
                *segment >= after.segment
            }
        })
    });
    if query.newest_first {
        segments.reverse();
    }
    let mut lines = Vec::new();
    let (mut read, mut bytes) = (0, 0);
    for segment in segments {
        let range = match after.filter(|after| after.segment == segment) {
            None => 0..usize::MAX,
            Some(after) if query.newest_first => 0..after.event,
            Some(after) => after.event + 1..usize::MAX,
        };
        let Some(mut found) = store.find(segment, &wanted, range)? else {
            continue;
        };
        if query.newest_first {
            found.events.reverse();
        }
        for (event, offset) in &found.events {
            let line = found.line(*event, *offset).map_err(StoreError::from)?;
            read += 1;
            let place = line.place;
            if query.filter.fits(&line.json) {
                bytes += line.json.len();
                lines.push(line);
            }
            if lines.len() == limit || read == MOST_READ || bytes >= MOST_BYTES {
                return Ok(Page {
                    lines,
                    next: Some(place),
                });
            }
        }
    }
    Ok(Page { lines, next: None })
}

/// Events in the order of arrival, and then those that arrive: nothing is left out, however slow the reader is.
pub struct Tail {
    filter: Filter,
    at: Option<Place>,
    watch: tokio::sync::watch::Receiver<u64>,
}

impl Tail {
    /// Begins behind this place; None: with the next that arrives.
    pub fn new(store: &Store, filter: Filter, after: Option<Place>) -> Self {
        let watch = store.watch();
        let at = after.or_else(|| store.last_place());
        Self { filter, at, watch }
    }

    /// What there is; nothing: `more` tells when to ask again.
    pub fn next(&mut self, store: &Store) -> Result<Vec<Line>, QueryError> {
        self.watch.mark_unchanged();
        loop {
            // First, so that nothing that comes meanwhile is passed over.
            let last = store.last_place();
            let query = Query {
                filter: self.filter.clone(),
                limit: 1000,
                after: self.at.map(|place| place.to_string()),
                newest_first: false,
            };
            let page = page(store, &query)?;
            self.at = match (page.next, page.lines.last()) {
                (Some(next), _) => Some(next),
                (None, Some(line)) => last.max(Some(line.place)).max(self.at),
                (None, None) => last.max(self.at),
            };
            if !page.lines.is_empty() || page.next.is_none() {
                return Ok(page.lines);
            }
        }
    }

    pub fn place(&self) -> Option<Place> {
        self.at
    }

    /// False: the store is closed.
    pub async fn more(&mut self) -> bool {
        self.watch.changed().await.is_ok()
    }
}
