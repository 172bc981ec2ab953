//! `clawgress`: the console commands. Wires arguments, the question to the policy API, and what is shown of the answer.

mod agents;
mod arguments;
mod ask;
mod explain;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_agents;
mod show;
mod style;
mod telemetry;
mod trail;
mod when;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;

use crate::{
    arguments::{Arguments, Spoken},
    ask::Failure,
    style::Style,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(Spoken::words(std::env::args_os())) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers; everything else is wrong usage. A closed pipe is nobody's fault.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(Failure::USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let style = Style::of(std::io::stdout().is_terminal() && !arguments.json);
    match ask::run(&arguments, style).await {
        Ok(said) => {
            let printed = show::print(&said.text);
            if said.code == 0 {
                printed
            } else {
                ExitCode::from(said.code)
            }
        }
        Err(failure) => {
            show::complain(&failure, arguments.json);
            ExitCode::from(failure.code())
        }
    }
}
