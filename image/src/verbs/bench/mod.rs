//! `cargo xtask bench GROUP`: measures what the project promises, each figure beside its peer of the same run.

mod boot;
mod image;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use super::Which;
use crate::figures;
use crate::host::{self, Consent};

/// Measure and print a table of figures; with --json one object a line. Fails if a figure does not hold.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// image: sizes and building. boot: times and memory of booted machines.
    #[arg(value_enum)]
    group: Group,
    #[command(flatten)]
    which: Which,
    /// One object a line: figure, value, unit, must, holds, and peer where there is one.
    #[arg(long)]
    json: bool,
    /// How often each machine is booted; the middle value counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Group {
    Image,
    Boot,
}

impl Bench {
    pub(crate) fn go(&self, consent: Consent) -> Result<()> {
        let needs = [host::BOOT, host::TEST].concat();
        let base = self.which.prepare(&needs, consent)?;
        let figures = match self.group {
            Group::Image => image::measure(&base)?,
            Group::Boot => boot::measure(&base, self.rounds)?,
        };
        match figures::print(&figures, self.json)? {
            0 => Ok(()),
            count => bail!("{count} of {} figures do not hold", figures.len()),
        }
    }
}
