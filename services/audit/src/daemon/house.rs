//! What has to be done every minute: a checkpoint, retention; and now and then the whole trail proved.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::alerts::Alerts;
use crate::config::Config;
use crate::event::Micros;
use crate::forward::Watch;
use crate::metrics::Proof;
use crate::store::{Clock, Retention, Store};
use crate::verify::{Report, Trust, verify};

/// Rounds between two looks at what is over its time or room.
const PRUNE_EVERY: u32 = 10;
/// When all is started, and then twice a day: it reads everything.
const FIRST_PROOF: Duration = Duration::from_secs(30);
const PROVE_EVERY: Duration = Duration::from_secs(12 * 3600);

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
            }
            Ok(Err(error)) => tracing::error!("keeping the audit store: {error}"),
            // A panic in there has been told already.
            Err(_) => {}
        }
    }
}

pub(super) async fn keep_proving(store: Arc<Store>, proof: Proof, alerts: Alerts) {
    tokio::time::sleep(FIRST_PROOF).await;
    loop {
        let proving = Arc::clone(&store);
        let proved = tokio::task::spawn_blocking(move || {
            let trust = Trust {
                key: Some(proving.public_key()),
                anchors: &[],
                growing: Some(proving.growing()),
            };
            verify(proving.place(), &trust)
        });
        match proved.await {
            Ok(Ok(report)) => {
                tell(&report, &alerts).await;
                proof.tell(Micros::now(), &report);
            }
            Ok(Err(error)) => tracing::error!("proving the audit trail: {error}"),
            // A panic in there has been told already.
            Err(_) => {}
        }
        tokio::time::sleep(PROVE_EVERY).await;
    }
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
