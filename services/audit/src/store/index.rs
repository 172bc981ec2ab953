//! The index of a segment: moments, agents, destinations and decisions of its events in columns, and where each line
//! lies. It is derived: one that is missing or spoiled is made again, and nothing is proven by it.
//!
//! ```text
//! "CGINDEX1", events, earliest, latest, bytes of the segment, bytes of the agents, bytes of the hosts: 8 bytes each
//! agents, hosts: each name as length (2 bytes) and text; number 0 is "none"
//! columns: moments (8 bytes each), offsets, agents, hosts (4 each), decisions (1)
//! CRC-32C of all before
//! ```

use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;

use crate::checksum::crc32c;
use crate::event::{Decision, Micros, Text};

const MAGIC: &[u8; 8] = b"CGINDEX1";

/// What the index wants to know of an event.
#[derive(Debug, Deserialize)]
pub(crate) struct Keys<'a> {
    pub(crate) timestamp: Micros,
    #[serde(borrow, default)]
    pub(crate) agent_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) destination_host: Option<Text<'a>>,
    pub(crate) decision: Decision,
    // Read, so that an event that names itself twice is none.
    #[serde(borrow)]
    pub(crate) gateway: Text<'a>,
    #[serde(borrow)]
    pub(crate) queue: Text<'a>,
    pub(crate) sequence: u64,
}

#[derive(Debug, Clone, Default)]
struct Names {
    numbers: HashMap<Box<str>, u32>,
    text: Vec<u8>,
}

impl Names {
    fn number(&mut self, name: Option<&str>) -> u32 {
        let Some(name) = name else { return 0 };
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.numbers.len() as u32 + 1;
        let kept = cut(name);
        self.text
            .extend_from_slice(&(kept.len() as u16).to_le_bytes());
        self.text.extend_from_slice(kept);
        self.numbers.insert(name.into(), number);
        number
    }
}

/// Names in the index are not longer; what is asked for is held against the event itself in the end.
fn cut(name: &str) -> &[u8] {
    let bytes = name.as_bytes();
    bytes.get(..usize::from(u16::MAX)).unwrap_or(bytes)
}

fn find(names: &[u8], wanted: &str) -> Option<u32> {
    let wanted = cut(wanted);
    let (mut rest, mut number) = (names, 1);
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let (name, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        if name == wanted {
            return Some(number);
        }
        rest = after;
        number += 1;
    }
    None
}

/// While a segment grows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    moments: Vec<[u8; 8]>,
    offsets: Vec<[u8; 4]>,
    agents: Vec<[u8; 4]>,
    hosts: Vec<[u8; 4]>,
    decisions: Vec<u8>,
    first: i64,
    last: i64,
    agent_names: Names,
    host_names: Names,
}

impl Index {
    pub(crate) fn push(&mut self, offset: u64, keys: &Keys<'_>) {
        let moment = keys.timestamp.0;
        (self.first, self.last) = match self.events() {
            0 => (moment, moment),
            _ => (self.first.min(moment), self.last.max(moment)),
        };
        let agent = self.agent_names.number(keys.agent_id.as_deref());
        let host = self.host_names.number(keys.destination_host.as_deref());
        self.moments.push(moment.to_le_bytes());
        self.offsets
            .push(u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes());
        self.agents.push(agent.to_le_bytes());
        self.hosts.push(host.to_le_bytes());
        self.decisions.push(keys.decision as u8);
    }

    pub(crate) fn events(&self) -> usize {
        self.moments.len()
    }

    /// Takes back what was pushed above so many; the span may stay wider than it has to be.
    pub(crate) fn truncate(&mut self, events: usize) {
        self.moments.truncate(events);
        self.offsets.truncate(events);
        self.agents.truncate(events);
        self.hosts.truncate(events);
        self.decisions.truncate(events);
    }

    pub(crate) fn span(&self) -> Option<(Micros, Micros)> {
        (self.events() > 0).then_some((Micros(self.first), Micros(self.last)))
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            span: self.span().unwrap_or_default(),
            agent_names: &self.agent_names.text,
            host_names: &self.host_names.text,
            moments: &self.moments,
            offsets: &self.offsets,
            agents: &self.agents,
            hosts: &self.hosts,
            decisions: &self.decisions,
        }
    }

    pub(crate) fn write(&self, segment_bytes: u64) -> Vec<u8> {
        let (first, last) = self.span().unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        for number in [
            self.moments.len() as u64,
            first.0.cast_unsigned(),
            last.0.cast_unsigned(),
            segment_bytes,
            self.agent_names.text.len() as u64,
            self.host_names.text.len() as u64,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.agent_names.text);
        bytes.extend_from_slice(&self.host_names.text);
        bytes.extend_from_slice(self.moments.as_flattened());
        for column in [&self.offsets, &self.agents, &self.hosts] {
            bytes.extend_from_slice(column.as_flattened());
        }
        bytes.extend_from_slice(&self.decisions);
        let sum = crc32c(0, &bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// What a query asks the index.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) from: Option<Micros>,
    pub(crate) to: Option<Micros>,
    pub(crate) agent: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) decision: Option<Decision>,
}

