//! One thread of the gateway: its runtime, its listeners, its flows. Workers share the judge and the count of all
//! connections, and nothing else that a request waits for.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// Counts connections: all there are, the ones that an older set of workers drains included, and those of each source. A
/// stream of HTTP/2 counts like a connection.
///
/// Strangers must not take the places of agents: a source has only so many connections over which nobody was admitted yet,
/// and the last quarter of all places is for sources over whose connections somebody was.
#[derive(Debug, Default)]
pub struct Doors {
    all: AtomicUsize,
    sources: Mutex<HashMap<IpAddr, Of>>,
}

/// The connections of one source.
#[derive(Debug, Default)]
struct Of {
    unknown: u32,
    known: u32,
    /// When the last one ended over which somebody had been admitted.
    left: Option<Instant>,
}

/// So long a source counts as one of agents after its last connection: they come again.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Sources without a connection that are remembered at most.
const MOST_REMEMBERED: usize = 65_536;

impl Of {
    fn is_of_agents(&self) -> bool {
        self.known > 0 || self.left.is_some_and(|left| left.elapsed() < REMEMBERED)
    }

    fn is_empty(&self) -> bool {
        self.unknown == 0 && self.known == 0
    }
}

/// How many of all places may be taken when a stranger comes.
fn for_strangers(most: usize) -> usize {
    most - most / 4
}

/// A connection's place among all; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    doors: Arc<Doors>,
    /// None: of a stream beside others of its connection.
    source: Option<IpAddr>,
    /// Somebody has been admitted over this connection.
    is_known: bool,
    of_worker: Option<Arc<Counts>>,
    is_fresh: bool,
    pub seat: Seat,
}

impl Doors {
    /// None: full, of all, of this source, or for whom nobody knows.
    pub fn enter(
        self: &Arc<Self>,
        source: IpAddr,
        most: usize,
        most_unknown: u32,
    ) -> Option<Place> {
        let source = source::network(source);
        let mut sources = self.sources();
        if sources.len() >= MOST_REMEMBERED && !sources.contains_key(&source) {
            sources.retain(|_, of| !of.is_empty() || of.is_of_agents());
        }
        let of = sources.entry(source).or_default();
        let room = if of.is_of_agents() {
            most
        } else {
            for_strangers(most)
        };
        let place = (of.unknown < most_unknown).then(|| self.place(room));
        let mut place = place.flatten();
        match &mut place {
            Some(place) => {
                of.unknown += 1;
                place.source = Some(source);
            }
            None if of.is_empty() && !of.is_of_agents() => drop(sources.remove(&source)),
            None => {}
        }
        place
    }

    /// For one more stream of a connection; `known`: somebody has been admitted over that.
    fn enter_again(self: &Arc<Self>, most: usize, known: bool) -> Option<Place> {
        self.place(if known { most } else { for_strangers(most) })
    }

    fn place(self: &Arc<Self>, room: usize) -> Option<Place> {
        if self.all.fetch_add(1, Ordering::Relaxed) >= room {
            self.all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place {
            doors: Arc::clone(self),
            source: None,
            is_known: false,
            of_worker: None,
            is_fresh: false,
            seat: Seat::default(),
        })
    }

    fn leave(&self, source: IpAddr, was_known: bool) {
        let mut sources = self.sources();
        let remembered = sources.len() <= MOST_REMEMBERED;
        let Some(of) = sources.get_mut(&source) else {
            return;
        };
        if was_known {
            of.known = of.known.saturating_sub(1);
            of.left = remembered.then(Instant::now);
        } else {
            of.unknown = of.unknown.saturating_sub(1);
        }
        if of.is_empty() && !of.is_of_agents() {
            sources.remove(&source);
        }
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<IpAddr, Of>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some(source) = self.source.filter(|_| !self.is_known) else {
            return;
        };
        self.is_known = true;
        if let Some(of) = self.doors.sources().get_mut(&source) {
            of.unknown = of.unknown.saturating_sub(1);
            of.known += 1;
        }
    }

    pub fn is_known(&self) -> bool {
        self.is_known
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.used();
        if let Some(source) = self.source {
            self.doors.leave(source, self.is_known);
        }
        self.doors.all.fetch_sub(1, Ordering::Relaxed);
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
    pub fn enter_again(&self, known: bool) -> Option<Place> {
        self.doors.enter_again(self.most(), known)
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
        let left: Vec<IpAddr> = doors.sources().keys().copied().collect();
        assert_eq!(left, [source], "one over which somebody was admitted");
    }

    #[test]
    fn the_last_quarter_is_for_sources_of_agents() {
        let doors = Arc::new(Doors::default());
        let source = |last: u8| IpAddr::from([192, 0, 2, last]);
        let agents = source(1);
        let mut first = doors.enter(agents, 8, 9).unwrap();
        first.known();
        // Each of them alone keeps to the bound of a source.
        let strangers: Vec<_> = (2..=20)
            .filter_map(|last| doors.enter(source(last), 8, 1))
            .collect();
        assert_eq!((strangers.len(), doors.open()), (5, 6));
        assert!(doors.enter_again(8, false).is_none());
        let stream = doors.enter_again(8, true).unwrap();
        let second = doors.enter(agents, 8, 9).unwrap();
        assert!(doors.enter(agents, 8, 9).is_none(), "all is full");
        // Between two connections it is no stranger.
        drop((first, second, stream));
        let again: Vec<_> = (0..3).filter_map(|_| doors.enter(agents, 8, 9)).collect();
        assert_eq!(again.len(), 3);
        assert!(doors.enter(source(99), 8, 9).is_none());
        drop((again, strangers));
        assert_eq!(doors.open(), 0);
        assert_eq!(doors.sources().len(), 1);
    }

    #[test]
    fn who_was_turned_away_is_not_remembered() {
        let doors = Arc::new(Doors::default());
        let _full = doors.enter("192.0.2.1".parse().unwrap(), 1, 9).unwrap();
        for last in 2..100 {
            assert!(doors.enter(IpAddr::from([192, 0, 2, last]), 1, 9).is_none());
        }
        assert_eq!(doors.sources().len(), 1);
    }

    #[test]
    fn streams_beside_the_first_count_among_all() {
        let doors = Arc::new(Doors::default());
        let connection = doors.enter("192.0.2.1".parse().unwrap(), 2, 9).unwrap();
        let stream = doors.enter_again(2, true).unwrap();
        assert!(doors.enter_again(2, true).is_none());
        drop(stream);
        assert!(doors.enter_again(2, true).is_some());
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
        assert!(doors.sources().is_empty());
    }
}
