//! One thread of the gateway: its runtime, its listeners, its flows. Workers share the judge and the count of all
//! connections, and nothing else that a request waits for.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::flows::Flows;
use crate::judge::{Judge, Seat};
use crate::pool::Pool;
use crate::relay::Pipes;
use crate::resolver::Resolver;
use crate::source;
use crate::tls::Showing;

/// Connections while there is nothing to judge by: each is told so.
const WITHOUT_SNAPSHOT: usize = 256;

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
    counts: Arc<Counts>,
    draining: watch::Sender<bool>,
}

/// Connections of one worker.
#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    /// Over which no request has been answered yet.
    fresh: AtomicUsize,
    accepts_none: AtomicBool,
}

/// Counts connections: all there are, the ones that an older set of workers drains included, and those of each source that
/// nobody knows yet. A stream of HTTP/2 counts like a connection.
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
    of_worker: Option<Arc<Counts>>,
    is_fresh: bool,
    pub seat: Seat,
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
            of_worker: None,
            is_fresh: false,
            seat: Seat::default(),
        };
        let source = source::network(source);
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let count = unknown.entry(source).or_default();
        if *count >= most_unknown {
            return None;
        }
        *count += 1;
        place.unknown = Some(source);
        Some(place)
    }

    /// For one more stream of a connection.
    fn enter_again(self: &Arc<Self>, most: usize) -> Option<Place> {
        if self.all.fetch_add(1, Ordering::Relaxed) >= most {
            self.all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place {
            doors: Arc::clone(self),
            unknown: None,
            of_worker: None,
            is_fresh: false,
            seat: Seat::default(),
        })
    }

    pub fn open(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }
}

impl Place {
    /// A request has been judged.
    pub fn used(&mut self) {
        if std::mem::take(&mut self.is_fresh)
            && let Some(counts) = &self.of_worker
        {
            counts.fresh.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// Somebody was admitted: from now on that one's own limits hold.
    pub fn known(&mut self) {
        self.used();
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
        self.used();
        if let Some(counts) = &self.of_worker {
            counts.open.fetch_sub(1, Ordering::Relaxed);
        }
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
            counts: Arc::default(),
            draining: watch::Sender::new(false),
        })
    }

    /// None: there are too many connections.
    pub fn enter(&self, source: IpAddr) -> Option<Place> {
        let place = self
            .doors
            .enter(source, self.most(), self.limits.unknown_of_source);
        let Some(mut place) = place else {
            self.judge.record_turned_away(source);
            return None;
        };
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        self.counts.fresh.fetch_add(1, Ordering::Relaxed);
        place.of_worker = Some(Arc::clone(&self.counts));
        place.is_fresh = true;
        Some(place)
    }

    /// For one more stream beside others of its connection.
    pub fn enter_again(&self) -> Option<Place> {
        self.doors.enter_again(self.most())
    }

    fn most(&self) -> usize {
        self.judge.snapshot().map_or(WITHOUT_SNAPSHOT, |snapshot| {
            snapshot.policy.settings.connections as usize
        })
    }

    /// Connections of this worker.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Whether somebody may still come, or has come and not been heard yet.
    pub fn awaits_anybody(&self) -> bool {
        !self.counts.accepts_none.load(Ordering::Acquire)
            || self.counts.fresh.load(Ordering::Relaxed) > 0
    }

    /// Its listeners are closed.
    pub fn accepts_none(&self) {
        self.counts.accepts_none.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// From now on each connection ends with the request that it is at, and an idle one at once.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Returns when the worker is told to drain.
    pub async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        // The sender lives as long as the worker.
        let _ = draining.wait_for(|draining| *draining).await;
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

    #[test]
    fn streams_beside_the_first_count_among_all() {
        let doors = Arc::new(Doors::default());
        let connection = doors.enter("192.0.2.1".parse().unwrap(), 2, 9).unwrap();
        let stream = doors.enter_again(2).unwrap();
        assert!(doors.enter_again(2).is_none());
        drop(stream);
        assert!(doors.enter_again(2).is_some());
        drop(connection);
        assert_eq!(doors.open(), 0);
    }

    #[test]
    fn a_host_with_a_network_of_its_own_is_one_source() {
        let doors = Arc::new(Doors::default());
        let source = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = doors.enter(source("2001:db8:0:1::1"), 9, 2);
        let second = doors.enter(source("2001:db8:0:1:ffff::2"), 9, 2);
        assert!(first.is_some() && second.is_some());
        assert!(doors.enter(source("2001:db8:0:1::3"), 9, 2).is_none());
        assert!(doors.enter(source("2001:db8:0:2::1"), 9, 2).is_some());
        drop((first, second));
        assert!(doors.unknown.lock().unwrap().is_empty());
    }
}
