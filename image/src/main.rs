//! `cargo xtask VERB`: builds, boots, tests and measures the appliance. One verb per file under `verbs/`.

mod accounts;
mod assemble;
mod base;
mod binaries;
mod boot_loader;
mod cache;
mod checks;
mod fetch;
mod host;
mod initrd;
mod iso;
mod manifest;
mod progress;
mod prune;
mod root;
mod squash;
mod tree;
mod units;
mod verbs;

use clap::{Parser, Subcommand};

use crate::host::Consent;

/// Builds, boots, tests and measures the Clawgress appliance.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Command {
    /// Install missing host packages without asking.
    #[arg(long, global = true)]
    yes: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(verbs::run::Run),
    Test(verbs::test::Test),
    Image(verbs::image::Image),
    Lint(verbs::lint::Lint),
    Bench(verbs::bench::Bench),
    Clean(verbs::clean::Clean),
}

fn main() -> std::process::ExitCode {
    let command = Command::parse();
    let consent = if command.yes {
        Consent::Given
    } else {
        Consent::Ask
    };
    let outcome = match command.verb {
        Verb::Run(verb) => verb.go(consent),
        Verb::Test(verb) => verb.go(consent),
        Verb::Image(verb) => verb.go(consent),
        Verb::Lint(verb) => verb.go(),
        Verb::Bench(verb) => verb.go(consent),
        Verb::Clean(verb) => verb.go(),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
