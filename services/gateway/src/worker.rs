//! One thread of the gateway: its runtime, its listeners, its flows. Workers share the judge and the count of all
//! connections, and nothing else that a request waits for.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::flows::Flows;
use crate::judge::Judge;
use crate::pool::Pool;
use crate::relay::Pipes;
use crate::resolver::Resolver;
use crate::tls::Showing;

/// What bounds a connection; the committed revision says some of it, the service's own configuration the rest.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first byte of a head to its last, and for an answer of ours to be taken.
    pub head: Duration,
    /// Between two requests.
    pub between: Duration,
    pub connect: Duration,
    /// From the end of a request to the first byte of its answer, and between two pieces of a body.
    pub answer: Duration,
    /// Connections from one source that have not been admitted once.
    pub unknown_of_source: u32,
}

pub struct Worker {
    pub judge: Arc<Judge>,
    pub limits: Limits,
    pub resolver: Resolver,
    pub flows: Arc<Flows>,
    pub pipes: Arc<Pipes>,
    pub pool: Arc<Pool>,
    pub showing: Arc<Showing>,
    doors: Arc<Doors>,
    draining: AtomicBool,
}

/// Counts connections: all of the gateway, and those of each source that nobody knows yet.
#[derive(Debug, Default)]
pub struct Doors {
    all: AtomicUsize,
    unknown: Mutex<HashMap<IpAddr, u32>>,
}

/// A connection's place among all; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    doors: Arc<Doors>,
    /// None: somebody has been admitted over this connection.
    unknown: Option<IpAddr>,
}

impl Doors {
    /// None: full, of all or of this source.
    pub fn enter(
        self: &Arc<Self>,
        source: IpAddr,
        most: usize,
        most_unknown: u32,
    ) -> Option<Place> {
        if self.all.fetch_add(1, Ordering::Relaxed) >= most {
            self.all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut place = Place {
            doors: Arc::clone(self),
            unknown: None,
        };
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let count = unknown.entry(source).or_default();
        if *count >= most_unknown {
            return None;
        }
        *count += 1;
        place.unknown = Some(source);
        Some(place)
    }

    pub fn open(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }
}

impl Place {
    /// Somebody was admitted: from now on that one's own limits hold.
    pub fn known(&mut self) {
        let Some(source) = self.unknown.take() else {
            return;
        };
        let mut unknown = self
            .doors
            .unknown
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = unknown.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                unknown.remove(&source);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.known();
        self.doors.all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    pub fn new(
        judge: Arc<Judge>,
        limits: Limits,
        named: SocketAddr,
        doors: Arc<Doors>,
        showing: Arc<Showing>,
    ) -> Arc<Self> {
        Arc::new(Self {
            judge,
            limits,
            resolver: Resolver::new(named),
            flows: Arc::default(),
            pipes: Arc::default(),
            pool: Arc::default(),
            showing,
            doors,
            draining: AtomicBool::new(false),
        })
    }

    /// None: there are too many connections.
    pub fn enter(&self, source: IpAddr) -> Option<Place> {
        let most = self
            .judge
            .snapshot()
            .map_or(0, |snapshot| snapshot.policy.settings.connections);
        self.doors
            .enter(source, most as usize, self.limits.unknown_of_source)
    }

    pub fn doors(&self) -> &Arc<Doors> {
        &self.doors
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on each connection ends with the request that it is at.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_count_all_and_the_unknown() {
        let doors = Arc::new(Doors::default());
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        let mut first = doors.enter(source, 3, 1).unwrap();
        assert!(doors.enter(source, 3, 1).is_none());
        assert_eq!(doors.open(), 1);
        first.known();
        let second = doors.enter(source, 3, 1).unwrap();
        let third = doors.enter(other, 3, 1).unwrap();
        assert!(
            doors.enter(other, 3, 9).is_none(),
            "three are all that there may be"
        );
        drop((first, second, third));
        assert_eq!(doors.open(), 0);
        assert!(doors.unknown.lock().unwrap().is_empty());
    }
}
