//! clawgress-policy, the policy API behind the TLS front and on the console's socket. Wires logging, configuration,
//! signals and the daemon together.

mod daemon;

use std::process::ExitCode;

use anyhow::Context;

use clawgress_link::service::{self, Stop};

use crate::daemon::Config;

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
