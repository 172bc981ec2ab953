//! What differs between two trees, for people and as the commands that lead from one to the other.

use crate::print::{Pair, Printer, lines, word};
use crate::schema::{self, Place};
use crate::tree::Tree;

/// A section for each place at which something differs: its path in brackets, then its lines with + and -.
pub(crate) fn sections(old: &Tree, new: &Tree) -> String {
    let mut text = String::new();
    let root = Pair {
        old: Some(old.root()),
        new: Some(new.root()),
    };
    section(&mut text, root, schema::root(), &mut Vec::new());
    text
}

fn section<'t>(text: &mut String, pair: Pair<'t>, place: Place, path: &mut Vec<&'t str>) {
    if pair.old == pair.new {
        return;
    }
    let mut own = Printer {
        text: String::new(),
        marks: true,
    };
    let mut below: Vec<(Vec<&str>, Pair<'_>, Place)> = Vec::new();
    for name in pair.ordered(place) {
        let (child, at) = (pair.get(name), place.step(name));
        if child.old == child.new {
            continue;
        }
        if child.mark() != ' ' {
            own.child(name, child, at, 0, path.is_empty());
            continue;
        }
        match at {
            Place::Leaf(_) => values(&mut own, name, child, at),
            // A word before names stands on the line of each name.
            Place::Inside(level) if level.names().is_some() => {
                for instance in child.ordered(at) {
                    let (inner, in_it) = (child.get(instance), at.step(instance));
                    if inner.mark() == ' ' {
                        below.push((vec![name, instance], inner, in_it));
                    } else {
                        own.block(inner, in_it, 0, &[name, &word(instance)]);
                    }
                }
            }
            _ => below.push((vec![name], child, at)),
        }
    }
    if !own.text.is_empty() {
        if !path.is_empty() {
            let words: Vec<_> = path.iter().map(|part| word(part)).collect();
            text.push_str(&format!("[{}]\n", words.join(" ")));
        }
        text.push_str(&own.text);
    }
    for (names, child, at) in below {
        path.extend(&names);
        section(text, child, at, path);
        path.truncate(path.len() - names.len());
    }
}

/// The values of a leaf that are not in both trees.
fn values(own: &mut Printer, name: &str, leaf: Pair<'_>, place: Place) {
    for value in leaf.ordered(place) {
        let below = leaf.get(value);
        let mark = below.mark();
        if mark != ' ' {
            own.text
                .push_str(&format!("{mark} {} {}\n", word(name), word(value)));
        }
    }
}

/// `delete` and `set` lines that make `new` of `old`.
pub(crate) fn commands(old: &Tree, new: &Tree) -> String {
    let mut text = String::new();
    let root = Pair {
        old: Some(old.root()),
        new: Some(new.root()),
    };
    deletes(&mut text, root, schema::root(), "delete");
    sets(&mut text, root, schema::root(), "set");
    text
}

fn deletes(text: &mut String, pair: Pair<'_>, place: Place, before: &str) {
    if pair.old == pair.new {
        return;
    }
    for name in pair.ordered(place) {
        let (child, at) = (pair.get(name), place.step(name));
        let line = format!("{before} {}", word(name));
        match (child.old, child.new) {
            (Some(_), None) => {
                text.push_str(&line);
                text.push('\n');
            }
            // `set` replaces a single value.
            (Some(_), Some(_)) if child.changed_value(at).is_none() => {
                deletes(text, child, at, &line)
            }
            _ => {}
        }
    }
}

fn sets(text: &mut String, pair: Pair<'_>, place: Place, before: &str) {
    if pair.old == pair.new {
        return;
    }
    for name in pair.ordered(place) {
        let (child, at) = (pair.get(name), place.step(name));
        let line = format!("{before} {}", word(name));
        match (child.old, child.new) {
            // Had it children and lost them all, it is written itself; a leaf that was there is no news.
            (old, Some(new)) if new.is_leaf() && old.is_none_or(|old| !old.is_leaf()) => {
                text.push_str(&line);
                text.push('\n');
            }
            (None, Some(new)) => lines(text, new, at, &line),
            (Some(_), Some(_)) => sets(text, child, at, &line),
            _ => {}
        }
    }
}
