//! Beside PID 1: seals the box before any network comes up, starts what enforces, and keeps watch.
//!
//! This file only wires.

mod accounts;
mod atomic;
mod banner;
mod board;
mod boot_config;
mod bus;
mod certificate;
mod clock;
mod consoles;
mod daemons;
mod enforcer;
mod going;
mod guard;
mod login;
mod machine;
mod network;
mod paths;
mod release;
mod reload;
mod report;
mod run;
mod seal;
mod server;
mod services;
mod status;
mod volume;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::paths::Paths;

/// Wrong usage, as sysexits.h names it.
const USAGE: u8 = 64;

#[derive(Debug, Parser)]
#[command(
    version,
    about = "Seals the box, starts what enforces, and keeps watch"
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Boot: seal, read the boot config, start the daemons, keep watch (what systemd runs)
    Run,
    /// Show the boot on this console, then log in (what agetty runs)
    Login,
    /// Show every step of this boot; exit code 0 only if the box enforces
    Status {
        /// The report as JSON
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let paths = Paths::system();
    let outcome = match arguments.verb {
        Verb::Run => run_until_stopped(paths),
        Verb::Login => login::login(&paths).map(|()| true),
        Verb::Status { json } => status::status(&paths, json),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("appliance-init: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_until_stopped(paths: Paths) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run::run(paths));
    // A stop must not wait for a disk that hangs.
    runtime.shutdown_background();
    outcome.map(|()| true)
}
