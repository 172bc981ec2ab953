//! The ledger: reserve before a connection, settle what went through it, release by dropping.
//!
//! A request is counted against its agent, its team and its project, or against none of them: all three are held while
//! it is judged, always in this order, so that neither two requests share one place nor two threads wait for each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use clawgress_config::access::{Quota, Quotas};

use crate::Snapshot;
use crate::counter::{Counter, Names, Said, State};
use crate::share::Share;

/// The longest that a request of `soft-stop` is let wait.
pub const MAX_DELAY: Duration = Duration::from_secs(2);

/// The limit that is told while the quota service can't be reached and the configuration says to stop then.
pub const UNAVAILABLE: &str = "quota-service";
const WITHOUT_SHARE: Duration = Duration::from_secs(1);

/// Whom a request counts against.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub agent: &'a str,
    pub team: &'a str,
    pub project: &'a str,
}

#[derive(Debug)]
#[must_use = "a request that is not admitted must not go on"]
pub enum Outcome {
    Admit(Reservation),
    /// Admitted, but not before this time has passed.
    Delay(Duration, Reservation),
    Refuse {
        retry_after: Duration,
        /// Such as `agent-rps`.
        limit: &'static str,
    },
}

/// A request that has been counted; dropping it ends its connection.
#[derive(Debug)]
pub struct Reservation {
    counters: [Option<Arc<Counter>>; KINDS],
    /// The limit that it is beyond, where that only alerts.
    over: Option<&'static str>,
}

/// Whether a connection may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    Within,
    /// No more bytes until the period ends; the limit, such as `team-bytes`.
    Over(&'static str),
}

pub(crate) const KINDS: usize = 3;
/// In the order in which they are locked.
pub(crate) const NAMES: [Names; KINDS] = [
    Names {
        rps: "agent-rps",
        rpm: "agent-rpm",
        connections: "agent-connections",
        bytes: "agent-bytes",
    },
    Names {
        rps: "team-rps",
        rpm: "team-rpm",
        connections: "team-connections",
        bytes: "team-bytes",
    },
    Names {
        rps: "project-rps",
        rpm: "project-rpm",
        connections: "project-connections",
        bytes: "project-bytes",
    },
];

pub(crate) type Counters = HashMap<Box<str>, Arc<Counter>>;

/// Counters of agents, teams and projects.
#[derive(Default)]
pub(crate) struct Book(pub(crate) [Counters; KINDS]);

pub struct Ledger {
    book: ArcSwap<Book>,
    /// Which part of each limit is this gateway's.
    share: Arc<AtomicU64>,
    /// One change of the book at a time; holds what was used before this process, also by those without a quota so far.
    changing: Mutex<Snapshot>,
}

fn kinds(quotas: &Quotas) -> [&BTreeMap<String, Quota>; KINDS] {
    [&quotas.agents, &quotas.teams, &quotas.projects]
}

impl Ledger {
    pub fn new(quotas: &Quotas) -> Self {
        let ledger = Self {
            book: ArcSwap::from_pointee(Book::default()),
            share: Arc::new(AtomicU64::new(Share::WHOLE.packed())),
            changing: Mutex::default(),
        };
        ledger.replace(quotas, 0);
        ledger
    }

    /// Puts new limits in place; what was used stays used, also by those that have no quota for now.
    pub fn replace(&self, quotas: &Quotas, now_ns: u64) {
        let before = self.change();
        let old = self.book.load();
        let mut new = Book::default();
        let books = new.0.iter_mut().zip(&old.0).zip(kinds(quotas));
        for (((new, old), quotas), names) in books.zip(NAMES) {
            for (id, counter) in old {
                if !quotas.contains_key(&**id) {
                    let mut state = counter.lock();
                    state.set_quota(Quota::default());
                    if !state.is_idle(now_ns) {
                        new.insert(id.clone(), Arc::clone(counter));
                    }
                }
            }
            for (id, quota) in quotas {
                let counter = old.get(id.as_str()).map_or_else(
                    || Arc::new(Counter::new(names, *quota)),
                    |counter| {
                        counter.lock().set_quota(*quota);
                        Arc::clone(counter)
                    },
                );
                new.insert(id.as_str().into(), counter);
            }
        }
        self.book.store(Arc::new(new));
        self.take_up(&before);
    }

    pub(crate) fn change(&self) -> MutexGuard<'_, Snapshot> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn book(&self) -> Arc<Book> {
        self.book.load_full()
    }

    /// Which part of each limit is this gateway's from now on.
    pub fn set_share(&self, share: Share) {
        self.share.store(share.packed(), Ordering::Relaxed);
    }

    pub fn share(&self) -> Share {
        Share::unpacked(self.share.load(Ordering::Relaxed))
    }

    /// Judges and counts one request. Times are nanoseconds since 1970.
    pub fn reserve(&self, subject: &Subject<'_>, now_ns: u64) -> Outcome {
        let share = self.share();
        if share == Share::NONE {
            return Outcome::Refuse {
                retry_after: WITHOUT_SHARE,
                limit: UNAVAILABLE,
            };
        }
        let book = self.book.load();
        let ids = [subject.agent, subject.team, subject.project];
        let [agents, teams, projects] = &book.0;
        let found = [agents.get(ids[0]), teams.get(ids[1]), projects.get(ids[2])];
        let mut locked: [Option<MutexGuard<'_, State>>; KINDS] =
            found.map(|counter| counter.map(|counter| counter.lock()));
        let mut whole = Said::default();
        for (state, names) in locked.iter_mut().zip(NAMES) {
            let Some(state) = state else { continue };
            state.advance(now_ns, share);
            let said = state.judge(now_ns, names, share);
            whole.stop |= said.stop;
            whole.alert = whole.alert.or(said.alert);
            // The longest wait is the one that counts, and its limit the one that is told.
            if said.wait > whole.wait {
                whole.wait = said.wait;
            }
        }
        if let Some((wait, limit)) = whole.wait {
            let wait = Duration::from_nanos(wait);
            if whole.stop || wait > MAX_DELAY {
                return Outcome::Refuse {
                    retry_after: wait,
                    limit,
                };
            }
        }
        for state in locked.iter_mut().flatten() {
            state.take();
        }
        drop(locked);
        let reservation = Reservation {
            counters: found.map(Option::<&Arc<Counter>>::cloned),
            over: whole.alert,
        };
        match whole.wait {
            Some((wait, _)) => Outcome::Delay(Duration::from_nanos(wait), reservation),
            None => Outcome::Admit(reservation),
        }
    }

    /// Counts bytes of a reservation, both directions together; may be called as often as there are some.
    #[must_use = "a connection beyond its bytes must be cut"]
    pub fn settle(&self, reservation: &Reservation, bytes: u64, now_ns: u64) -> Spent {
        reservation.spend(bytes, now_ns, self.share())
    }
}

impl Reservation {
    /// The limit that this request is beyond, where the quota's mode only alerts.
    pub fn over(&self) -> Option<&'static str> {
        self.over
    }

    fn spend(&self, bytes: u64, now_ns: u64, share: Share) -> Spent {
        let mut spent = Spent::Within;
        for counter in self.counters.iter().flatten() {
            let mut state = counter.lock();
            state.advance(now_ns, share);
            if !state.spend(bytes) && spent == Spent::Within {
                spent = Spent::Over(counter.names.bytes);
            }
        }
        spent
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for counter in self.counters.iter().flatten() {
            counter.lock().release();
        }
    }
}
