//! What every daemon's `main` does around its own work: arguments, logs, configuration, the signal to stop, the exit
//! code. A daemon names itself in its [`Configuration`] and wires the rest.
//!
//! Nothing here opens a port or knows what a daemon is for.

mod configuration;

use std::{fmt::Display, io, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::terminal::Entries;

pub use configuration::{ConfigError, Configuration, parse, read};

/// sysexits: the configuration is wrong, and starting again will not help.
const WRONG_CONFIGURATION: u8 = 64;

#[derive(Parser)]
struct Arguments {
    /// The configuration to run with; read once, in full, before anything is listened on.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// The whole of a daemon: its configuration is read, `serve` does its work until the stop is requested, and how that
/// ended is told.
pub async fn run<C, W, E>(version: &'static str, serve: impl FnOnce(C, Stop) -> W) -> ExitCode
where
    C: Configuration,
    W: Future<Output = Result<(), E>>,
    E: Display,
{
    let config = match begin(version) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match Stop::listen() {
        Ok(stop) => end(serve(config, stop).await),
        Err(error) => end(Err(format!("listening for the signal to stop: {error}"))),
    }
}

/// Reads the command line, begins to log, and reads the configuration; an error is told and is the exit code.
fn begin<C: Configuration>(version: &'static str) -> Result<C, ExitCode> {
    let command = Arguments::command()
        .name(C::PROGRAM)
        .about(C::ABOUT)
        .version(version)
        .mut_arg("config", |argument| argument.default_value(C::FILE));
    let arguments =
        Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    // An entry may hold what agents wrote. journald adds the time, and has no terminal to colour for. Standard
    // output is for events alone.
    tracing_subscriber::fmt()
        .with_writer(|| Entries(io::stderr()))
        .with_ansi(false)
        .without_time()
        .init();
    read(&arguments.config.unwrap_or_else(|| C::FILE.into())).map_err(|error| {
        tracing::error!("{error}");
        ExitCode::from(WRONG_CONFIGURATION)
    })
}

/// Tells how the work ended.
fn end<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// SIGTERM or SIGINT, listened for from the moment that it is made.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// For a process that is no daemon with a configuration of its own.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Returns when the daemon is to stop.
    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
