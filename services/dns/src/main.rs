//! clawgress-dns. Wires configuration, sockets, enforcer and engine together.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use clawgress_dns::config::Config;
use clawgress_dns::enforcer::{self, Link};
use clawgress_dns::engine::Engine;
use clawgress_dns::events::Events;
use clawgress_dns::listen::{Bound, Door, Streams};
use clawgress_dns::rules::own_addresses;
use clawgress_dns::upstream::Upstream;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

/// sysexits: the configuration is wrong, and starting again will not help.
const WRONG_CONFIGURATION: u8 = 64;

/// The agents' resolver: decides, relays to named, has answers pinned.
#[derive(Parser)]
#[command(name = "clawgress-dns", version)]
struct Arguments {
    /// The configuration to run with; read once, in full, before anything is listened on.
    #[arg(long, default_value = "/etc/clawgress/dns.toml")]
    config: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // journald adds the time. Standard output is for events alone.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    let config = match Config::read(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    match serve(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut doors = vec![Bound::at(config.front, Door::Front)?];
    for address in &config.agents {
        doors.push(Bound::at(*address, Door::Agents)?);
    }
    let upstream = Upstream::start(config.named).await?;
    let events = Events::to(std::io::stdout()).context("starting the thread that writes events")?;
    let (link, outbox) = Link::new();
    let engine = Engine::new(&config.engine_limits(), upstream, link, events);
    engine.set_own_addresses(own_addresses().context("listing this box's own addresses")?);
    let streams = Streams::new(config.stream_limits());
    for door in doors {
        door.serve(&engine, &streams);
    }
    tokio::spawn(enforcer::keep(
        Arc::clone(&engine),
        config.enforcer.clone(),
        outbox,
    ));
    tokio::spawn(keep_house(engine));
    sd_notify::notify(&[NotifyState::Ready])
        .context("telling systemd that the service is ready")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Best effort: systemd learns the same from our exit. Questions in flight are asked again by their askers.
    sd_notify::notify(&[NotifyState::Stopping]).ok();
    Ok(())
}

/// What has to be looked at again and again.
async fn keep_house(engine: Arc<Engine>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        engine.report_suppressed();
        match own_addresses() {
            Ok(own) => engine.set_own_addresses(own),
            Err(error) => tracing::warn!("listing this box's own addresses: {error}"),
        }
    }
}
