//! Every pattern that a revision names, once: found by the name that an agent asks for, most specific first.
//!
//! Knows nothing of scopes; an entry only carries the numbers under which others keep what they know of it.

use std::hash::{BuildHasher, Hasher, RandomState};

use clawgress_config::policy::DomainPattern;

/// The longest name that DNS can carry.
const LONGEST_NAME: usize = 253;
/// More labels than a name of that length can have.
const MOST_DOTS: usize = 127;

/// All entries lie end to end in one allocation, and the table tells their places: a million patterns must not be a
/// million allocations. A pattern is found with two misses of the processor's cache, which is why the table is our own.
pub(crate) struct Names {
    /// row (4 bytes), label (4 bytes), length (1 byte), pattern as written; little endian
    arena: Vec<u8>,
    /// Open addressing with linear probing, never more than half full; its length is a power of two. The upper half of
    /// a slot is that of the hash, the lower half the entry's place plus one; 0 is an empty slot. The hash is keyed, so
    /// that nobody can choose names that gather in one corner.
    table: Vec<u64>,
    filled: usize,
    hasher: RandomState,
    /// Which numbers of dots the bases of wildcards have: suffixes of other depths need not be looked up.
    depths: u128,
}

const LABEL: usize = 4;
const LENGTH: usize = 8;
const HEAD: usize = 9;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'n> {
    /// Number of its row in `Rows`; 0: no scope says anything of it.
    pub(crate) row: u32,
    /// Number of its label; 0: none.
    pub(crate) label: u32,
    pattern: &'n [u8],
}

/// The patterns take more room than their numbers reach.
#[derive(Debug)]
pub(crate) struct Full;

impl<'n> Entry<'n> {
    fn at(arena: &'n [u8], place: usize) -> Option<Self> {
        let rest = arena.get(place..)?;
        let number = |at: usize| Some(u32::from_le_bytes(*rest.get(at..)?.first_chunk()?));
        let length = usize::from(*rest.get(LENGTH)?);
        Some(Self {
            row: number(0)?,
            label: number(LABEL)?,
            pattern: rest.get(HEAD..HEAD + length)?,
        })
    }

