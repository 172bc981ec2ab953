//! The seam to who asks, what they may, how much, and what is written down about it. No other module of the gateway
//! knows identity, rules, quota or audit.
//!
//! Everything is judged on one snapshot that is replaced whole; nothing here waits for another service. What can't be
//! judged is denied, and a decision that can't be recorded lets nothing through.

mod admit;
mod again;
mod agents;
mod blocked;
mod counted;
mod events;
mod folded;
mod own;
mod snapshot;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use clawgress_audit::queue::Queue;
use clawgress_identity::Identity;
use clawgress_link::counted::{Class, Leg};
use clawgress_policy::{Moment, Reason};
use clawgress_quota::{Ledger, Reservation, Share, Spent};
use tokio::sync::watch;

pub use admit::{Admission, Asked, Shown};
pub use again::Proved;
pub use agents::Seat;
pub use blocked::{Blocked, BlockedError};
pub use events::{End, Kind};
pub use own::Own;
pub use snapshot::{Compiled, Snapshot, SnapshotError};

use agents::Agents;
use folded::Folded;

use crate::clock::Look;
use crate::metrics::Metrics;
use crate::request_id::RequestId;
use crate::wire::target::Host;

/// What a flow is judged by, now and whenever something changes.
pub struct Subject {
    pub id: RequestId,
    pub identity: Arc<Identity>,
    pub source: IpAddr,
    pub host: Host,
    pub port: u16,
    pub method: Box<str>,
    /// Canonical. None: it can't be seen.
    pub path: Option<Box<str>>,
    pub tunnel: bool,
    /// Something else than TLS runs in it, or it has changed its protocol.
    pub plain: AtomicBool,
    pub upgraded: bool,
    /// The address that was dialled; unspecified before.
    pub dialled: ArcSwapOption<IpAddr>,
    /// The gateway's own connection to it.
    leg: Mutex<Option<Leg>>,
    /// What the kernel counts that connection as.
    counted: ArcSwapOption<Class>,
    reservation: Reservation,
    /// Bytes of both directions that its quotas were told of.
    settled: AtomicU64,
    _open: Arc<agents::Open>,
}

pub struct Judge {
    snapshot: ArcSwapOption<Snapshot>,
    blocked: ArcSwap<Blocked>,
    queue: Queue,
    ledger: Arc<Ledger>,
    agents: Arc<Agents>,
    folded: Folded,
    metrics: Arc<Metrics>,
    /// Of the enforcer.
    counter: Option<PathBuf>,
    /// None: the kernel has not been asked yet, so nothing may be dialled.
    own: ArcSwapOption<Own>,
    clock_trusted: AtomicBool,
    /// The clock shows a time before one that it has shown already: nobody may believe it then.
    clock_behind: AtomicBool,
    /// The moment at which something next opens or closes; 0: never.
    next_change: AtomicI64,
    /// Rises whenever open flows have to be judged again.
    generation: watch::Sender<u64>,
}

impl Judge {
    pub fn new(queue: Queue, ledger: Arc<Ledger>, blocked: Blocked) -> Self {
        Self {
            snapshot: ArcSwapOption::empty(),
            blocked: ArcSwap::from_pointee(blocked),
            queue,
            ledger,
            agents: Arc::default(),
            folded: Folded::default(),
            metrics: Arc::default(),
            counter: None,
            own: ArcSwapOption::empty(),
            clock_trusted: AtomicBool::new(false),
            clock_behind: AtomicBool::new(false),
            next_change: AtomicI64::new(0),
            generation: watch::Sender::new(0),
        }
    }

    /// From now on this is what holds, for open flows as well.
    pub fn take(&self, snapshot: Arc<Snapshot>) {
        self.ledger.replace(snapshot.policy.quotas(), now_ns());
        self.snapshot.store(Some(snapshot));
        self.judge_again();
    }

    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    /// Of which issuers tokens named keys that this snapshot does not have, since this was asked last.
    pub fn take_missed(&self) -> BTreeSet<String> {
        self.snapshot
            .load()
            .as_ref()
            .map(|snapshot| snapshot.directory.take_missed())
            .unwrap_or_default()
    }

