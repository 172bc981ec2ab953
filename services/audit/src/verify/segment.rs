//! One segment, line by line.

use super::{Chain, HeadLine, Kind, Line, Lines, Walk, kind};

/// What a first line has shown.
enum Head {
    Good(Chain),
    /// What lies behind it may still be of this store.
    Spoiled,
    Foreign,
}

impl Walk {
    pub(super) fn segment(&mut self, number: u64, name: &str, bytes: &[u8]) {
        self.report.segments += 1;
        self.shift = 0;
        let before = self.before.take();
        let mut lines = Lines::new(bytes);
        // After a fault the chain is taken up again at the next checkpoint that is signed.
        let (mut chain, mut broken) = match self.head(number, name, lines.next(), before) {
            Head::Good(chain) => (chain, false),
            Head::Spoiled => {
                lines.pass_over_first();
                (Chain::genesis(), true)
            }
            Head::Foreign => return,
        };
        let mut sealed = false;
        loop {
            if broken {
                self.queues = None;
            }
            let Some(line) = lines.next() else {
                if lines.is_at_end() {
                    break;
                }
                let (at, number) = (lines.at, lines.number() + 1);
                if !broken {
                    self.fault(
                        name,
                        Some(number),
                        Some(at),
                        "it is not a whole line".to_owned(),
                    );
                }
                broken = true;
                if lines.pass_over() {
                    continue;
                }
                break;
            };
            if sealed {
                self.fault(
                    name,
                    Some(line.number + 1),
                    Some(line.offset),
                    "a line behind the seal".to_owned(),
                );
                return;
            }
            let after = chain.after(line.json);
            let fits = after.word() == line.word;
            if !broken && !fits {
                let what = "the chain breaks here: this line was changed, or lines before it were removed, added or moved";
                self.fault(
                    name,
                    Some(line.number + 1),
                    Some(line.offset),
                    what.to_owned(),
                );
                broken = true;
            }
            match kind(line.json) {
                Some(Kind::Event) => {
                    if !broken {
                        self.follow(name, &line);
                    }
                    self.report.events += 1;
                    self.report.unsigned += 1;
                    chain = after;
                }
                Some(Kind::Checkpoint) => {
                    let resumed = self.signed(number, name, &line, chain, &mut broken, &mut sealed);
                    chain = resumed.unwrap_or(chain).after(line.json);
                }
                other => {
                    if !broken {
                        let what = match other {
                            Some(Kind::Head) => "the first line of a segment in the middle of one",
                            _ => "it is neither an event nor a checkpoint",
                        };
                        self.fault(
                            name,
                            Some(line.number + 1),
                            Some(line.offset),
                            what.to_owned(),
                        );
                    }
                    broken = true;
                    chain = after;
                }
            }
        }
        self.end_of(number, name, chain, broken, sealed);
    }

    fn end_of(&mut self, number: u64, name: &str, chain: Chain, broken: bool, sealed: bool) {
        if !sealed && !self.is_last {
            self.fault(
                name,
                None,
                None,
                "it has no seal, and a segment follows: its checkpoints were removed".to_owned(),
            );
        }
        // Behind a fault that no checkpoint closed, nothing is known of the end; the next one is not held against it.
        if broken {
            self.queues = None;
            self.before = None;
            self.skipped = Some(number);
            self.counted = false;
        } else {
            self.before = Some((number, chain));
        }
    }

