//! What has to be done every minute: a checkpoint, retention; and now and then the whole trail proved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::alerts::Alerts;
use crate::config::Config;
use crate::disk::DiskError;
use crate::event::Micros;
use crate::forward::Watch;
use crate::metrics::Proof;
use crate::store::{Clock, Retention, Store};
use crate::verify::{Report, Trust, verify_slowly};

/// Rounds between two looks at what is over its time or room.
const PRUNE_EVERY: u32 = 10;
/// When all is started, and then twice a day: it reads everything.
const FIRST_PROOF: Duration = Duration::from_secs(30);
const PROVE_EVERY: Duration = Duration::from_secs(12 * 3600);
const PROVE_AGAIN: Duration = Duration::from_secs(60);
/// Between two segments.
const LONGEST_REST: Duration = Duration::from_secs(2);

pub(super) async fn keep(
    store: Arc<Store>,
    config: Arc<Config>,
    retention: watch::Receiver<Retention>,
    forwarders: Watch,
    alerts: Alerts,
) {
    let every = Duration::from_secs(config.checkpoint_seconds);
    let mut clock = Clock::starting(Micros::now(), store.status().checkpoint);
    let mut looked = Instant::now();
    let mut round = 0_u32;
    loop {
        tokio::time::sleep(every).await;
        round = round.wrapping_add(1);
        let now = clock.step(
            Micros::now(),
            std::mem::replace(&mut looked, Instant::now()).elapsed(),
        );
        let keeping = Arc::clone(&store);
        let (retention, awaited) = (*retention.borrow(), forwarders.awaited());
        let done = tokio::task::spawn_blocking(move || {
            keeping.checkpoint(Micros::now())?;
            if round % PRUNE_EVERY == 1 {
                return keeping.prune(retention, now, awaited);
            }
            Ok(Vec::new())
        });
        match done.await {
            Ok(Ok(gone)) => {
                for gone in gone {
                    let about = format!("segment {}", gone.segment);
                    tracing::info!("{about} is over its time or room; its seal stays");
                    if gone.awaited {
                        alerts
                            .notice("pruned-unforwarded", format!("{about}: there was no room for it, and a collector has not got all of it"))
                            .await;
                    } else {
                        alerts.notice("pruned", about).await;
                    }
                }
                tell_stop(store.status().retention_stops_at, &alerts).await;
            }
            Ok(Err(error)) => tracing::error!("keeping the audit store: {error}"),
            // A panic in there has been told already.
            Err(_) => {}
        }
    }
}

/// Where retention stops, the disk fills in the end: somebody has to look at it before.
async fn tell_stop(at: Option<u64>, alerts: &Alerts) {
    const KEY: &str = "retention";
    match at {
        Some(segment) => {
            let about = format!(
                "segment {segment} is not sealed as it should be; look at it with `clawgress audit verify`, and move it away"
            );
            alerts.begins(KEY, "retention-stopped", about).await;
        }
        None => {
            alerts
                .ends(KEY, "retention-resumed", "retention".to_owned())
                .await;
        }
    }
}

/// Ends what a blocking thread does when its task is gone, so that the service stops at once.
struct UntilDropped(Arc<AtomicBool>);

impl Drop for UntilDropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

pub(super) async fn keep_proving(store: Arc<Store>, proof: Proof, alerts: Alerts) {
    let over = UntilDropped(Arc::default());
    tokio::time::sleep(FIRST_PROOF).await;
    loop {
        let (proving, over) = (Arc::clone(&store), Arc::clone(&over.0));
        let proved = tokio::task::spawn_blocking(move || prove(&proving, &over)).await;
        let pause = match proved {
            Ok(Ok(Some(report))) => {
                tell(&report, &alerts).await;
                proof.tell(Micros::now(), &report);
                PROVE_EVERY
            }
            Ok(Err(error)) => {
                // Retention may have taken a segment from under it.
                tracing::warn!("proving the audit trail: {error}; it is tried again");
                PROVE_AGAIN
            }
            // A panic in there has been told already.
            Ok(Ok(None)) | Err(_) => PROVE_EVERY,
        };
        tokio::time::sleep(pause).await;
    }
}

fn prove(store: &Store, over: &AtomicBool) -> Result<Option<Report>, DiskError> {
    let trust = Trust {
        key: Some(store.public_key()),
        anchors: &[],
        growing: Some(store.growing()),
    };
    let mut began = Instant::now();
    verify_slowly(store.place(), &trust, || {
        // Whoever waits for the processor comes first.
        std::thread::sleep((began.elapsed() * 3).min(LONGEST_REST));
        began = Instant::now();
        !over.load(Ordering::Acquire)
    })
}

async fn tell(report: &Report, alerts: &Alerts) {
    const KEY: &str = "verify";
    match report.faults.first() {
        None => {
            alerts
                .ends(KEY, "verify-good", "the audit trail".to_owned())
                .await
        }
        Some(first) => {
            tracing::error!(
                "the audit trail does not prove: {first}{}",
                match report.faults.len() {
                    1 => String::new(),
                    all => format!(", and {} more; see `clawgress audit verify`", all - 1),
                }
            );
            alerts.begins(KEY, "verify-failed", first.to_string()).await;
        }
    }
}
