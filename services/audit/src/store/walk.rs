//! Reading a segment through when a store is opened: what is good, where the first fault is, and everything behind it
//! that can still be read. Changes nothing.

use std::collections::BTreeMap;

use super::checkpoint::{self, Checkpoint};
use super::gap::Facts;
use super::index::{Index, Keys};
use super::line::{Chain, HeadLine, Kind, Line, Lines, kind};
use super::{OWN, State};

/// What a segment has shown.
pub(super) struct Walked {
    /// None: neither its first line nor a checkpoint in it tells.
    pub(super) store: Option<String>,
    pub(super) state: State,
    pub(super) index: Index,
    /// The last one with a good signature.
    pub(super) checkpoint: Option<Checkpoint>,
    /// Where the first line lies that does not fit.
    pub(super) fault: Option<usize>,
    /// No power cut does that: its first line is spoiled, or a signed checkpoint stands behind the fault.
    pub(super) damaged: bool,
}

/// What is known at the first fault; all there is to go by if it turns out that a power cut has torn the end off.
struct Before {
    state: State,
    events: usize,
    checkpoint: Option<Checkpoint>,
}

pub(super) fn walk(number: u64, bytes: &[u8], key: &str) -> Walked {
    let mut lines = Lines::new(bytes);
    let mut walked = Walked {
        store: None,
        state: State {
            at: 0,
            lines: 1,
            events: 0,
            checked: 0,
            previous: Chain::genesis(),
            // Where nothing else is known of the chain, it goes on from what was found.
            chain: Chain::genesis().after(bytes),
            gateways: BTreeMap::new(),
            sealed: false,
        },
        index: Index::default(),
        checkpoint: None,
        fault: None,
        damaged: false,
    };
    let headed = lines.next().is_some_and(|line| walked.head(&line));
    if headed {
        walked.state.at = lines.at as u64;
    } else {
        // A segment gets its name when its first line is on disk, so this one is not torn.
        walked.fault = Some(0);
        walked.damaged = true;
        lines.pass_over_first();
    }
    let mut before: Option<Before> = None;
    // Behind a fault, until a checkpoint is met.
    let mut lost = !headed;
    while !lines.is_at_end() {
        let at = lines.at;
        let line = lines.next();
        let passed = line.is_some() || lines.pass_over();
        if !lost && line.is_none_or(|line| !walked.fits(number, &line, key)) {
            lost = true;
            walked.fault.get_or_insert(at);
            before.get_or_insert_with(|| Before {
                state: walked.state.clone(),
                events: walked.index.events(),
                checkpoint: walked.checkpoint.clone(),
            });
        }
        match line.map(|line| (line, kind(line.json))) {
            Some((line, Some(Kind::Event))) => walked.take(&line),
            Some((line, Some(Kind::Checkpoint))) => {
                if let Ok(checkpoint) = checkpoint::read(line.json, Some(key))
                    && checkpoint.segment == number
                    && let Some(chain) = Chain::parse(&checkpoint.chain)
                {
                    walked.damaged |= lost;
                    lost = false;
                    walked.resume(chain, checkpoint);
                }
            }
            _ => {}
        }
        if let Some(line) = line.filter(|_| !lost) {
            walked.state.chain = walked.state.chain.after(line.json);
            walked.state.lines += 1;
            walked.state.at = lines.at as u64;
        }
        if !passed {
            break;
        }
    }
    if walked.damaged {
        walked.state.at = bytes.len() as u64;
    } else if let Some(before) = before {
        walked.index.truncate(before.events);
        walked.state = before.state;
        walked.checkpoint = before.checkpoint;
    }
    walked
}

impl Walked {
    fn head(&mut self, line: &Line<'_>) -> bool {
        let Ok(HeadLine { segment }) = serde_json::from_slice(line.json) else {
            return false;
        };
        let Some(previous) = Chain::parse(&segment.previous) else {
            return false;
        };
        let chain = previous.after(line.json);
        if chain.word() != line.word {
            return false;
        }
        self.store = Some(segment.store);
        self.state.previous = previous;
        self.state.chain = chain;
        true
    }

    /// Whether it goes on from the line before.
    fn fits(&self, number: u64, line: &Line<'_>, key: &str) -> bool {
        if self.state.sealed || self.state.chain.after(line.json).word() != line.word {
            return false;
        }
        match kind(line.json) {
            Some(Kind::Event) => serde_json::from_slice::<Keys<'_>>(line.json).is_ok(),
            Some(Kind::Checkpoint) => {
                checkpoint::read(line.json, Some(key)).is_ok_and(|checkpoint| {
                    checkpoint.segment == number && checkpoint.chain == self.state.chain.text()
                })
            }
            _ => false,
        }
    }

    fn take(&mut self, line: &Line<'_>) {
        let Ok(keys) = serde_json::from_slice::<Keys<'_>>(line.json) else {
            return;
        };
        let name = format!("{}/{}", keys.gateway, keys.queue);
        self.index.push(line.offset as u64, &keys);
        self.state.events += 1;
        let highest = self.state.gateways.entry(name).or_default();
        *highest = keys.sequence.max(*highest);
        // What is told as missing counts as if it were here, or it would be told again.
        if keys.gateway == OWN
            && let Ok(facts) = serde_json::from_slice::<Facts<'_>>(line.json)
            && let Some((queue, events)) = facts.missing()
        {
            let highest = self.state.gateways.entry(queue.to_owned()).or_default();
            *highest = highest.saturating_add(events);
        }
    }

    /// What a signed checkpoint says counts more than what was read.
    fn resume(&mut self, chain: Chain, checkpoint: Checkpoint) {
        self.state.chain = chain;
        self.state.lines = checkpoint.lines;
        self.state.events = checkpoint.events;
        self.state.checked = checkpoint.events;
        self.state.gateways.clone_from(&checkpoint.gateways);
        self.state.sealed = checkpoint.sealed;
        self.store.get_or_insert_with(|| checkpoint.store.clone());
        self.checkpoint = Some(checkpoint);
    }
}

/// From whatever of the lines can be read; the chain is not judged.
pub(super) fn remake(text: &[u8]) -> Index {
    let mut index = Index::default();
    for (line, keys) in readable(text) {
        index.push(line.offset as u64, &keys);
    }
    index
}

/// Events that can be read, whatever lies between them.
pub(super) fn readable(text: &[u8]) -> impl Iterator<Item = (Line<'_>, Keys<'_>)> {
    let mut lines = Lines::new(text);
    std::iter::from_fn(move || {
        loop {
            match lines.next() {
                Some(line) if kind(line.json) == Some(Kind::Event) => {
                    if let Ok(keys) = serde_json::from_slice(line.json) {
                        return Some((line, keys));
                    }
                }
                Some(_) => {}
                None if lines.pass_over() => {}
                None => return None,
            }
        }
    })
}
