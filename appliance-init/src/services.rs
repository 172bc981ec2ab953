//! The services around the gateway: started once the box enforces, and looked at from then on.
//!
//! Nothing in here seals the box or opens it. Whichever of them is missing, the gateway admits less for it, and what
//! passes without the gateway is not theirs to judge.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clawgress_link::services::Service;
use clawgress_link::units;
use tokio::time::{Instant, sleep};

use crate::board::Board;
use crate::bus;
use crate::clock::since_boot_ms;
use crate::daemons::QUESTION;
use crate::paths::Paths;

const START: Duration = Duration::from_secs(90);
/// A first start makes keys and certificates.
const PROOF: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_secs(15);

/// Never ends. systemd restarts what dies; here it is found out and told.
pub(crate) async fn keep(paths: Paths, board: Arc<Board>) {
    loop {
        match bus::connect().await {
            Ok(bus) => look(&bus, &paths, &board).await,
            Err(error) => eprintln!("starting the services around the gateway: {error:#}"),
        }
        sleep(LOOK).await;
    }
}

async fn look(bus: &zbus::Connection, paths: &Paths, board: &Board) {
    if units::is_stopping(bus).await.unwrap_or(false) {
        return;
    }
    for service in Service::ALL {
        let started = since_boot_ms();
        let outcome = hold(bus, paths, board, service).await;
        board.record(service.word(), started, outcome);
    }
}

/// Starts the service if it was never well, and asks it.
async fn hold(
    bus: &zbus::Connection,
    paths: &Paths,
    board: &Board,
    service: Service,
) -> Result<String> {
    let state = units::state(bus, service.unit()).await.map_err(told)?;
    if !state.is_up() {
        if board.is_ok(service.word()) {
            bail!("{} is {state}", service.unit());
        }
        units::start(bus, service.unit(), START)
            .await
            .map_err(told)?;
    }
    let end = Instant::now() + PROOF;
    loop {
        match service.probe(&paths.run(), QUESTION).await {
            Ok(detail) => return Ok(detail),
            Err(error) if board.is_ok(service.word()) || Instant::now() > end => {
                return Err(told(error));
            }
            Err(_) => sleep(Duration::from_millis(250)).await,
        }
    }
}

/// Its text holds the cause already.
fn told(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}
