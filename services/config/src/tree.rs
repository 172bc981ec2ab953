//! The candidate tree: every word of a path is a node, a value is a node without children.
//!
//! It holds whatever was written, right or wrong; judging is `validate`'s work. Equality looks at words only,
//! not at positions or at the order in which values came.

use std::collections::BTreeMap;

use crate::problem::{Position, Problem};
use crate::schema::{self, Kind, Place};

#[derive(Debug, Clone, Default)]
pub struct Node {
    children: BTreeMap<String, Node>,
    /// Rank among its siblings by time of writing: the order of resolvers matters.
    rank: u32,
    at: Option<Position>,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.children == other.children
    }
}

impl Eq for Node {}

impl Node {
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    /// Where this word was first written, if it came from a text.
    pub fn position(&self) -> Option<Position> {
        self.at
    }

    pub fn get(&self, word: &str) -> Option<&Self> {
        self.children.get(word)
    }

    /// Children in the order in which they were written.
    pub fn in_order(&self) -> Vec<(&str, &Self)> {
        let mut children: Vec<_> = self
            .children
            .iter()
            .map(|(word, node)| (word.as_str(), node))
            .collect();
        children.sort_by_key(|(_, node)| node.rank);
        children
    }

    /// Children in alphabetical order, numbers by value: eth2 before eth10.
    pub fn sorted(&self) -> Vec<(&str, &Self)> {
        let mut children: Vec<_> = self
            .children
            .iter()
            .map(|(word, node)| (word.as_str(), node))
            .collect();
        children.sort_by(|(a, _), (b, _)| in_nature(a, b));
        children
    }

    fn insert(&mut self, word: &str, at: Option<Position>) -> &mut Self {
        let next = u32::try_from(self.children.len()).unwrap_or(u32::MAX);
        self.children
            .entry(word.to_owned())
            .or_insert_with(|| Self {
                children: BTreeMap::new(),
                rank: next,
                at,
            })
    }
}

/// Alphabetical order, numbers by value: eth2 before eth10.
pub(crate) fn sort_words(words: &mut [&str]) {
    words.sort_by(|a, b| in_nature(a, b));
}

fn in_nature(a: &str, b: &str) -> std::cmp::Ordering {
    natural(a).cmp(&natural(b)).then_with(|| a.cmp(b))
}

/// Leading text and trailing number of a word.
fn natural(word: &str) -> (&str, u64) {
    let head = word.trim_end_matches(|c: char| c.is_ascii_digit());
    (head, word[head.len()..].parse().unwrap_or(0))
}

/// Why a candidate could not be edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("there is no path to set; write set <path> <value>")]
    Empty,
    #[error("`{path}` is not there; show lists what is")]
    Missing { path: String },
    #[error("{0}")]
    Refused(Problem),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    root: Node,
}

impl Tree {
    pub fn root(&self) -> &Node {
        &self.root
    }

    pub fn is_empty(&self) -> bool {
        self.root.is_leaf()
    }

    pub fn get(&self, path: &[&str]) -> Option<&Node> {
        path.iter()
            .try_fold(&self.root, |node, word| node.get(word))
    }

    /// Adds a path as it was written; a second value of a single-valued leaf stays beside the first, to be reported.
    pub(crate) fn insert<'w>(
        &mut self,
        path: impl IntoIterator<Item = (&'w str, Option<Position>)>,
    ) {
        let mut node = &mut self.root;
        for (word, at) in path {
            node = node.insert(word, at);
        }
    }

    /// What `set` does at the console: a new value of a single-valued leaf takes the place of the old one.
    pub fn set(&mut self, path: &[&str]) -> Result<(), EditError> {
        if path.is_empty() {
            return Err(EditError::Empty);
        }
        let mut node = &mut self.root;
        let mut place = schema::root();
        for word in path {
            if let Place::Leaf(entry) = place
                && matches!(entry.kind, Kind::One(_))
            {
                node.children.retain(|known, _| known == word);
            }
            place = place.step(word);
            node = node.insert(word, None);
        }
        Ok(())
    }

    /// What `delete` does: removes the path with all below it, and the groups that it leaves empty.
    pub fn delete(&mut self, path: &[&str]) -> Result<(), EditError> {
        if path.is_empty() || self.get(path).is_none() {
            return Err(EditError::Missing {
                path: path.join(" "),
            });
        }
        prune(&mut self.root, path, schema::root());
        Ok(())
    }

