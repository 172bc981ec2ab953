//! clawgress-policy, the policy API behind the TLS front. Wires configuration, measurement and HTTP together.
//!
//! Holds no privilege: it asks those who do. It listens on loopback alone.

mod api;
mod body;
mod config;
mod measure;
mod measurer;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{config::Config, measure::Neighbours, measurer::Measurer};

/// sysexits: the configuration is wrong, and starting again will not help.
const WRONG_CONFIGURATION: u8 = 64;
/// How long requests in flight may take to end once the end has been asked for; systemd kills after three seconds.
const DRAIN: Duration = Duration::from_millis(1500);

/// The policy API: says what this appliance enforces, as measured.
#[derive(Parser)]
#[command(name = "clawgress-policy", version)]
struct Arguments {
    /// The configuration to run with; read once, in full, before anything is listened on.
    #[arg(long, default_value = "/etc/clawgress/policy.toml")]
    config: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // journald adds the time; a service in an image has no terminal to colour for.
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
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "listening on {}: is another instance running?",
            config.listen
        )
    })?;
    let address = config.listen;
    let router = api::router(Measurer::start(Neighbours::new(config)));
    sd_notify::notify(&[sd_notify::NotifyState::Ready])
        .context("telling systemd that the service is ready")?;
    tracing::info!("listening on {address}");

    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        stopped.await.ok();
    });
    let server = tokio::spawn(server.into_future());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    // Best effort: systemd learns the same from our exit.
    sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
    stop.send(()).ok();
    if let Ok(ended) = tokio::time::timeout(DRAIN, server).await {
        return ended.context("serving")?.context("serving");
    }
    tracing::warn!("requests were still running after {DRAIN:?} and are cut off");
    Ok(())
}
