//! clawgress-policy, the policy API behind the TLS front and on the console's socket. Wires logging, configuration,
//! signals and the daemon together.

mod daemon;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::daemon::Config;

/// sysexits: the configuration is wrong, and starting again will not help.
const WRONG_CONFIGURATION: u8 = 64;

/// The policy API: takes policies, has them enforced, and says what this appliance enforces, as measured.
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
    daemon::serve(config, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}
