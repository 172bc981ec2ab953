//! A table that never holds more than it may, and forgets what was not used for longest. Knows no clock.
//!
//! Two generations: what is used moves to the young one; when that is full, the old one is dropped whole. So every
//! operation takes constant time, whatever an agent does to the table.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub struct Table<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Of each generation.
    room: usize,
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// Holds at most `most` entries.
    pub fn new(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            room: (most / 2).max(1),
        }
    }

    pub fn get<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.room && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub fn clear(&mut self) {
        self.young = HashMap::new();
        self.old = HashMap::new();
    }

    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_table_is_never_too_large() {
        let mut table = Table::new(10);
        for n in 0..1000 {
            table.insert(n, n);
            assert_eq!(table.get(&0), Some(&mut 0));
            assert!(table.len() <= 10);
        }
        assert!(table.get(&1).is_none());
        table.clear();
        assert!(table.is_empty() && table.get(&0).is_none());
    }

    #[test]
    fn a_key_has_one_value() {
        let mut table = Table::new(2);
        table.insert("a", 1);
        table.insert("b", 1);
        table.insert("a", 2);
        assert_eq!(table.get("a"), Some(&mut 2));
        assert!(table.len() <= 2);
    }
}