    /// As it is written in a policy.
    pub(crate) fn pattern(&self) -> &'n str {
        // Nothing but the text of patterns was put there.
        std::str::from_utf8(self.pattern).unwrap_or_default()
    }

    /// What it is found by: whether it is a wildcard, and the name without that.
    fn key(&self) -> (bool, &'n [u8]) {
        match self.pattern.strip_prefix(b"*.") {
            Some(base) => (true, base),
            None => (false, self.pattern),
        }
    }
}

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            arena: Vec::new(),
            table: vec![0; 64],
            filled: 0,
            hasher: RandomState::new(),
            depths: 0,
        }
    }

    /// The number of this pattern, given to it now if it has none.
    pub(crate) fn intern(&mut self, pattern: &DomainPattern) -> Result<u32, Full> {
        let key = (pattern.is_wildcard(), pattern.base().as_bytes());
        let hash = self.hash(key);
        if let Some(number) = self.number(hash, key) {
            return Ok(number);
        }
        let text = pattern.as_str().as_bytes();
        let number = u32::try_from(self.arena.len()).map_err(|_| Full)?;
        if number == u32::MAX {
            return Err(Full);
        }
        let length = u8::try_from(text.len()).map_err(|_| Full)?;
        self.arena.extend_from_slice(&[0; LENGTH]);
        self.arena.push(length);
        self.arena.extend_from_slice(text);
        self.filled += 1;
        if self.filled * 2 > self.table.len() {
            self.grow();
        } else {
            self.put(hash, number);
        }
        if key.0 {
            let dots = pattern.base().matches('.').count();
            self.depths |= 1u128.checked_shl(dots as u32).unwrap_or(0);
        }
        Ok(number)
    }

    pub(crate) fn set_row(&mut self, number: u32, row: u32) {
        self.set(number as usize, row);
    }

    pub(crate) fn set_label(&mut self, number: u32, label: u32) {
        self.set(number as usize + LABEL, label);
    }

    fn set(&mut self, at: usize, value: u32) {
        let place = self.arena.get_mut(at..);
        if let Some(place) = place.and_then(<[u8]>::first_chunk_mut) {
            *place = value.to_le_bytes();
        }
    }

    pub(crate) fn shrink(&mut self) {
        self.arena.shrink_to_fit();
    }

    /// In the order in which they were interned.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut place = 0;
        std::iter::from_fn(move || {
            let entry = Entry::at(&self.arena, place)?;
            place += HEAD + entry.pattern.len();
            Some(entry)
        })
    }

    /// Every pattern that means this name, the most specific first. Any text may be asked for.
    pub(crate) fn matching<'n, 'a>(&'n self, name: &'a str) -> Matching<'n, 'a> {
        Matching {
            names: self,
            name: name.as_bytes(),
            itself: true,
            dots: None,
        }
    }

    fn put(&mut self, hash: u64, number: u32) {
        let mut at = self.home(hash);
        while let Some(slot) = self.table.get_mut(at) {
            if *slot == 0 {
                *slot = hash >> 32 << 32 | (u64::from(number) + 1);
                return;
            }
            at = self.after(at);
        }
    }

    /// Twice the table, filled anew.
    fn grow(&mut self) {
        self.table = vec![0; self.table.len() * 2];
        let mut place = 0;
        while let Some(entry) = Entry::at(&self.arena, place) {
            let next = place + HEAD + entry.pattern.len();
            let hash = self.hash(entry.key());
            self.put(hash, place as u32);
            place = next;
        }
    }

    fn hash(&self, (wildcard, base): (bool, &[u8])) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(base);
        hasher.write_u8(u8::from(wildcard));
        hasher.finish()
    }

    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.table.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.table.len() - 1)
    }

    fn number(&self, hash: u64, key: (bool, &[u8])) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let slot = *self.table.get(at)?;
            // Empty: 0 less one is no place.
            let number = (slot as u32).checked_sub(1)?;
            if slot >> 32 == hash >> 32
                && Entry::at(&self.arena, number as usize).is_some_and(|entry| entry.key() == key)
            {
                return Some(number);
            }
            at = self.after(at);
        }
    }

    fn find(&self, wildcard: bool, base: &[u8]) -> Option<Entry<'_>> {
        let key = (wildcard, base);
        let number = self.number(self.hash(key), key)?;
        Entry::at(&self.arena, number as usize)
    }
}

pub(crate) struct Matching<'n, 'a> {
    names: &'n Names,
    name: &'a [u8],
    /// Whether the name itself is still to be looked up.
    itself: bool,
    /// Not looked for before they are needed: most who ask have their answer without.
    dots: Option<Dots>,
}

/// Where a name's dots are, from the left.
struct Dots {
    places: [u8; MOST_DOTS],
    count: usize,
    next: usize,
}

impl Dots {
    /// Of a name that is no longer than names are. None, if it has more dots than a name can have.
    fn of(name: &[u8]) -> Option<Self> {
        let (mut places, mut count) = ([0; MOST_DOTS], 0);
        for (at, _) in name.iter().enumerate().filter(|(_, byte)| **byte == b'.') {
            *places.get_mut(count)? = at as u8;
            count += 1;
        }
        Some(Self {
            places,
            count,
            next: 0,
        })
    }
}

impl<'n> Iterator for Matching<'n, '_> {
    type Item = Entry<'n>;

    fn next(&mut self) -> Option<Self::Item> {
        // What is longer than any name is nobody's.
        if self.name.len() > LONGEST_NAME {
            return None;
        }
        if std::mem::take(&mut self.itself)
            && let Some(entry) = self.names.find(false, self.name)
        {
            return Some(entry);
        }
        if self.names.depths == 0 {
            return None;
        }
        let dots = match &mut self.dots {
            Some(dots) => dots,
            none => none.insert(Dots::of(self.name)?),
        };
        while dots.next < dots.count {
            let dot = usize::from(*dots.places.get(dots.next)?);
            dots.next += 1;
            let depth = dots.count - dots.next;
            // A wildcard stands for at least one character: a name may not begin with the dot.
            if dot == 0 || self.names.depths & (1 << depth) == 0 {
                continue;
            }
            if let Some(entry) = self.names.find(true, self.name.get(dot + 1..)?) {
                return Some(entry);
            }
        }
        None
    }
}
