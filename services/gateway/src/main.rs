//! clawgress-gateway. Wires configuration, judge, listeners and control together; as the service manager starts it, it is
//! the parent of the process that does.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clawgress_gateway::config::Config;
use clawgress_gateway::daemon::control::Control;
use clawgress_gateway::daemon::doors::Inherited;
use clawgress_gateway::daemon::listeners::{self, Serving};
use clawgress_gateway::daemon::{self, parent, snapshots};
use clawgress_link::service::{self, Stop};
use sd_notify::NotifyState;

/// So long who has connected and said nothing yet may hold up a successor.
const LAST_HEARD: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    // Before the runtime opens descriptors of its own.
    let inherited = parent::is_child().then(Inherited::take);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .context("starting a runtime")
        .and_then(|runtime| match inherited {
            None => runtime.block_on(parent::run()),
            Some(inherited) => {
                let run = service::run(env!("CARGO_PKG_VERSION"), |config, stop| {
                    serve(config, stop, inherited)
                });
                let code = runtime.block_on(run);
                // A read of the standard input waits in a thread of its own, for ever.
                runtime.shutdown_background();
                Ok(code)
            }
        });
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

async fn serve(config: Config, mut stop: Stop, inherited: Inherited) -> anyhow::Result<()> {
    let mut running = daemon::judge(&config)?;
    let judge = Arc::clone(&running.judge);
    let revision = snapshots::watch_revision(&config);
    let serving = Serving::default();
    let blocked_file = daemon::blocked_file(&config);
    let control = Control::new(
        Arc::clone(&judge),
        Arc::clone(&serving),
        blocked_file.clone(),
        config.control_uids.clone(),
    );
    control.listen(&config.control_socket)?;
    tokio::spawn(snapshots::keep(
        config.clone(),
        Arc::clone(&judge),
        revision.clone(),
    ));
    let listening = tokio::spawn(listeners::keep(
        config,
        Arc::clone(&judge),
        revision,
        Arc::clone(&serving),
        inherited,
    ));
    sd_notify::notify(&[NotifyState::Ready])
        .context("telling systemd that the service is ready")?;
    let parted = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    tokio::select! {
        () = stop.requested() => {}
        // The parent is gone, or wants it so.
        _ = parted => {}
    }
    listening.abort();
    let gateway = serving.swap(None);
    if let Some(gateway) = &gateway {
        gateway.stop_accepting();
        // Who has come here already is answered here.
        gateway.heard_all(LAST_HEARD).await;
    }
    running.hand_over().await;
    // Best effort: the parent may be gone.
    let _ = std::io::stdout().write_all(b"\n");
    let _ = std::io::stdout().flush();
    tokio::spawn(daemon::follow_blocked(Arc::clone(&judge), blocked_file));
    let patience = judge
        .snapshot()
        .map_or(0, |snapshot| snapshot.policy.settings.drain_seconds);
    if let Some(gateway) = gateway {
        gateway.drain(Duration::from_secs(patience.into())).await;
    }
    judge.tell_folded();
    // The last events are on disk before this process is gone; the next one ships them.
    judge
        .queue()
        .flush()
        .await
        .context("writing the last events")
}