    /// A tree that holds only what is at `path` of this one.
    #[must_use]
    pub(crate) fn only(&self, path: &[&str]) -> Self {
        let mut only = Self::default();
        if let Some(node) = self.get(path) {
            let mut into = &mut only.root;
            for word in path {
                into = into.insert(word, None);
            }
            *into = node.clone();
        }
        only
    }
}

fn prune(node: &mut Node, path: &[&str], place: Place) {
    let Some((word, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        node.children.remove(*word);
        // Ranks are given by count: close the gap, or the next value would share one.
        let order: Vec<String> = node
            .in_order()
            .into_iter()
            .map(|(word, _)| word.to_owned())
            .collect();
        for (rank, word) in order.iter().enumerate() {
            if let Some(child) = node.children.get_mut(word) {
                child.rank = u32::try_from(rank).unwrap_or(u32::MAX);
            }
        }
        return;
    }
    let below = place.step(word);
    if let Some(child) = node.children.get_mut(*word) {
        prune(child, rest, below);
        // A name stands for itself even when empty (`interfaces ethernet eth0`); a bare group says nothing. A port alone
        // means TCP: a delete that took its protocols must not open that instead.
        let is_name = matches!(place, Place::Inside(level)
            if level.names().is_some_and(|names| names != schema::Value::Port));
        if child.is_leaf() && !is_name {
            prune(node, &[word], place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_a_single_value_and_adds_to_many() {
        let mut tree = Tree::default();
        tree.set(&["system", "host-name", "a"]).unwrap();
        tree.set(&["system", "host-name", "b"]).unwrap();
        tree.set(&["system", "name-server", "192.0.2.2"]).unwrap();
        tree.set(&["system", "name-server", "192.0.2.1"]).unwrap();
        let names = tree.get(&["system", "host-name"]).unwrap().in_order();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].0, "b");
        let servers: Vec<_> = tree
            .get(&["system", "name-server"])
            .unwrap()
            .in_order()
            .into_iter()
            .map(|(word, _)| word)
            .collect();
        assert_eq!(servers, ["192.0.2.2", "192.0.2.1"]);
        assert_eq!(tree.set(&[]), Err(EditError::Empty));
    }

    #[test]
    fn delete_takes_empty_groups_along() {
        let mut tree = Tree::default();
        tree.set(&["system", "ntp", "server", "192.0.2.1"]).unwrap();
        tree.set(&["interfaces", "ethernet", "eth0", "role", "wan"])
            .unwrap();
        tree.delete(&["system", "ntp", "server", "192.0.2.1"])
            .unwrap();
        assert!(tree.get(&["system"]).is_none());
        tree.delete(&["interfaces", "ethernet", "eth0", "role", "wan"])
            .unwrap();
        assert!(tree.get(&["interfaces", "ethernet", "eth0"]).is_some());
        tree.delete(&["interfaces", "ethernet", "eth0"]).unwrap();
        assert!(tree.is_empty());
        assert!(tree.delete(&["interfaces"]).is_err());
    }

    #[test]
    fn order_survives_a_delete() {
        let mut tree = Tree::default();
        for server in ["192.0.2.3", "192.0.2.2", "192.0.2.1"] {
            tree.set(&["system", "name-server", server]).unwrap();
        }
        tree.delete(&["system", "name-server", "192.0.2.3"])
            .unwrap();
        tree.set(&["system", "name-server", "192.0.2.0"]).unwrap();
        let servers: Vec<_> = tree
            .get(&["system", "name-server"])
            .unwrap()
            .in_order()
            .into_iter()
            .map(|(word, _)| word)
            .collect();
        assert_eq!(servers, ["192.0.2.2", "192.0.2.1", "192.0.2.0"]);
    }

    #[test]
    fn cards_sort_by_number() {
        let mut tree = Tree::default();
        for card in ["eth10", "eth2", "eth0"] {
            tree.set(&["interfaces", "ethernet", card]).unwrap();
        }
        let cards: Vec<_> = tree
            .get(&["interfaces", "ethernet"])
            .unwrap()
            .sorted()
            .into_iter()
            .map(|(word, _)| word)
            .collect();
        assert_eq!(cards, ["eth0", "eth2", "eth10"]);
    }
}
