//! Tree to text, in both forms, in one canonical order: groups as in the table, names sorted, values as written.
//!
//! Whatever the tree holds, parsing the text again gives the same tree. With a second tree to compare with, each line
//! says in its first column whether it was added (+), removed (-) or changed (>).

use crate::lex::needs_quotes;
use crate::schema::{self, Kind, Place};
use crate::tree::{Node, Tree};
use crate::versions::VERSION;

/// A word as it has to be written.
pub(crate) fn word(text: &str) -> String {
    if needs_quotes(text) {
        format!(
            "\"{}\"",
            text.replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n")
        )
    } else {
        text.to_owned()
    }
}

fn header() -> String {
    format!("// clawgress-config {VERSION}\n")
}

/// One place in two trees; in at least one of them there is something.
#[derive(Clone, Copy)]
pub(crate) struct Pair<'t> {
    pub(crate) old: Option<&'t Node>,
    pub(crate) new: Option<&'t Node>,
}

impl<'t> Pair<'t> {
    pub(crate) fn get(self, word: &str) -> Self {
        Self {
            old: self.old.and_then(|node| node.get(word)),
            new: self.new.and_then(|node| node.get(word)),
        }
    }

    pub(crate) fn is_leaf(self) -> bool {
        self.old.is_none_or(Node::is_leaf) && self.new.is_none_or(Node::is_leaf)
    }

    pub(crate) fn mark(self) -> char {
        match (self.old, self.new) {
            (None, Some(_)) => '+',
            (Some(_), None) => '-',
            _ => ' ',
        }
    }

    /// Children of either tree in canonical order.
    pub(crate) fn ordered(self, place: Place) -> Vec<&'t str> {
        let of = |node: Option<&'t Node>| match (node, place) {
            (None, _) => Vec::new(),
            (Some(node), Place::Leaf(_)) => node.in_order(),
            (Some(node), _) => node.sorted(),
        };
        let mut words: Vec<&str> = of(self.new).into_iter().map(|(word, _)| word).collect();
        let only_old = of(self.old)
            .into_iter()
            .map(|(word, _)| word)
            .filter(|word| self.new.is_none_or(|node| node.get(word).is_none()));
        let before = words.len();
        words.extend(only_old);
        if let Place::Inside(level) = place {
            if words.len() > before && before > 0 {
                crate::tree::sort_words(&mut words);
            }
            let known: Vec<_> = level.words().collect();
            // Stable: names and unknown words keep their sorted order behind the known ones.
            words.sort_by_key(|word| {
                known
                    .iter()
                    .position(|known| known == word)
                    .unwrap_or(known.len())
            });
        }
        words
    }

    /// The new value of a leaf that has one value in each tree, if they differ.
    pub(crate) fn changed_value(self, place: Place) -> Option<&'t str> {
        let Place::Leaf(entry) = place else {
            return None;
        };
        let single = |node: Option<&'t Node>| match node?.in_order().as_slice() {
            [(value, below)] if below.is_leaf() => Some(*value),
            _ => None,
        };
        let (old, new) = (single(self.old)?, single(self.new)?);
        (matches!(entry.kind, Kind::One(_)) && old != new).then_some(new)
    }
}

/// Text in the making.
pub(crate) struct Printer {
    pub(crate) text: String,
    /// Whether lines begin with their mark.
    pub(crate) marks: bool,
}

impl Printer {
    fn line(&mut self, mark: char, depth: usize, words: &[&str]) {
        if self.marks {
            self.text.push(mark);
            self.text.push(' ');
        }
        for _ in 0..depth {
            self.text.push_str("    ");
        }
        for (at, word) in words.iter().enumerate() {
            if at > 0 {
                self.text.push(' ');
            }
            self.text.push_str(word);
        }
        self.text.push('\n');
    }

    pub(crate) fn blocks(&mut self, pair: Pair<'_>, place: Place, depth: usize, is_root: bool) {
        for name in pair.ordered(place) {
            self.child(name, pair.get(name), place.step(name), depth, is_root);
        }
    }

    /// `is_root`: the line will stand at the top of a text.
    pub(crate) fn child(
        &mut self,
        name: &str,
        child: Pair<'_>,
        below: Place,
        depth: usize,
        is_root: bool,
    ) {
        // At the top a bare `set` would begin a set line.
        let name = if is_root && name == "set" {
            "\"set\"".to_owned()
        } else {
            word(name)
        };
        if let Some(value) = child.changed_value(below) {
            return self.line('>', depth, &[&name, &word(value)]);
        }
        if child.is_leaf() {
            return self.line(child.mark(), depth, &[&name]);
        }
        match below {
            Place::Leaf(_) if all_leaves(child, below) => {
                for value in child.ordered(below) {
                    let mark = child.get(value).mark();
                    self.line(mark, depth, &[&name, &word(value)]);
                }
            }
            // A word before names is written with each name: `ethernet eth0 {`.
            Place::Inside(level) if level.names().is_some() => {
                for instance in child.ordered(below) {
                    let head = [name.as_str(), &word(instance)];
                    self.block(child.get(instance), below.step(instance), depth, &head);
                }
            }
            _ => self.block(child, below, depth, &[&name]),
        }
    }

    pub(crate) fn block(&mut self, pair: Pair<'_>, place: Place, depth: usize, head: &[&str]) {
        if pair.is_leaf() {
            return self.line(pair.mark(), depth, head);
        }
        self.line(pair.mark(), depth, &[head, &["{"]].concat());
        self.blocks(pair, place, depth + 1, false);
        self.line(pair.mark(), depth, &["}"]);
    }
}

fn all_leaves(pair: Pair<'_>, place: Place) -> bool {
    pair.ordered(place)
        .into_iter()
        .all(|value| pair.get(value).is_leaf())
}

/// The tree as blocks with braces.
pub fn curly(tree: &Tree) -> String {
    let mut printer = Printer {
        text: header(),
        marks: false,
    };
    let root = Pair {
        old: None,
        new: Some(tree.root()),
    };
    printer.blocks(root, schema::root(), 0, true);
    printer.text
}

/// The tree as `set` lines.
pub fn set_lines(tree: &Tree) -> String {
    let mut text = header();
    lines(&mut text, tree.root(), schema::root(), "set");
    text
}

/// A line for each path below `before`.
pub(crate) fn lines(text: &mut String, node: &Node, place: Place, before: &str) {
    let pair = Pair {
        old: None,
        new: Some(node),
    };
    for name in pair.ordered(place) {
        let Some(child) = node.get(name) else {
            continue;
        };
        let line = format!("{before} {}", word(name));
        if child.is_leaf() {
            text.push_str(&line);
            text.push('\n');
        } else {
            lines(text, child, place.step(name), &line);
        }
    }
}