    fn head(
        &mut self,
        number: u64,
        name: &str,
        head: Option<Line<'_>>,
        before: Option<(u64, Chain)>,
    ) -> Head {
        let fault = |walk: &mut Self, what: String| {
            walk.fault(name, Some(1), Some(0), what);
            walk.skipped = Some(number);
            walk.counted = false;
            walk.queues = None;
        };
        let Some(head) = head else {
            fault(self, "it has no first line".to_owned());
            return Head::Spoiled;
        };
        let parsed = serde_json::from_slice::<HeadLine>(head.json).ok();
        let parsed =
            parsed.and_then(|line| Some((Chain::parse(&line.segment.previous)?, line.segment)));
        let Some((previous, about)) = parsed else {
            fault(self, "it does not begin as a segment does".to_owned());
            return Head::Spoiled;
        };
        if about.number != number {
            fault(
                self,
                format!(
                    "it is segment {} under the name of segment {number}: segments were swapped",
                    about.number
                ),
            );
            return Head::Foreign;
        }
        let store = self.store.get_or_insert_with(|| about.store.clone());
        if *store != about.store {
            fault(
                self,
                format!("it belongs to another store, {}", about.store),
            );
            return Head::Foreign;
        }
        match before {
            Some((before, end)) if end != previous => {
                self.fault(name, Some(1), Some(0), format!("its chain does not go on from segment {before}: that one or this one was replaced, or its end was cut off"));
            }
            None if number == 1 && previous != Chain::genesis() => {
                self.fault(
                    name,
                    Some(1),
                    Some(0),
                    "its chain does not begin where a store's does".to_owned(),
                );
            }
            _ => {}
        }
        let chain = previous.after(head.json);
        if chain.word() != head.word {
            self.fault(
                name,
                Some(1),
                Some(0),
                "its first line was changed".to_owned(),
            );
            self.counted = false;
            return Head::Spoiled;
        }
        Head::Good(chain)
    }

    /// Holds a checkpoint against what was read; returns the chain to go on from.
    fn signed(
        &mut self,
        number: u64,
        name: &str,
        line: &Line<'_>,
        chain: Chain,
        broken: &mut bool,
        sealed: &mut bool,
    ) -> Option<Chain> {
        let place = (Some(line.number + 1), Some(line.offset));
        let checkpoint = match self.checkpoint(line.json) {
            Ok(checkpoint) => checkpoint,
            Err(what) => {
                self.fault(name, place.0, place.1, what);
                return None;
            }
        };
        let next = self
            .last_checkpoint
            .as_ref()
            .map_or(1, |last| last.number + 1);
        if self.counted && !*broken && checkpoint.number != next {
            self.fault(
                name,
                place.0,
                place.1,
                format!(
                    "checkpoint {}, and {next} would be next: checkpoints were removed",
                    checkpoint.number
                ),
            );
        }
        let since = self.last_checkpoint.as_ref().map_or(1, |last| {
            if last.segment == number {
                last.lines + 2
            } else {
                1
            }
        });
        if checkpoint.segment != number {
            self.fault(
                name,
                place.0,
                place.1,
                format!("a checkpoint of segment {}", checkpoint.segment),
            );
        } else if !*broken {
            if checkpoint.chain != chain.text() {
                self.fault(
                    name,
                    place.0,
                    place.1,
                    format!(
                        "the signed chain is another: lines {since} to {} were written anew",
                        line.number
                    ),
                );
            } else if checkpoint.lines != line.number.wrapping_add(self.shift) {
                self.fault(
                    name,
                    place.0,
                    place.1,
                    format!(
                        "it speaks of {} lines before it, and there are {}",
                        checkpoint.lines, line.number
                    ),
                );
            } else if self.counted && checkpoint.events != self.report.events {
                self.fault(
                    name,
                    place.0,
                    place.1,
                    format!(
                        "it speaks of {} events, and there are {}",
                        checkpoint.events, self.report.events
                    ),
                );
            }
        }
        if *broken {
            self.shift = checkpoint.lines.wrapping_sub(line.number);
        }
        *broken = false;
        self.counted = true;
        if self.queues.is_none() {
            self.resume_queues(&checkpoint);
        }
        *sealed = checkpoint.sealed;
        self.report.events = checkpoint.events;
        self.report.unsigned = 0;
        let signed = Chain::parse(&checkpoint.chain);
        self.last_checkpoint = Some(checkpoint);
        signed
    }
}
