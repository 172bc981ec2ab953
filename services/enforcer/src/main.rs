//! clawgress-enforcer. Wires configuration and daemon together.
//!
//! Holds `CAP_NET_ADMIN` and nothing else. What it has put into the kernel outlives it.

use std::process::ExitCode;

use clawgress_enforcer::daemon::serve;
use clawgress_link::service;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    service::run(env!("CARGO_PKG_VERSION"), serve).await
}