/// An index as it was written, read in place.
#[derive(Debug, Clone)]
pub(crate) struct View<'a> {
    pub(crate) span: (Micros, Micros),
    agent_names: &'a [u8],
    host_names: &'a [u8],
    moments: &'a [[u8; 8]],
    offsets: &'a [[u8; 4]],
    agents: &'a [[u8; 4]],
    hosts: &'a [[u8; 4]],
    decisions: &'a [u8],
}

impl<'a> View<'a> {
    /// None: spoiled, or of another state of the segment.
    pub(crate) fn checked(bytes: &'a [u8], segment_bytes: u64) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        if crc32c(0, body) != u32::from_le_bytes(*sum) {
            return None;
        }
        Self::read(bytes, segment_bytes)
    }

    pub(crate) fn read(bytes: &'a [u8], segment_bytes: u64) -> Option<Self> {
        let (body, _) = bytes.split_last_chunk::<4>()?;
        let body = body.strip_prefix(MAGIC)?;
        let (numbers, body) = body.split_first_chunk::<48>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let [events, first, last, length, agents, hosts] = <[[u8; 8]; 6]>::try_from(numbers)
            .ok()?
            .map(u64::from_le_bytes);
        if length != segment_bytes {
            return None;
        }
        let events = usize::try_from(events).ok()?;
        let (agent_names, body) = body.split_at_checked(usize::try_from(agents).ok()?)?;
        let (host_names, body) = body.split_at_checked(usize::try_from(hosts).ok()?)?;
        let (moments, body) = body.split_at_checked(events.checked_mul(8)?)?;
        let column = events.checked_mul(4)?;
        let (offsets, body) = body.split_at_checked(column)?;
        let (agents, body) = body.split_at_checked(column)?;
        let (hosts, decisions) = body.split_at_checked(column)?;
        (decisions.len() == events).then_some(Self {
            span: (Micros(first.cast_signed()), Micros(last.cast_signed())),
            agent_names,
            host_names,
            moments: moments.as_chunks().0,
            offsets: offsets.as_chunks().0,
            agents: agents.as_chunks().0,
            hosts: hosts.as_chunks().0,
            decisions,
        })
    }

    pub(crate) fn events(&self) -> usize {
        self.moments.len()
    }

    pub(crate) fn offset(&self, event: usize) -> Option<u64> {
        Some(u64::from(u32::from_le_bytes(*self.offsets.get(event)?)))
    }

    /// Events of this range that may be meant, ascending. Each wanted column is gone through once, and none if a name is
    /// not there.
    pub(crate) fn matches(&self, wanted: &Wanted<'_>, range: Range<usize>) -> Vec<usize> {
        let range = range.start.min(self.events())..range.end.min(self.events());
        let number = |names, wanted: Option<&str>| match wanted {
            None => Some(None),
            Some(name) => find(names, name).map(|number| Some(number.to_le_bytes())),
        };
        let (Some(agent), Some(host)) = (
            number(self.agent_names, wanted.agent),
            number(self.host_names, wanted.host),
        ) else {
            return Vec::new();
        };
        let mut found: Vec<usize> = match (agent, host) {
            (Some(agent), _) => positions(self.agents, agent, range),
            (None, Some(host)) => positions(self.hosts, host, range),
            (None, None) => range.collect(),
        };
        let (from, to) = (
            wanted.from.map_or(i64::MIN, |from| from.0),
            wanted.to.map_or(i64::MAX, |to| to.0),
        );
        found.retain(|event| {
            host.is_none_or(|host| self.hosts.get(*event) == Some(&host))
                && wanted
                    .decision
                    .is_none_or(|decision| self.decisions.get(*event) == Some(&(decision as u8)))
                && self
                    .moments
                    .get(*event)
                    .is_some_and(|moment| (from..to).contains(&i64::from_le_bytes(*moment)))
        });
        found
    }
}

fn positions(column: &[[u8; 4]], wanted: [u8; 4], range: Range<usize>) -> Vec<usize> {
    let column = column.iter().enumerate().take(range.end).skip(range.start);
    column
        .filter(|(_, value)| **value == wanted)
        .map(|(event, _)| event)
        .collect()
}
