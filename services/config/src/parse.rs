//! Text to tree, for both forms: curly blocks and `set` lines, mixed as the operator likes.
//!
//! Parsing never gives up at the first error: what can be understood goes into the tree, the rest is reported
//! with its place. Size, depth and the number of reports are bounded, so no input can exhaust the machine.

use std::iter::Peekable;

use crate::lex::{Lexer, Token};
use crate::problem::{Position, Problem};
use crate::schema::{self, Place};
use crate::tree::Tree;
use crate::versions;

/// The largest text that is read.
pub const MAX_BYTES: usize = 64 << 20;
/// The most words: more would take more memory than a policy of a million domains needs.
const MAX_WORDS: usize = 4_000_000;
/// The longest path.
pub const MAX_DEPTH: usize = 16;
/// After this many problems the rest says nothing new.
pub(crate) const MAX_PROBLEMS: usize = 50;

/// What a text held: the tree of all that was understood, and what was not.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    pub tree: Tree,
    pub problems: Vec<Problem>,
    /// Reading stopped before the end; what the rest would have said is unknown.
    pub cut_short: bool,
}

impl Parsed {
    fn unreadable(problem: Problem) -> Self {
        Self {
            tree: Tree::default(),
            problems: vec![problem],
            cut_short: true,
        }
    }
}

/// Parses any bytes; the entry point for fuzzing.
pub fn parse(bytes: &[u8]) -> Parsed {
    let text = match text_of(bytes, MAX_BYTES, "configuration") {
        Ok(text) => text,
        Err(problem) => return Parsed::unreadable(problem),
    };
    let version = match versions::of(text) {
        Ok(version) => version,
        Err(problem) => return Parsed::unreadable(problem),
    };
    let parsed = parse_text(text, MAX_WORDS);
    Parsed {
        tree: versions::to_newest(version, parsed.tree),
        ..parsed
    }
}

fn parse_text(text: &str, most_words: usize) -> Parsed {
    let mut parser = Parser {
        tokens: Lexer::new(text).peekable(),
        blocks: Vec::new(),
        statement: Vec::new(),
        words_left: most_words,
        out: Parsed::default(),
    };
    parser.run();
    parser.out
}

/// The bytes as text, if they are at most `most` and UTF-8. `noun` is what they should be.
pub(crate) fn text_of<'b>(bytes: &'b [u8], most: usize, noun: &str) -> Result<&'b str, Problem> {
    let whole = |what: String, fix: &str| Problem::new(&[], None, what, fix);
    if bytes.len() > most {
        return Err(whole(
            format!("the {noun} is larger than {most} bytes"),
            &format!("check that the file is a {noun} at all"),
        ));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(whole("the text is UTF-16".into(), "save the file as UTF-8"));
    }
    // An editor's byte order mark is no part of the text.
    let bytes = bytes.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let position = Position {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        };
        Problem::new(
            &[],
            Some(position),
            "this byte is not UTF-8 text",
            "save the file as plain UTF-8 text",
        )
    })
}

type Word = (String, Position);

struct Block {
    /// Words of this block's own head; the full path is all heads in a row.
    head: Vec<Word>,
    place: Place,
    opened: Position,
}

struct Parser<'t> {
    tokens: Peekable<Lexer<'t>>,
    blocks: Vec<Block>,
    statement: Vec<Word>,
    words_left: usize,
    out: Parsed,
}

