//! clawgress-audit. Wires configuration, signals and the service together.

use std::process::ExitCode;

use clawgress_audit::daemon;
use clawgress_link::service::{self, Stop};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    service::run(env!("CARGO_PKG_VERSION"), |config, mut stop: Stop| {
        daemon::serve(config, async move { stop.requested().await })
    })
    .await
}
