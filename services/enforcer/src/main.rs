//! clawgress-enforcer. Wires configuration and daemon together.
//!
//! Holds `CAP_NET_ADMIN` and nothing else. What it has put into the kernel outlives it.

use std::process::ExitCode;

use clawgress_enforcer::daemon::{config::Config, serve};
use clawgress_link::service;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match service::begin::<Config>(env!("CARGO_PKG_VERSION")) {
        Ok(config) => service::end(serve(config).await),
        Err(code) => code,
    }
}