impl Parser<'_> {
    fn run(&mut self) {
        while let Some((at, token)) = self.tokens.next() {
            if self.out.problems.len() >= MAX_PROBLEMS {
                self.out.cut_short = true;
            }
            if self.out.cut_short {
                return;
            }
            match token {
                Token::Word { text, quoted } => self.word(text, quoted, at),
                Token::Open => self.open(at),
                Token::Close => self.close(at),
                Token::End { newline } => {
                    // A brace on a line of its own still belongs to the head before it.
                    let brace_follows = newline && self.brace_follows();
                    if !brace_follows {
                        self.finish();
                    }
                }
                Token::Bad { what, fix } => {
                    self.problem(at, what, fix);
                    self.statement.clear();
                }
            }
        }
        self.finish();
        while let Some(block) = self.blocks.pop() {
            let path = self.path_with(&block.head);
            let words: Vec<&str> = path.iter().map(String::as_str).collect();
            self.out.problems.push(Problem::new(
                &words,
                Some(block.opened),
                "this { is never closed",
                "add the missing }",
            ));
        }
    }

    fn brace_follows(&mut self) -> bool {
        if self.statement.is_empty() {
            return false;
        }
        while self
            .tokens
            .peek()
            .is_some_and(|(_, token)| *token == Token::End { newline: true })
        {
            self.tokens.next();
        }
        self.tokens
            .peek()
            .is_some_and(|(_, token)| *token == Token::Open)
    }

    fn place(&self) -> Place {
        let block = self
            .blocks
            .last()
            .map_or_else(schema::root, |block| block.place);
        self.statement
            .iter()
            .fold(block, |place, (word, _)| place.step(word))
    }

    fn path_with(&self, more: &[Word]) -> Vec<String> {
        let heads = self.blocks.iter().flat_map(|block| &block.head);
        heads.chain(more).map(|(word, _)| word.clone()).collect()
    }

    fn depth(&self) -> usize {
        self.blocks
            .iter()
            .map(|block| block.head.len())
            .sum::<usize>()
            + self.statement.len()
    }

    fn problem(&mut self, at: Position, what: impl Into<String>, fix: impl Into<String>) {
        let path = self.path_with(&self.statement);
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        self.out
            .problems
            .push(Problem::new(&words, Some(at), what, fix));
    }

    fn word(&mut self, text: String, quoted: bool, at: Position) {
        if !quoted && text == "set" && self.statement.is_empty() && self.blocks.is_empty() {
            self.set_line(at);
            return;
        }
        if !self.push((text, at)) {
            return;
        }
        // A value ends its statement, so several fit on a line: `address dhcp  role wan`.
        let complete = matches!(self.place(), Place::End);
        let head = self
            .tokens
            .peek()
            .is_some_and(|(_, token)| *token == Token::Open);
        if complete && !head {
            self.finish();
        }
    }

    /// False if the path became too long; the rest of the text is then not read.
    fn push(&mut self, word: Word) -> bool {
        let at = word.1;
        let Some(left) = self.words_left.checked_sub(1) else {
            self.problem(
                at,
                format!("the configuration has more than {MAX_WORDS} words"),
                "check that the file is a configuration at all",
            );
            self.abandon();
            return false;
        };
        self.words_left = left;
        if self.depth() < MAX_DEPTH {
            self.statement.push(word);
            return true;
        }
        self.problem(
            at,
            format!("this path is longer than {MAX_DEPTH} words"),
            "check for a missing } or line end",
        );
        self.abandon();
        false
    }

    /// Stops reading: what follows a path that never ends would be guesswork.
    fn abandon(&mut self) {
        self.statement.clear();
        self.blocks.clear();
        self.out.cut_short = true;
    }

    /// `set` and a path, up to the end of the line; every word belongs to it.
    fn set_line(&mut self, set: Position) {
        while let Some((at, token)) = self.tokens.next() {
            match token {
                Token::Word { text, .. } => {
                    if !self.push((text, at)) {
                        return;
                    }
                }
                Token::End { .. } => break,
                Token::Open | Token::Close => {
                    self.problem(
                        at,
                        "a brace stands in a set line",
                        "write either set lines or blocks with braces",
                    );
                    self.statement.clear();
                    self.skip_statement();
                    return;
                }
                Token::Bad { what, fix } => {
                    self.problem(at, what, fix);
                    self.statement.clear();
                    self.skip_statement();
                    return;
                }
            }
        }
        if self.statement.is_empty() {
            self.problem(set, "`set` has no path", "write set <path> <value>");
        }
        self.finish();
    }

    fn skip_statement(&mut self) {
        while self
            .tokens
            .next()
            .is_some_and(|(_, token)| !matches!(token, Token::End { .. }))
        {}
    }

    fn open(&mut self, at: Position) {
        if self.statement.is_empty() {
            self.problem(
                at,
                "a { stands without a name before it",
                "write the name of the block before its {",
            );
        }
        if self.blocks.len() >= MAX_DEPTH {
            self.problem(
                at,
                format!("blocks are nested deeper than {MAX_DEPTH}"),
                "check for a missing }",
            );
            self.abandon();
            return;
        }
        let place = self.place();
        self.insert();
        let head = std::mem::take(&mut self.statement);
        self.blocks.push(Block {
            head,
            place,
            opened: at,
        });
    }

    fn close(&mut self, at: Position) {
        self.finish();
        if self.blocks.pop().is_none() {
            self.problem(
                at,
                "this } closes nothing",
                "remove it, or add the { that it belongs to",
            );
        }
    }

    fn finish(&mut self) {
        if !self.statement.is_empty() {
            self.insert();
            self.statement.clear();
        }
    }

    fn insert(&mut self) {
        let Self {
            blocks,
            statement,
            out,
            ..
        } = self;
        let heads = blocks.iter().flat_map(|block| &block.head);
        out.tree.insert(
            heads
                .chain(statement.iter())
                .map(|(word, at)| (word.as_str(), Some(*at))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_words_is_bounded() {
        assert!(parse_text("set system host-name a", 3).problems.is_empty());
        for text in ["set system host-name a", "system { host-name a }\n}"] {
            let parsed = parse_text(text, 2);
            assert!(parsed.cut_short);
            assert_eq!(parsed.problems.len(), 1);
            assert!(
                parsed.problems[0].what.contains("words"),
                "{}",
                parsed.problems[0]
            );
        }
    }
}
