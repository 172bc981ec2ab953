//! The schema as a tree, built once from the table: where a path may go, and what comes next there.
//!
//! Everything that needs to know a path asks here. Nothing outside the table names a path as a rule of syntax.

use std::sync::LazyLock;

pub use crate::table::TABLE;
pub use crate::value::Value;

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub path: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub default: Option<&'static str>,
    pub complete: Complete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Holds other words.
    Group,
    /// A name chosen by the operator, below the word before it; holds other words.
    Named(Value),
    /// Takes no value: it is there or not.
    Flag,
    /// Takes one value.
    One(Value),
    /// Takes any number of values.
    Many(Value),
}

/// Where a console finds proposals beyond the syntax itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complete {
    Nothing,
    Words(&'static [&'static str]),
    /// The cards that this machine has.
    Cards,
    TimeZones,
}

/// A place in the schema that a path leads to.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// A group, a name, or the root: a word of the schema or a name follows.
    Inside(&'static Level),
    /// A leaf: its value follows.
    Leaf(&'static Entry),
    /// Behind a value or a flag: nothing follows.
    End,
    /// The path left the schema.
    Unknown,
}

/// The words known at one place.
#[derive(Debug, Default)]
pub struct Level {
    words: Vec<(&'static str, Level)>,
    /// The entry that led here and, for a word before names, the entry of the names.
    entry: Option<&'static Entry>,
    named: Option<(&'static Entry, Box<Level>)>,
}

/// A word that may come next, for completion, help and errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    pub word: String,
    pub help: &'static str,
    /// False when `word` shows a syntax such as `eth<number>`.
    pub literal: bool,
}

static SCHEMA: LazyLock<Level> = LazyLock::new(|| {
    let mut root = Level::default();
    for entry in TABLE {
        root.add(entry);
    }
    root
});

/// Where every path begins.
pub fn root() -> Place {
    Place::Inside(&SCHEMA)
}

/// Where a whole path leads.
pub fn place(path: &[&str]) -> Place {
    path.iter().fold(root(), |place, word| place.step(word))
}

impl Level {
    fn add(&mut self, entry: &'static Entry) {
        let mut level = self;
        for segment in entry.path.split(' ') {
            level = if segment.starts_with('<') {
                &mut level.named.get_or_insert_with(|| (entry, Box::default())).1
            } else {
                let known = level.words.iter().position(|(word, _)| *word == segment);
                let at = known.unwrap_or_else(|| {
                    level.words.push((segment, Self::default()));
                    level.words.len() - 1
                });
                &mut level.words[at].1
            };
        }
        level.entry = Some(entry);
    }

    /// What the names at this place must be, if names follow here.
    pub fn names(&self) -> Option<Value> {
        match self.named.as_ref()?.0.kind {
            Kind::Named(value) => Some(value),
            Kind::Group | Kind::Flag | Kind::One(_) | Kind::Many(_) => None,
        }
    }

    /// The literal words known here, in table order.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.words.iter().map(|(word, _)| *word)
    }
}

impl Place {
    #[must_use]
    pub fn step(self, word: &str) -> Self {
        match self {
            Self::Inside(level) => {
                if let Some((_, next)) = level.words.iter().find(|(known, _)| *known == word) {
                    return next.as_place();
                }
                level
                    .named
                    .as_ref()
                    .map_or(Self::Unknown, |(_, next)| Self::Inside(next))
            }
            Self::Leaf(_) => Self::End,
            Self::End | Self::Unknown => Self::Unknown,
        }
    }

    /// What may come next: words with their help, or the syntax of a value.
    pub fn next(self) -> Vec<Next> {
        match self {
            Self::Inside(level) => {
                let names = level.named.iter().map(|(entry, _)| syntax(entry));
                let words = level.words.iter().map(|(word, below)| Next {
                    word: (*word).to_owned(),
                    help: below
                        .entry
                        .or(below.named.as_ref().map(|(entry, _)| *entry))
                        .map_or("", |entry| entry.help),
                    literal: true,
                });
                names.chain(words).collect()
            }
            Self::Leaf(entry) => vec![syntax(entry)],
            Self::End | Self::Unknown => Vec::new(),
        }
    }
}

impl Level {
    fn as_place(&'static self) -> Place {
        match self.entry {
            Some(entry) if matches!(entry.kind, Kind::One(_) | Kind::Many(_)) => Place::Leaf(entry),
            Some(Entry {
                kind: Kind::Flag, ..
            }) => Place::End,
            _ => Place::Inside(self),
        }
    }
}

fn syntax(entry: &'static Entry) -> Next {
    let word = match entry.kind {
        Kind::Named(value) | Kind::One(value) | Kind::Many(value) => value.syntax(),
        Kind::Group | Kind::Flag => String::new(),
    };
    Next {
        word,
        help: entry.help,
        literal: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_sound() {
        for (at, entry) in TABLE.iter().enumerate() {
            assert!(
                !entry.help.is_empty() && !entry.help.ends_with('.'),
                "{}",
                entry.path
            );
            assert!(
                TABLE[..at].iter().all(|earlier| earlier.path != entry.path),
                "{} is there twice",
                entry.path
            );
            let ends_with_name = entry.path.ends_with('>');
            assert_eq!(
                ends_with_name,
                matches!(entry.kind, Kind::Named(_)),
                "{}",
                entry.path
            );
            if let Some(default) = entry.default {
                let Kind::One(value) = entry.kind else {
                    panic!("{}: default of no leaf", entry.path)
                };
                assert_eq!(value.check(default), Ok(()), "{}", entry.path);
            }
            // Each prefix has its own line, earlier; the word before a name shares the name's line.
            let words: Vec<_> = entry.path.split(' ').collect();
            for length in 1..words.len() {
                if words[length].starts_with('<') {
                    continue;
                }
                let prefix = words[..length].join(" ");
                assert!(
                    TABLE[..at].iter().any(|earlier| earlier.path == prefix),
                    "{prefix}"
                );
            }
        }
    }

    #[test]
    fn paths_lead_where_the_table_says() {
        assert!(matches!(place(&["system"]), Place::Inside(_)));
        assert!(matches!(place(&["system", "host-name"]), Place::Leaf(_)));
        assert!(matches!(place(&["system", "host-name", "gw1"]), Place::End));
        assert!(matches!(
            place(&["system", "host-name", "gw1", "x"]),
            Place::Unknown
        ));
        assert!(matches!(
            place(&["interfaces", "ethernet", "eth0", "role"]),
            Place::Leaf(_)
        ));
        assert!(matches!(place(&["firewall"]), Place::Unknown));
    }

    #[test]
    fn completion_comes_from_the_table() {
        let next = place(&["interfaces", "ethernet"]).next();
        assert_eq!(next[0].word, "eth<number>");
        let words: Vec<_> = place(&["system"])
            .next()
            .into_iter()
            .map(|next| next.word)
            .collect();
        assert_eq!(words, ["host-name", "time-zone", "name-server", "ntp"]);
        assert_eq!(place(&["system", "host-name"]).next()[0].word, "<name>");
    }
}
