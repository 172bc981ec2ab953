//! `cargo xtask bench GROUP`: measures what the project promises, each figure beside its peer of the same run.

mod boot;
mod image;
mod programs;
mod proxies;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use qemu_tests::figures::{self, Figure, Line};

use super::Which;
use crate::base::Base;
use crate::host::{self, Consent};

/// Measure and print a table of figures; with --json one object a line. Fails if a figure does not hold.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// image: sizes and building. boot: times and memory of booted machines. dns: the agents' resolver beside bare
    /// named. enforce: large policies and what the rules cost. gateway: the explicit proxy beside others, and what it
    /// decides, counts and writes down.
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
    Dns,
    Enforce,
    Gateway,
}

impl Bench {
    pub(crate) fn go(&self, consent: Consent) -> Result<()> {
        let figures = match self.group {
            Group::Image => lines(&image::measure(&self.base(consent)?)?),
            Group::Boot => lines(&boot::measure(&self.base(consent)?, self.rounds)?),
            Group::Dns => {
                host::ensure(&[host::TEST, host::BENCH].concat(), consent)?;
                programs::dns()?
            }
            Group::Enforce => {
                host::ensure(host::TEST, consent)?;
                programs::enforce()?
            }
            Group::Gateway => {
                host::ensure(&[host::TEST, host::PROXIES].concat(), consent)?;
                proxies::measure()?
            }
        };
        match figures::print(&figures, self.json) {
            0 => Ok(()),
            count => bail!("{count} of {} figures do not hold", figures.len()),
        }
    }

    /// Of the images that are measured.
    fn base(&self, consent: Consent) -> Result<Base> {
        let needs = [host::BOOT, host::TEST].concat();
        self.which.prepare(&needs, consent)
    }
}

fn lines(figures: &[Figure]) -> Vec<Line> {
    figures.iter().map(Figure::line).collect()
}
