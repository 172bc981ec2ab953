//! clawgress-gateway. Wires configuration, judge, listeners and control together.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clawgress_gateway::config::Config;
use clawgress_gateway::daemon::control::Control;
use clawgress_gateway::daemon::listeners::{self, Serving};
use clawgress_gateway::daemon::{self, snapshots};
use clawgress_link::service::{self, Stop};
use sd_notify::NotifyState;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    service::run(env!("CARGO_PKG_VERSION"), serve).await
}

async fn serve(config: Config, mut stop: Stop) -> anyhow::Result<()> {
    let judge = daemon::judge(&config)?;
    let revision = snapshots::watch_revision(&config);
    let serving = Serving::default();
    let control = Control::new(
        Arc::clone(&judge),
        Arc::clone(&serving),
        daemon::blocked_file(&config),
        config.control_uids.clone(),
    );
    control.listen(&config.control_socket)?;
    tokio::spawn(snapshots::keep(
        config.clone(),
        Arc::clone(&judge),
        revision.clone(),
    ));
    tokio::spawn(listeners::keep(
        config,
        Arc::clone(&judge),
        revision,
        Arc::clone(&serving),
    ));
    sd_notify::notify(&[NotifyState::Ready])
        .context("telling systemd that the service is ready")?;
    stop.requested().await;
    // Best effort: systemd learns the same from our exit.
    sd_notify::notify(&[NotifyState::Stopping]).ok();
    let patience = judge
        .snapshot()
        .map_or(0, |snapshot| snapshot.policy.settings.drain_seconds);
    if let Some(gateway) = serving.swap(None) {
        gateway.drain(Duration::from_secs(patience.into())).await;
    }
    // The last events are on disk before this process is gone; the next one ships them.
    judge
        .queue()
        .flush()
        .await
        .context("writing the last events")
}
