//! clawgress-enforcer. Wires configuration and daemon together.
//!
//! Holds `CAP_NET_ADMIN` and nothing else. What it has put into the kernel outlives it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clawgress_enforcer::daemon::{config::Config, serve};

/// sysexits: the configuration is wrong, and starting again will not help.
const WRONG_CONFIGURATION: u8 = 64;

/// The enforcer: brings a revision into the kernel and the daemons, and keeps it there.
#[derive(Parser)]
#[command(name = "clawgress-enforcer", version)]
struct Arguments {
    /// The configuration to run with; read once, in full, before anything is listened on.
    #[arg(long, default_value = "/etc/clawgress/enforcer.toml")]
    config: PathBuf,
}

#[tokio::main(worker_threads = 2)]
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
