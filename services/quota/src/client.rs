//! A gateway's side of its lease: renews it, tells what was used, and acts on the fail mode when nobody answers.
//!
//! No request ever waits for it: the ledger decides by what it was told last.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clawgress_config::access::FailMode;
use tokio::sync::{oneshot, watch};

use crate::lease::DRAINING;
use crate::wire::{LeaseError, Renewal, Reply, renew};
use crate::{Ledger, Share, Snapshot};

const RENEWAL: Duration = Duration::from_millis(400);
const DEADLINE: Duration = Duration::from_millis(400);
/// After giving up a part: the others hear of it with their next renewal.
const SOON: Duration = Duration::from_millis(20);

pub struct Client {
    /// Tells this gateway from others; an id.
    gateway: String,
    socket: PathBuf,
    ledger: Arc<Ledger>,
    /// What the service knows already.
    told: Snapshot,
    fresh: bool,
    until: Option<Instant>,
}

impl Client {
    /// From now on the ledger gives nothing away without a lease.
    pub fn new(gateway: String, socket: PathBuf, ledger: Arc<Ledger>) -> Self {
        ledger.set_share(Share::NONE);
        Self {
            gateway,
            socket,
            ledger,
            told: Snapshot::default(),
            fresh: true,
            until: None,
        }
    }

    /// Renews for ever. `fail` tells what the configuration says now; without a lease nothing is used unless it is open.
    pub async fn run(self, fail: impl Fn() -> FailMode) {
        let (_never, told) = watch::channel(false);
        let (handed_over, _nobody) = oneshot::channel();
        self.run_until(fail, told, handed_over).await;
    }

    /// As `run`, until this gateway is told to hand over: it gives its part up and tells all that it has used, so that its
    /// successor begins with that under the same name. From then on it only tells the bytes of what it still has open.
    pub async fn run_until(
        mut self,
        fail: impl Fn() -> FailMode,
        mut told: watch::Receiver<bool>,
        handed_over: oneshot::Sender<()>,
    ) {
        let ending = async move {
            // A sender that is gone says nothing.
            if told.wait_for(|told| *told).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let mut ending = std::pin::pin!(ending);
        self.ledger.set_share(without_lease(Share::NONE, fail()));
        let mut reachable = true;
        loop {
            match self.renew().await {
                Ok(()) => {
                    if !reachable {
                        tracing::info!("clawgress-quota answers again");
                    }
                    reachable = true;
                }
                Err(error) => {
                    if reachable {
                        tracing::error!("{error}; the fail mode is {}", fail().word());
                    }
                    reachable = false;
                    if self.until.is_none_or(|until| until <= Instant::now()) {
                        let share = without_lease(self.ledger.share(), fail());
                        self.ledger.set_share(share);
                    }
                }
            }
            let waiting = reachable && self.ledger.share() == Share::NONE;
            let pause = tokio::time::sleep(if waiting { SOON } else { RENEWAL });
            tokio::select! {
                () = pause => {}
                () = &mut ending => break,
            }
        }
        self.hand_over().await;
        // Nobody may be waiting any more.
        let _ = handed_over.send(());
        self.tell_bytes().await;
    }

    /// What is still under way here goes on and is not admitted anew; without an answer the lease ends by itself.
    async fn hand_over(&mut self) {
        self.ledger.set_share(Share::NONE);
        self.until = None;
        if let Err(error) = self.renew().await {
            tracing::warn!("handing the quotas over: {error}");
        }
        // Whatever it was told: it is the successor's.
        self.ledger.set_share(Share::NONE);
    }

    async fn tell_bytes(self) {
        let gateway = format!("{DRAINING}{}-{}", self.gateway, std::process::id());
        loop {
            tokio::time::sleep(RENEWAL).await;
            let renewal = Renewal {
                gateway: gateway.clone(),
                holds: Share::NONE,
                used: self.ledger.snapshot().bytes_beyond(&self.told),
                fresh: false,
            };
            if let Err(error) = renew(&self.socket, &renewal, DEADLINE).await {
                tracing::warn!("telling what a drained connection used: {error}");
            }
        }
    }

    /// Asks once.
    pub async fn renew(&mut self) -> Result<(), LeaseError> {
        let used = self.ledger.snapshot();
        let renewal = Renewal {
            gateway: self.gateway.clone(),
            holds: self.held(),
            used: used.since(&self.told),
            fresh: self.fresh,
        };
        // The service may count the lease from later, never from earlier.
        let asked = Instant::now();
        let reply = renew(&self.socket, &renewal, DEADLINE).await?;
        let Reply::Lease {
            share,
            lease_ms,
            others,
            remembered,
        } = reply
        else {
            return Ok(());
        };
        if let Some(remembered) = remembered {
            self.ledger.restore(&remembered);
        }
        // What a first renewal tells is not taken up: it might be less than what is remembered.
        if !std::mem::take(&mut self.fresh) {
            self.told = used;
        }
        self.ledger.set_others(&others);
        self.ledger.set_share(share);
        self.until = Some(asked + Duration::from_millis(lease_ms));
        Ok(())
    }

    /// A part that was taken without a lease is none.
    fn held(&self) -> Share {
        match self.until {
            Some(until) if until > Instant::now() => self.ledger.share(),
            _ => Share::NONE,
        }
    }
}

/// Open: goes on with what it had, or alone. Never more than the limits for this one gateway.
fn without_lease(share: Share, fail: FailMode) -> Share {
    match fail {
        FailMode::Closed => Share::NONE,
        FailMode::Open if share == Share::NONE => Share::WHOLE,
        FailMode::Open => share,
    }
}
