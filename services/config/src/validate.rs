//! Judges a tree against the schema and the rules between paths, and collects every problem, not only the first.

use crate::cross;
use crate::document::Document;
use crate::nearest::nearest;
use crate::parse::MAX_PROBLEMS;
use crate::problem::{Position, Problem};
use crate::schema::{self, Entry, Kind, Level, Place, Value};
use crate::tree::{Node, Tree};

/// What validation found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    pub problems: Vec<Problem>,
    /// Allowed, but probably not what was wanted.
    pub warnings: Vec<Problem>,
    /// What could be understood; the whole of it only if there are no problems.
    pub document: Document,
}

/// Words that people type at a console and paste into files.
const CONSOLE_WORDS: &[&str] = &[
    "configure",
    "commit",
    "save",
    "exit",
    "delete",
    "show",
    "edit",
    "run",
];

pub fn validate(tree: &Tree) -> Verdict {
    let mut problems = shape(tree);
    let (document, read) = Document::read(tree);
    problems.extend(read);
    let doubt = problems
        .iter()
        .any(|problem| problem.concerns("service clawgress"));
    let (crossed, warnings) = cross::check(&document, tree, doubt);
    problems.extend(crossed);
    // In the order of the text, where it is known, people correct a file from top to bottom.
    problems.sort_by_key(|problem| {
        problem
            .position
            .map_or((u32::MAX, 0), |at| (at.line, at.column))
    });
    problems.truncate(MAX_PROBLEMS);
    Verdict {
        problems,
        warnings,
        document,
    }
}

/// What is wrong with the words and values of a tree by themselves, whatever else it lacks.
pub(crate) fn shape(tree: &Tree) -> Vec<Problem> {
    let mut judge = Judge {
        problems: Vec::new(),
        path: Vec::new(),
    };
    judge.level(tree.root(), schema::root());
    judge.problems
}

struct Judge {
    problems: Vec<Problem>,
    path: Vec<String>,
}

impl Judge {
    fn report(&mut self, at: Option<Position>, what: impl Into<String>, fix: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let words: Vec<&str> = self.path.iter().map(String::as_str).collect();
            self.problems.push(Problem::new(&words, at, what, fix));
        }
    }

    fn level(&mut self, node: &Node, place: Place) {
        let Place::Inside(level) = place else { return };
        for (word, child) in node.in_order() {
            let below = place.step(word);
            let literal = level.words().any(|known| known == word);
            if matches!(below, Place::Unknown) {
                self.unknown(word, child, node, level, place);
                continue;
            }
            self.path.push(word.to_owned());
            if !literal && let Some(value) = level.names() {
                self.value(value, word, child);
            }
            match below {
                Place::Leaf(entry) => self.leaf(entry, child),
                Place::End => self.flag(word, child),
                _ if child.is_leaf()
                    && matches!(below, Place::Inside(l) if l.names().is_some()) =>
                {
                    let syntax = below
                        .next()
                        .first()
                        .map_or_else(String::new, |next| next.word.clone());
                    self.report(
                        child.position(),
                        "a name is missing",
                        format!("write {word} {syntax}"),
                    );
                }
                _ => self.level(child, below),
            }
            self.path.pop();
        }
    }

    fn leaf(&mut self, entry: &'static Entry, node: &Node) {
        let (Kind::One(value) | Kind::Many(value)) = entry.kind else {
            return;
        };
        let values = node.in_order();
        if values.is_empty() {
            self.report(
                node.position(),
                "the value is missing",
                format!("write {}", value.syntax()),
            );
        }
        if values.len() > 1 && matches!(entry.kind, Kind::One(_)) {
            let second = values[1].1.position();
            let given: Vec<_> = values
                .iter()
                .take(4)
                .map(|(word, _)| format!("`{word}`"))
                .collect();
            self.report(
                second,
                format!("takes one value, given are {}", given.join(", ")),
                "keep one of them",
            );
        }
        for (word, child) in values {
            self.value(value, word, child);
            if let Some((extra, extra_node)) = child.in_order().first() {
                let fix = if matches!(value, Value::Text | Value::Label) {
                    "put a text with spaces in double quotes"
                } else {
                    "remove it; each value is written on a line of its own"
                };
                self.report(
                    extra_node.position(),
                    format!("nothing can follow the value, found `{extra}`"),
                    fix,
                );
            }
        }
    }

    fn flag(&mut self, word: &str, node: &Node) {
        if let Some((extra, extra_node)) = node.in_order().first() {
            self.report(
                extra_node.position(),
                format!("{word} takes no value, found `{extra}`"),
                format!("write {word} alone, or delete it"),
            );
        }
    }

    fn value(&mut self, value: Value, word: &str, node: &Node) {
        if let Err(wrong) = value.check(word) {
            self.report(node.position(), wrong.what, wrong.right);
        }
    }

    fn unknown(
        &mut self,
        word: &str,
        node: &Node,
        siblings: &Node,
        level: &'static Level,
        place: Place,
    ) {
        let at = node.position();
        let what = format!("`{word}` is not known here");
        let console = self.path.is_empty() && CONSOLE_WORDS.contains(&word);
        let fix = if console {
            "leave console commands out; a configuration holds blocks and set lines only".to_owned()
        } else if follows_text(at, siblings, place) {
            "put a text with spaces in double quotes".to_owned()
        } else if let Some(near) = nearest(word, level.words()) {
            format!("did you mean {near}?")
        } else {
            let known: Vec<_> = level.words().collect();
            format!("known here: {}", known.join(", "))
        };
        self.report(at, what, fix);
    }
}

fn is_text(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::One(Value::Text | Value::Label))
}

/// True if an unquoted text leaf stands before `at` on the same line: the unknown word is the text's second one.
fn follows_text(at: Option<Position>, siblings: &Node, place: Place) -> bool {
    let Some(at) = at else { return false };
    siblings
        .in_order()
        .into_iter()
        .filter(|(word, _)| matches!(place.step(word), Place::Leaf(entry) if is_text(entry)))
        .flat_map(|(_, leaf)| leaf.in_order())
        .filter_map(|(_, value)| value.position())
        .any(|text| text.line == at.line && text.column < at.column)
}
