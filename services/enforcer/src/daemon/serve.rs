//! Starts everything in the order in which the parts need each other, and ends when it is told to.
//!
//! An end changes nothing in the kernel: the ruleset stays, and the next process takes it over.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use clawgress_audit::ship::keep_shipping;
use clawgress_link::service::Stop;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use super::applied::{APPLIED, Applied};
use super::clock::{Clock, since_boot};
use super::config::Config;
use super::control::{self, Control};
use super::keeper::{Keeper, sealed_status};
use super::shared::Shared;
use super::trail::{self, Trail};
use super::{candidate, counted, flows, observe, quotas, resolver};
use crate::apply::files;
use crate::kernel::Socket;
use crate::pins::Pinner;

/// Orders that may wait; one at a time is obeyed.
const ORDERS: usize = 16;

/// Runs until SIGTERM or SIGINT.
pub async fn serve(config: Config, mut stop: Stop) -> anyhow::Result<()> {
    make_directories(&config).map_err(|error| anyhow!(error))?;

    let pinner = Pinner::open(&config.run("pins.journal"), config.limits(), since_boot())?;
    let (loaded, loads) = mpsc::channel(64);
    let clock = Clock::open(&config.state);
    let front_log = flows::open(
        &config.places().log,
        config.front.log_group.or(config.group),
    )
    .map_err(|error| anyhow!(error))?;
    let pins = resolver::open(&config).map_err(|error| anyhow!(error))?;
    let listener = control::open(&config).map_err(|error| anyhow!(error))?;
    let proxied = counted::open(&config).map_err(|error| anyhow!(error))?;
    let queue = config.state.join("queue");
    let trail = Trail::open(&queue, &config.audit)
        .with_context(|| format!("opening the audit queue {}", queue.display()))?;
    let (socket, reader) = (config.audit.ship_socket.clone(), trail.reader());
    tokio::spawn(async move {
        keep_shipping(
            || UnixStream::connect(socket.clone()),
            reader,
            trail::SHIPPER,
        )
        .await;
    });
    let shared = Arc::new(Shared::new(config, pinner, loaded, trail));

    observe::denials(Arc::clone(&shared), Handle::current()).map_err(|error| anyhow!(error))?;
    observe::ended_flows(Arc::clone(&shared), Handle::current()).map_err(|error| anyhow!(error))?;
    // Before the keeper changes it.
    let generation = Applied::read(&shared.config.run(APPLIED)).map(|applied| applied.generation);
    let (orders, obeyed) = mpsc::channel(ORDERS);
    let (status, told) = watch::channel(sealed_status("starting"));
    let keeper = Keeper::new(Arc::clone(&shared), clock, Socket::open()?, loads, status);
    tokio::spawn(resolver::serve(Arc::clone(&shared), pins));
    tokio::spawn(resolver::sweep(Arc::clone(&shared)));
    tokio::spawn(flows::keep(
        Arc::clone(&shared),
        front_log,
        Socket::to_sockets()?,
        generation,
    ));
    tokio::spawn(flows::unheard(Arc::clone(&shared)));
    tokio::spawn(observe::meters(Arc::clone(&shared), Socket::open()?));
    tokio::spawn(quotas::keep(
        Arc::clone(&shared),
        orders.clone(),
        Socket::open()?,
    ));
    tokio::spawn(counted::serve(
        Arc::clone(&shared),
        proxied,
        Socket::open()?,
    ));
    tokio::spawn(Control::new(Arc::clone(&shared), orders, told).serve(listener));
    let (begun, has_begun) = oneshot::channel();
    let mut keeping = tokio::spawn(keeper.run(obeyed, begun));
    tracing::info!("listening");
    tokio::select! {
        () = stop.requested() => return Ok(()),
        _ = has_begun => {}
    }
    sd_notify::notify(&[sd_notify::NotifyState::Ready])
        .context("telling systemd that the service is ready")?;

    tokio::select! {
        () = stop.requested() => {}
        // Without it nothing is enforced any more, nor would a window close: systemd starts the process again.
        ended = &mut keeping => return Err(anyhow!("the keeper ended early: {ended:?}")),
    }
    tracing::info!("ending; the kernel goes on enforcing");
    // Best effort: systemd learns the same from our exit.
    sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
    Ok(())
}

/// Makes the directories of this process; what is generated lets its group in.
fn make_directories(config: &Config) -> Result<(), String> {
    let generated = [config.run(""), config.run("front"), config.run("zones")];
    for path in generated.iter().chain([&config.state]) {
        let failed = |error: &dyn std::fmt::Display| format!("making {}: {error}", path.display());
        std::fs::create_dir_all(path).map_err(|error| failed(&error))?;
        let (mode, group) = if *path == config.state {
            (0o700, None)
        } else {
            (0o750, config.group)
        };
        files::admit(path, mode, group).map_err(|error| failed(&error))?;
    }
    let check = candidate::check_directory(config);
    files::write_fresh(&check, &files::Tree::new(), None).map_err(|error| error.to_string())
}
