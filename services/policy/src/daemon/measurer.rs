//! Coalesces measurements: at most one runs at a time, and its result serves everybody who asks within a second of
//! its end. A flood of health calls thus costs the daemons one probe a second.
//!
//! Never serves a result older than that, and never one that nobody measured.

use std::{sync::Arc, time::Duration};

use clawgress_link::admin::Health;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// How long a result may be told again.
const FRESH: Duration = Duration::from_secs(1);
/// Askers who may wait at once; more of them wait to be allowed to wait.
const WAITING: usize = 64;

/// A handle to the one task that measures.
#[derive(Debug, Clone)]
pub(crate) struct Measurer(mpsc::Sender<oneshot::Sender<Arc<Health>>>);

/// Whoever can take a measurement.
pub(crate) trait Source: Send + 'static {
    fn take(&mut self) -> impl Future<Output = Health> + Send;
}

impl Measurer {
    /// Measures in a task of its own: an asker who hangs up stops no measurement, and starts no second one.
    pub(crate) fn start(mut source: impl Source) -> Self {
        let (askers, mut queue) = mpsc::channel::<oneshot::Sender<Arc<Health>>>(WAITING);
        tokio::spawn(async move {
            let mut last: Option<(Instant, Arc<Health>)> = None;
            while let Some(asker) = queue.recv().await {
                let health = match &last {
                    Some((ended, health)) if ended.elapsed() < FRESH => Arc::clone(health),
                    _ => {
                        let health = Arc::new(source.take().await);
                        last = Some((Instant::now(), Arc::clone(&health)));
                        health
                    }
                };
                // An asker may have gone already.
                asker.send(health).ok();
            }
        });
        Self(askers)
    }

    /// What is measured now, or was less than a second ago. `None` only while the service ends.
    pub(crate) async fn health(&self) -> Option<Arc<Health>> {
        let (asker, answer) = oneshot::channel();
        self.0.send(asker).await.ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use clawgress_link::health::Report;

    use super::*;

    /// Takes 200 ms for each measurement and counts them.
    struct Counting(Arc<AtomicU32>);

    impl Source for Counting {
        async fn take(&mut self) -> Health {
            self.0.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(200)).await;
            Health {
                report: Report::of(Vec::new()),
                revision: None,
                generation: None,
                clock_trusted: None,
                dns: false,
                services: Vec::new(),
                services_wanted: false,
            }
        }
    }

    fn counting() -> (Measurer, Arc<AtomicU32>) {
        let taken = Arc::new(AtomicU32::new(0));
        (Measurer::start(Counting(Arc::clone(&taken))), taken)
    }

    #[tokio::test]
    async fn a_flood_of_askers_is_one_measurement() {
        let (measurer, taken) = counting();
        let mut askers = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let measurer = measurer.clone();
            askers.spawn(async move { measurer.health().await });
        }
        assert!(askers.join_all().await.iter().all(Option::is_some));
        assert_eq!(taken.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_result_is_told_for_a_second_and_no_longer() {
        let (measurer, taken) = counting();
        measurer.health().await.unwrap();
        measurer.health().await.unwrap();
        assert_eq!(taken.load(Ordering::SeqCst), 1);
        tokio::time::sleep(FRESH).await;
        measurer.health().await.unwrap();
        assert_eq!(taken.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_asker_who_hangs_up_neither_stops_nor_repeats_a_measurement() {
        let (measurer, taken) = counting();
        for _ in 0..5 {
            let hasty = tokio::time::timeout(Duration::from_millis(10), measurer.health()).await;
            assert!(hasty.is_err());
        }
        assert!(measurer.health().await.is_some());
        assert_eq!(taken.load(Ordering::SeqCst), 1);
    }
}