    /// Whether there is something to judge by, and a part of the quotas to give away.
    pub fn is_ready(&self) -> bool {
        self.snapshot.load().is_some() && self.ledger.share() != Share::NONE
    }

    pub fn blocked(&self) -> Arc<Blocked> {
        self.blocked.load_full()
    }

    pub fn block(&self, blocked: Blocked) {
        self.blocked.store(Arc::new(blocked));
        self.judge_again();
    }

    /// Whether a time server holds the clock, as somebody has found just now.
    pub fn trust_clock(&self, trusted: bool) {
        if self.clock_trusted.swap(trusted, Ordering::Relaxed) != trusted {
            self.judge_again();
        }
    }

    /// What a look at the clock has found: a jump is written down, and flows are judged again by the time of now.
    pub fn take_clock(&self, look: Look) {
        let turned = self.clock_behind.swap(look.is_behind, Ordering::Relaxed) != look.is_behind;
        if let Some(seconds) = look.jump {
            tracing::warn!("the clock was set by {seconds} s; open flows are judged again");
            self.metrics.clock_jumped();
            self.record_jump(seconds);
        }
        if turned || look.jump.is_some() {
            self.judge_again();
        }
    }

    /// Whether a time server's clock, or one that the revision believes, shows what may be true.
    pub fn believes_clock(&self) -> bool {
        self.believes(self.believes_hardware_clock())
    }

    /// Whether the revision says to believe the clock without a time server.
    pub fn believes_hardware_clock(&self) -> bool {
        self.snapshot
            .load()
            .as_ref()
            .is_some_and(|snapshot| snapshot.policy.trusts_hardware_clock())
    }

    fn believes(&self, hardware: bool) -> bool {
        !self.clock_behind.load(Ordering::Relaxed)
            && (hardware || self.clock_trusted.load(Ordering::Relaxed))
    }

    /// The box's own addresses as they are now; flows that lead to one of them end.
    pub fn take_own(&self, own: Own) {
        if self.own.load().as_deref() != Some(&own) {
            self.own.store(Some(Arc::new(own)));
            self.judge_again();
        }
    }

    fn own(&self) -> Option<Arc<Own>> {
        self.own.load_full()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// To be called often: open flows are judged again when a window has opened or closed.
    pub fn look_at_the_clock(&self) {
        let next = self.next_change.load(Ordering::Relaxed);
        if next != 0 && now() >= next {
            self.judge_again();
        }
    }

    /// Tells each time open flows have to be judged again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Whom a denied agent is told to ask.
    pub fn contact(&self) -> Option<String> {
        self.snapshot
            .load()
            .as_ref()
            .and_then(|snapshot| snapshot.policy.settings.contact.clone())
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Counts what a flow has carried so far against its quotas; it must not go on beyond them.
    pub fn settle(&self, subject: &Subject, bytes: u64) -> Result<(), Reason> {
        settle(&self.ledger, subject, bytes)
    }

    fn judge_again(&self) {
        let next = self
            .snapshot
            .load()
            .as_ref()
            .and_then(|snapshot| snapshot.policy.next_change(self.moment(snapshot)));
        self.next_change.store(next.unwrap_or(0), Ordering::Relaxed);
        self.generation
            .send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    fn moment(&self, snapshot: &Snapshot) -> Moment {
        Moment {
            now: now(),
            trusted: self.believes(snapshot.policy.trusts_hardware_clock()),
        }
    }
}

fn settle(ledger: &Ledger, subject: &Subject, bytes: u64) -> Result<(), Reason> {
    let more = bytes.saturating_sub(subject.settled.swap(bytes, Ordering::Relaxed));
    if more == 0 {
        return Ok(());
    }
    match ledger.settle(&subject.reservation, more, now_ns()) {
        Spent::Within => Ok(()),
        Spent::Over(_) => Err(Reason::OverQuota),
    }
}

fn now() -> i64 {
    i64::try_from(since_1970().as_secs()).unwrap_or(i64::MAX)
}

fn now_ns() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

/// The one place of the gateway that reads the clock on the wall. Before 1970: a machine without a clock, whom nobody trusts.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
