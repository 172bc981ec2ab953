//! clawgress-audit. Wires configuration, signals and the service together.

use std::process::ExitCode;

use anyhow::Context;
use clawgress_audit::config::Config;
use clawgress_audit::daemon;
use clawgress_link::service::{self, Stop};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match service::begin::<Config>(env!("CARGO_PKG_VERSION")) {
        Ok(config) => service::end(serve(config).await),
        Err(code) => code,
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut stop = Stop::listen().context("listening for the signal to stop")?;
    daemon::serve(config, async move { stop.requested().await }).await
}
