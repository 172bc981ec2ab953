//! How many questions may wait at a time: in all, of one principal, of one source. Who is over it is told to come again,
//! and nobody else waits longer for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub total: usize,
    pub of_principal: usize,
    pub of_source: usize,
}

#[derive(Debug)]
pub struct Flights {
    limits: Limits,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    total: usize,
    principals: HashMap<u16, usize>,
    sources: HashMap<IpAddr, usize>,
}

/// One question that waits.
#[derive(Debug)]
pub struct Flight {
    flights: Arc<Flights>,
    principal: u16,
    source: Option<IpAddr>,
}

impl Flights {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            now: Mutex::default(),
        })
    }

    /// `source`: absent for the front, which speaks for many.
    pub fn begin(self: &Arc<Self>, principal: u16, source: Option<IpAddr>) -> Option<Flight> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let of_principal = now.principals.get(&principal).copied().unwrap_or(0);
        let of_source = source.map_or(0, |source| now.sources.get(&source).copied().unwrap_or(0));
        if now.total >= self.limits.total
            || of_principal >= self.limits.of_principal
            || of_source >= self.limits.of_source
        {
            return None;
        }
        now.total += 1;
        now.principals.insert(principal, of_principal + 1);
        if let Some(source) = source {
            now.sources.insert(source, of_source + 1);
        }
        Some(Flight {
            flights: Arc::clone(self),
            principal,
            source,
        })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut now = self
            .flights
            .now
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        now.total -= 1;
        lower(&mut now.principals, &self.principal);
        if let Some(source) = &self.source {
            lower(&mut now.sources, source);
        }
    }
}

pub(crate) fn lower<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_holds_and_ends_with_the_flight() {
        let flights = Flights::new(Limits {
            total: 4,
            of_principal: 3,
            of_source: 2,
        });
        let ip = |n: u8| Some(IpAddr::from([10, 0, 0, n]));
        let first = flights.begin(1, ip(1)).unwrap();
        let _second = flights.begin(1, ip(1)).unwrap();
        assert!(flights.begin(1, ip(1)).is_none());
        let _third = flights.begin(1, ip(2)).unwrap();
        assert!(flights.begin(1, ip(3)).is_none());
        let _fourth = flights.begin(2, ip(4)).unwrap();
        assert!(flights.begin(3, ip(5)).is_none());
        drop(first);
        let again = flights.begin(1, ip(1));
        assert!(again.is_some());
        assert_eq!(flights.now.lock().unwrap().sources.len(), 3);
    }
}
