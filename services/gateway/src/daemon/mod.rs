//! The service around the gateway: keeps its snapshot new, its listeners where the revision wants them, its events shipped.

pub mod control;
pub mod listeners;
pub mod snapshots;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clawgress_audit::queue::{OpenError, Queue, Settings};
use clawgress_config::access::FailMode;
use clawgress_link::error::ProbeError;
use clawgress_quota::Ledger;
use tokio::net::UnixStream;

use crate::config::Config;
use crate::judge::{Blocked, BlockedError, Judge};

const TICK: Duration = Duration::from_millis(200);
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

/// Where the kill switch is kept.
pub fn blocked_file(config: &Config) -> PathBuf {
    config.state.join("blocked.json")
}

/// The judge with all that it writes to, and the tasks that keep these going.
pub fn judge(config: &Config) -> Result<Arc<Judge>, StartError> {
    let path = config.state.join("queue");
    // What a revision says of durability counts from the next start: a queue is opened once.
    let audit = snapshots::read(&config.revision)
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
    let judge = Arc::new(Judge::new(
        queue,
        Arc::clone(&ledger),
        Blocked::read(&blocked_file(config))?,
    ));
    let reader = judge.queue().reader();
    let socket = config.ship_socket.clone();
    tokio::spawn(async move {
        clawgress_audit::ship::keep_shipping(|| UnixStream::connect(socket.clone()), reader, NAME)
            .await;
    });
    let name = format!("{NAME}-{}", std::process::id());
    let lease = clawgress_quota::client::Client::new(name, config.quota_socket.clone(), ledger);
    let of_fail_mode = Arc::clone(&judge);
    tokio::spawn(lease.run(move || {
        of_fail_mode
            .snapshot()
            .map_or(FailMode::Closed, |snapshot| snapshot.policy.quotas().fail)
    }));
    tokio::spawn(keep_time(Arc::clone(&judge)));
    Ok(judge)
}

async fn keep_time(judge: Arc<Judge>) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        judge.trust_clock(crate::clock::is_disciplined());
        judge.look_at_the_clock();
    }
}
