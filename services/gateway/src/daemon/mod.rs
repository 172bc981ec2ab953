//! The service around the gateway: keeps its snapshot new, its listeners where the revision wants them, its events shipped.

pub mod control;
pub mod doors;
pub mod kept;
pub mod listeners;
pub mod parent;
pub mod snapshots;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clawgress_audit::queue::{OpenError, Queue, Settings};
use clawgress_config::access::FailMode;
use clawgress_link::error::ProbeError;
use clawgress_quota::Ledger;
use clawgress_quota::client::Client;
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};

use crate::clock::Watch;
use crate::config::Config;
use crate::judge::{Blocked, BlockedError, Judge, Own, since_1970};
use kept::Kept;

const TICK: Duration = Duration::from_millis(200);
/// Ticks between two looks at what changes seldom.
const SELDOM: u32 = 5;
/// As this gateway calls itself to audit and quota.
pub const NAME: &str = "gateway";

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("opening the audit queue below {}: {source}", path.display())]
    Queue { path: PathBuf, source: OpenError },
    #[error(transparent)]
    Blocked(#[from] BlockedError),
    #[error(transparent)]
    Ask(#[from] ProbeError),
}

/// A judge, and the tasks that keep it going.
pub struct Running {
    pub judge: Arc<Judge>,
    draining: watch::Sender<bool>,
    handed_over: Option<oneshot::Receiver<()>>,
}

/// Where the kill switch is kept.
pub fn blocked_file(config: &Config) -> PathBuf {
    config.state.join("blocked.json")
}

/// The judge with all that it writes to, and the tasks that keep these going.
pub fn judge(config: &Config) -> Result<Running, StartError> {
    let path = config.state.join("queue");
    // What a revision says of durability counts from the next start: a queue is opened once.
    let audit = snapshots::read(&config.revision)
        .or_else(|| Kept::below(&config.state).revision())
        .map(|revision| revision.access.audit)
        .unwrap_or_default();
    let settings = Settings {
        durability: audit.durability,
        when_full: audit.when_full,
        max_bytes: config.limits.queue_bytes,
        share_per_agent: config.limits.queue_bytes_per_agent,
    };
    let queue =
        Queue::open(&path, settings).map_err(|source| StartError::Queue { path, source })?;
    let ledger = Arc::new(Ledger::new(&clawgress_config::access::Quotas::default()));
    let blocked = Blocked::read(&blocked_file(config))?;
    let judge = Judge::new(queue, Arc::clone(&ledger), blocked);
    let judge = Arc::new(judge.with_counter(config.counted_socket.clone()));
    let reader = judge.queue().reader();
    let socket = config.ship_socket.clone();
    tokio::spawn(async move {
        clawgress_audit::ship::keep_shipping(|| UnixStream::connect(socket.clone()), reader, NAME)
            .await;
    });
    let (draining, told) = watch::channel(false);
    // A name that outlives restarts: what was used under it is remembered, and no part of a dead process lingers.
    let lease = Client::new(NAME.to_owned(), config.quota_socket.clone(), ledger);
    let of_fail_mode = Arc::clone(&judge);
    let fail = move || {
        of_fail_mode
            .snapshot()
            .map_or(FailMode::Closed, |snapshot| snapshot.policy.quotas().fail)
    };
    let (handing_over, handed_over) = oneshot::channel();
    tokio::spawn(lease.run_until(fail, told, handing_over));
    tokio::spawn(keep_time(Arc::clone(&judge), config.clone()));
    Ok(Running {
        judge,
        draining,
        handed_over: Some(handed_over),
    })
}

impl Running {
    /// Hands its quotas over: from now on a successor has them.
    pub async fn hand_over(&mut self) {
        self.draining.send_replace(true);
        // Soon; what could not be told is lost with the service that it would have been told.
        if let Some(handed_over) = self.handed_over.take() {
            let _ = handed_over.await;
        }
    }
}

/// What is true of the machine is looked at here, and who is blocked while a successor is the one that is told.
async fn keep_time(judge: Arc<Judge>, config: Config) {
    let mut tick = tokio::time::interval(TICK);
    let mut watch = Watch::new(&config.state.join("clock"));
    let mut ticks: u32 = 0;
    loop {
        tick.tick().await;
        let disciplined = crate::clock::is_disciplined();
        judge.trust_clock(disciplined);
        judge.take_clock(watch.look(
            since_1970(),
            std::time::Instant::now(),
            disciplined || judge.believes_hardware_clock(),
        ));
        judge.look_at_the_clock();
        if ticks.is_multiple_of(SELDOM) {
            judge.tell_folded();
            match Own::read() {
                Ok(own) => judge.take_own(own),
                Err(error) => tracing::error!(
                    "listing this box's own addresses: {error}; the ones known before hold"
                ),
            }
        }
        ticks = ticks.wrapping_add(1);
    }
}

/// A successor hears of a change first: while this process drains, the file that both keep is looked at.
pub async fn follow_blocked(judge: Arc<Judge>, file: PathBuf) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        match Blocked::read(&file) {
            Ok(blocked) if blocked != *judge.blocked() => judge.block(blocked),
            Ok(_) => {}
            Err(error) => tracing::error!("{error}; who was blocked stays so"),
        }
    }
}
