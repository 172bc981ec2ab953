//! What was verified before, by digest of the credential: bounded, and gone with the directory that it belongs to.
//!
//! Holds verified things alone, so nobody without a good credential can push anything out of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

pub(crate) type Digest = [u8; 32];

const SHARDS: usize = 16;

pub(crate) struct Cache<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    most: usize,
}

/// Two generations: what was used since the last turn, and what was used before it.
struct Shard<V> {
    young: HashMap<Digest, V>,
    old: HashMap<Digest, V>,
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }
}

impl<V: Clone> Cache<V> {
    /// At most about `most` entries.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            most: (most / SHARDS / 2).max(1),
        }
    }

    pub(crate) fn digest(parts: &[&[u8]]) -> Option<Digest> {
        match parts {
            [one] => digest(&SHA256, one).as_ref().try_into().ok(),
            many => {
                // Lengths between the parts, so that no other division of the same bytes is the same.
                let mut context = aws_lc_rs::digest::Context::new(&SHA256);
                for part in many {
                    context.update(&(part.len() as u64).to_be_bytes());
                    context.update(part);
                }
                context.finish().as_ref().try_into().ok()
            }
        }
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<V> {
        let mut shard = self.shard(digest)?;
        if let Some(found) = shard.young.get(digest) {
            return Some(found.clone());
        }
        let found = shard.old.remove(digest)?;
        self.put(&mut shard, *digest, found.clone());
        Some(found)
    }

    pub(crate) fn insert(&self, digest: Digest, value: V) {
        if let Some(mut shard) = self.shard(&digest) {
            self.put(&mut shard, digest, value);
        }
    }

    fn put(&self, shard: &mut Shard<V>, digest: Digest, value: V) {
        if shard.young.len() >= self.most {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(digest, value);
    }

    fn shard(&self, digest: &Digest) -> Option<std::sync::MutexGuard<'_, Shard<V>>> {
        let shard = self.shards.get(usize::from(digest[0]) % SHARDS)?;
        // Nothing in here leaves a shard half changed.
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard<V>>| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_bounded_and_keeps_what_is_used() {
        let cache = Cache::new(320);
        let used = Cache::<u32>::digest(&[b"used"]).unwrap();
        cache.insert(used, 7);
        for other in 0..10_000_u32 {
            cache.insert(
                Cache::<u32>::digest(&[&other.to_be_bytes()]).unwrap(),
                other,
            );
            assert_eq!(cache.get(&used), Some(7));
            assert!(cache.len() <= 320 + SHARDS);
        }
        let (one, other) = (
            Cache::<u32>::digest(&[b"ab", b"c"]),
            Cache::<u32>::digest(&[b"a", b"bc"]),
        );
        assert_ne!(one, other);
    }
}
