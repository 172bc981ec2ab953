//! clawgress-quota, which shares the limits out to the gateways and keeps what was used. Wires configuration, signals and
//! the daemon together.

mod daemon;

use std::process::ExitCode;

use clawgress_link::service::{self, Stop};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    service::run(env!("CARGO_PKG_VERSION"), |config, mut stop: Stop| {
        daemon::serve(config, async move { stop.requested().await })
    })
    .await
}
