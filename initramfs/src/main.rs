//! `/init` of the initramfs: finds the medium, checks the image, enters it.
//!
//! As process 1 it must never exit and never panic; every failure ends in `stop`. Under any other
//! process number it is the kernel's `modprobe` and does nothing else.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod boot;
mod cmdline;
mod console;
mod devices;
mod drivers;
mod failure;
mod loopdev;
mod modload;
mod probe;
mod root;
mod search;
mod stop;
mod superblock;
mod timing;
mod uevent;
mod verify;

use std::process::ExitCode;

use crate::cmdline::CommandLine;
use crate::failure::Failure;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init()
    } else {
        modprobe()
    }
}

fn init() -> ! {
    // No path leads here, but if one did, aborting would take the kernel down with a stack trace
    // where a person needs a sentence.
    std::panic::set_hook(Box::new(|panic| {
        let failure = Failure::of_step("a defect in /init", panic)
            .advice("Please report this text. Start the machine again.");
        stop::stop(&failure, &CommandLine::default())
    }));
    let mut line = CommandLine::default();
    let failure = boot::run(&mut line);
    stop::stop(&failure, &line)
}

/// The kernel starts `/sbin/modprobe -q -- NAME` for modules that only it knows it needs.
fn modprobe() -> ExitCode {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let Ok(loader) = modload::Loader::open(&cmdline::parse(&line)) else {
        return ExitCode::FAILURE;
    };
    let names = modload::requested(std::env::args().skip(1));
    let failed = names.iter().filter(|name| !loader.load(name)).count();
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
