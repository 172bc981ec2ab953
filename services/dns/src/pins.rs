//! What is known to be pinned, so that an answer that is pinned already needs no round trip to the enforcer. The clock
//! is an argument.
//!
//! Forgetting an entry costs a round trip; keeping one too long would be an unpinned address. So the whole table is
//! forgotten with the revision that it belongs to, and with the connection over which it was made.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::cache::Table;

/// A pin outlives the answer that an agent may keep by this.
pub const GRACE: Duration = Duration::from_secs(60);
/// Sites that rotate through more addresses get them pinned anew.
const MOST_ADDRESSES: usize = 256;

/// Principal (big endian), then the name.
type Key = Box<[u8]>;

#[derive(Debug)]
pub struct Pinned {
    table: Table<Key, Vec<(IpAddr, Instant)>>,
}

impl Pinned {
    pub fn new(most: usize) -> Self {
        Self {
            table: Table::new(most),
        }
    }

    /// True if every address is pinned until `until` at least.
    pub fn holds(
        &mut self,
        principal: u16,
        name: &str,
        addresses: &[IpAddr],
        until: Instant,
    ) -> bool {
        let Some(pinned) = self.table.get(&*key(principal, name)) else {
            return false;
        };
        addresses.iter().all(|address| {
            pinned
                .iter()
                .any(|(known, deadline)| known == address && *deadline >= until)
        })
    }

    pub fn add(
        &mut self,
        principal: u16,
        name: &str,
        addresses: &[IpAddr],
        until: Instant,
        now: Instant,
    ) {
        let key = key(principal, name);
        let mut pinned = self
            .table
            .get(&*key)
            .map(std::mem::take)
            .unwrap_or_default();
        pinned.retain(|(known, deadline)| *deadline > now && !addresses.contains(known));
        pinned.extend(addresses.iter().map(|address| (*address, until)));
        let excess = pinned.len().saturating_sub(MOST_ADDRESSES);
        pinned.drain(..excess);
        self.table.insert(key, pinned);
    }

    pub fn forget(&mut self) {
        self.table.clear();
    }
}

fn key(principal: u16, name: &str) -> Key {
    let mut key = Vec::with_capacity(2 + name.len());
    key.extend_from_slice(&principal.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_pin_is_of_one_principal_one_name_and_a_time() {
        let mut pinned = Pinned::new(100);
        let now = Instant::now();
        let until = now + GRACE;
        let one = [ip("192.0.2.1")];
        pinned.add(1, "a.example", &one, until, now);
        assert!(pinned.holds(1, "a.example", &one, until));
        assert!(!pinned.holds(1, "a.example", &one, until + GRACE));
        assert!(!pinned.holds(2, "a.example", &one, until));
        assert!(!pinned.holds(1, "b.example", &one, until));
        let both = [ip("192.0.2.1"), ip("2001:db8::1")];
        assert!(!pinned.holds(1, "a.example", &both, until));
        pinned.add(1, "a.example", &both[1..], until, now);
        assert!(pinned.holds(1, "a.example", &both, until));
        pinned.forget();
        assert!(!pinned.holds(1, "a.example", &one, until));
    }

    #[test]
    fn a_site_of_endless_addresses_does_not_fill_the_memory() {
        let mut pinned = Pinned::new(100);
        let now = Instant::now();
        for n in 0..10_000_u32 {
            pinned.add(1, "a", &[IpAddr::from(n.to_be_bytes())], now + GRACE, now);
        }
        let list = pinned.table.get(&*key(1, "a")).unwrap();
        assert_eq!(list.len(), MOST_ADDRESSES);
    }
}
