//! The text of a segment: one line each, and the chain that holds them together.
//!
//! ```text
//! 9f86d081884c7d65 {"segment":{…}}                        the first line: number, and the chain it goes on from
//! 60303ae22b998861 {"gateway":"gw-1","queue":…}           an event
//! fd61a03af4f77d87 {"checkpoint":{…},"signature":"…"}     a signed checkpoint; the last one seals the segment
//! ```
//!
//! The chain after a line is SHA-256 of the chain before it and the line's JSON text. A line begins with the first
//! sixteen hexadecimal digits of the chain after it: enough to find a damage; what proves is the whole chain in the
//! signed checkpoints.

use aws_lc_rs::digest::{Context, SHA256, digest};
use clawgress_link::hex;
use serde::{Deserialize, Serialize};

/// Digits of the chain before each line.
pub const WORD: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Chain([u8; 32]);

impl Chain {
    /// Before the first line of the first segment.
    pub fn genesis() -> Self {
        let mut chain = [0; 32];
        chain.copy_from_slice(digest(&SHA256, b"clawgress audit chain 1").as_ref());
        Self(chain)
    }

    #[must_use]
    pub fn after(self, json: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&self.0);
        context.update(json);
        let mut chain = [0; 32];
        chain.copy_from_slice(context.finish().as_ref());
        Self(chain)
    }

    pub fn word(self) -> [u8; WORD] {
        let mut word = [0; WORD];
        for (at, byte) in self.0.iter().take(WORD / 2).enumerate() {
            word[2 * at] = DIGITS[usize::from(byte >> 4)];
            word[2 * at + 1] = DIGITS[usize::from(byte & 15)];
        }
        word
    }

    pub fn text(self) -> String {
        hex::encode(&self.0)
    }

    pub fn parse(text: &str) -> Option<Self> {
        hex::decode(text)?.try_into().ok().map(Self)
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// What a segment begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub number: u64,
    /// The chain at the end of the segment before.
    pub previous: String,
    /// Of the store.
    pub store: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct HeadLine {
    pub(crate) segment: Head,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Head,
    Checkpoint,
    Event,
}

pub fn kind(json: &[u8]) -> Option<Kind> {
    [
        (&b"{\"gateway\":"[..], Kind::Event),
        (b"{\"checkpoint\":", Kind::Checkpoint),
        (b"{\"segment\":", Kind::Head),
    ]
    .into_iter()
    .find(|(begin, _)| json.starts_with(begin))
    .map(|(_, kind)| kind)
}

/// Appends a line and returns the chain behind it.
pub(crate) fn push(chain: Chain, json: &[u8], text: &mut Vec<u8>) -> Chain {
    let after = chain.after(json);
    text.extend_from_slice(&after.word());
    text.push(b' ');
    text.extend_from_slice(json);
    text.push(b'\n');
    after
}

/// A line as it was read, its break not included.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Counts from 0, the head.
    pub number: u64,
    pub offset: usize,
    pub word: &'a [u8],
    pub json: &'a [u8],
}

/// Lines of a text, as far as they have the form of lines. What is behind the last one is `rest`.
pub struct Lines<'a> {
    text: &'a [u8],
    pub at: usize,
    number: u64,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            number: 0,
        }
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    /// Goes on behind the next line break, whatever was before it; false: there is none.
    pub fn pass_over(&mut self) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return false;
        };
        self.at += end + 1;
        self.number += 1;
        true
    }

    /// From the beginning on behind the first line break, if there is one.
    pub(crate) fn pass_over_first(&mut self) {
        *self = Self::new(self.text);
        if !self.pass_over() {
            self.at = self.text.len();
        }
    }

    pub fn number(&self) -> u64 {
        self.number
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = self.text.get(self.at..)?;
        let line = rest.get(..rest.iter().position(|byte| *byte == b'\n')?)?;
        let (word, json) = line.split_at_checked(WORD)?;
        let json = json.strip_prefix(b" ")?;
        let found = Line {
            number: self.number,
            offset: self.at,
            word,
            json,
        };
        self.at += line.len() + 1;
        self.number += 1;
        Some(found)
    }
}
