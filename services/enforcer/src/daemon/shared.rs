//! What the daemon's tasks know of each other: the plan in force, the pins, what was counted, and what the resolver has
//! to be told. Whoever holds a lock here does no I/O with it, but for the pins and the meters, which belong to the kernel.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use clawgress_config::policy::DomainPattern;
use clawgress_link::control::CapUse;
use clawgress_policy::{Index, Moment, Revision};
use tokio::sync::{mpsc, watch};

use super::blocked;
use super::config::Config;
use super::trail::Trail;
use crate::front::live::Live;
use crate::pins::Pinner;
use crate::plan::{Blocked, Plan};
use crate::telemetry::deny_log::DenyLog;
use crate::telemetry::meters::Meters;
use crate::telemetry::ring::Rings;

/// A principal's name and the pattern of one of its caps.
pub(super) type CapKey = (String, DomainPattern);

/// What is enforced.
pub(super) struct InForce {
    /// Where the revision lies.
    pub(super) file: PathBuf,
    pub(super) digest: Arc<str>,
    pub(super) revision: Arc<Revision>,
    pub(super) index: Arc<Index>,
    pub(super) plan: Plan,
    pub(super) moment: Moment,
}

/// What clawgress-dns has to know; told anew on every connection and whenever it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Number and file. None: deny everything.
    pub(super) load: Option<(u64, PathBuf)>,
    /// What is likely to be loaded next.
    pub(super) prepare: Option<(u64, PathBuf)>,
    /// Of the order to load: the same revision may have to be loaded twice.
    pub(super) order: u64,
    pub(super) over_cap: Vec<(String, String)>,
    pub(super) clock_trusted: bool,
    pub(super) blocked: Blocked,
}

/// The resolver's answer to a `Load`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) revision: u64,
    pub(super) error: Option<String>,
}

pub(super) struct Shared {
    pub(super) config: Config,
    in_force: RwLock<Option<Arc<InForce>>>,
    /// Locked for as long as a transaction runs: no pin may go to a table that is being exchanged.
    pub(super) pinner: tokio::sync::Mutex<Pinner>,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) loaded: mpsc::Sender<Loaded>,
    pub(super) trail: Trail,
    rings: Mutex<Rings>,
    meters: Mutex<Meters>,
    live: Mutex<Live>,
    deny_log: Mutex<DenyLog>,
    over_cap: Mutex<BTreeSet<CapKey>>,
    blocked: Mutex<Blocked>,
    cap_use: Mutex<Vec<(String, CapUse)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        config: Config,
        pinner: Pinner,
        loaded: mpsc::Sender<Loaded>,
        trail: Trail,
    ) -> Self {
        let blocked = blocked::read(&config.state);
        Self {
            config,
            in_force: RwLock::default(),
            pinner: tokio::sync::Mutex::new(pinner),
            standing: watch::Sender::default(),
            loaded,
            trail,
            rings: Mutex::default(),
            meters: Mutex::default(),
            live: Mutex::default(),
            deny_log: Mutex::default(),
            over_cap: Mutex::default(),
            blocked: Mutex::new(blocked),
            cap_use: Mutex::default(),
        }
    }

    /// None: the box is sealed.
    pub(super) fn in_force(&self) -> Option<Arc<InForce>> {
        let held = self.in_force.read();
        held.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn put_in_force(&self, new: Option<Arc<InForce>>) {
        let mut held = self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *held = new;
    }

    pub(super) fn rings(&self) -> MutexGuard<'_, Rings> {
        locked(&self.rings)
    }

    /// To be locked before `rings`.
    pub(super) fn meters(&self) -> MutexGuard<'_, Meters> {
        locked(&self.meters)
    }

    pub(super) fn live(&self) -> MutexGuard<'_, Live> {
        locked(&self.live)
    }

    pub(super) fn deny_log(&self) -> MutexGuard<'_, DenyLog> {
        locked(&self.deny_log)
    }

    pub(super) fn over_cap(&self) -> MutexGuard<'_, BTreeSet<CapKey>> {
        locked(&self.over_cap)
    }

    /// Whom the kill switch holds.
    pub(super) fn blocked(&self) -> MutexGuard<'_, Blocked> {
        locked(&self.blocked)
    }

    /// By principal.
    pub(super) fn cap_use(&self) -> MutexGuard<'_, Vec<(String, CapUse)>> {
        locked(&self.cap_use)
    }
}
