//! Tree to text, in both forms, in one canonical order: groups as in the table, names sorted, values as written.
//!
//! Whatever the tree holds, parsing the text again gives the same tree.

use crate::lex::needs_quotes;
use crate::parse::VERSION;
use crate::schema::{self, Place};
use crate::tree::{Node, Tree};

/// A word as it has to be written.
fn word(text: &str) -> String {
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

/// Children in canonical order.
fn ordered(node: &Node, place: Place) -> Vec<(&str, &Node)> {
    match place {
        Place::Leaf(_) => node.in_order(),
        Place::Inside(level) => {
            let mut children = node.sorted();
            let known: Vec<_> = level.words().collect();
            // Stable: names and unknown words keep their sorted order behind the known ones.
            children.sort_by_key(|(word, _)| {
                known
                    .iter()
                    .position(|known| known == word)
                    .unwrap_or(known.len())
            });
            children
        }
        Place::End | Place::Unknown => node.sorted(),
    }
}

/// The tree as blocks with braces.
pub fn curly(tree: &Tree) -> String {
    let mut text = header();
    blocks(&mut text, tree.root(), schema::root(), 0);
    text
}

fn blocks(text: &mut String, node: &Node, place: Place, depth: usize) {
    for (name, child) in ordered(node, place) {
        let below = place.step(name);
        // At the top a bare `set` would begin a set line.
        let name = if depth == 0 && name == "set" {
            "\"set\"".to_owned()
        } else {
            word(name)
        };
        match below {
            _ if child.is_leaf() => line(text, depth, &[&name]),
            Place::Leaf(_) if child.in_order().iter().all(|(_, value)| value.is_leaf()) => {
                for (value, _) in child.in_order() {
                    line(text, depth, &[&name, &word(value)]);
                }
            }
            // A word before names is written with each name: `ethernet eth0 {`.
            Place::Inside(level) if level.names().is_some() => {
                for (instance, inner) in ordered(child, below) {
                    let head = [name.as_str(), &word(instance)];
                    block(text, inner, below.step(instance), depth, &head);
                }
            }
            _ => block(text, child, below, depth, &[&name]),
        }
    }
}

fn block(text: &mut String, node: &Node, place: Place, depth: usize, head: &[&str]) {
    if node.is_leaf() {
        return line(text, depth, head);
    }
    line(text, depth, &[head, &["{"]].concat());
    blocks(text, node, place, depth + 1);
    line(text, depth, &["}"]);
}

fn line(text: &mut String, depth: usize, words: &[&str]) {
    text.push_str(&"    ".repeat(depth));
    text.push_str(&words.join(" "));
    text.push('\n');
}

/// The tree as `set` lines.
pub fn set_lines(tree: &Tree) -> String {
    let mut text = header();
    lines(&mut text, tree.root(), schema::root(), "set");
    text
}

fn lines(text: &mut String, node: &Node, place: Place, before: &str) {
    for (name, child) in ordered(node, place) {
        let line = format!("{before} {}", word(name));
        if child.is_leaf() {
            text.push_str(&line);
            text.push('\n');
        } else {
            lines(text, child, place.step(name), &line);
        }
    }
}
