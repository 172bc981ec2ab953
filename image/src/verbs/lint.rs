//! `cargo xtask lint`: formatting and clippy over the whole workspace; all failures are told, then it fails once.

use anyhow::{Result, bail};
use clap::Args;
use xshell::{Shell, cmd};

use crate::binaries::project_root;

/// Check formatting and run clippy with warnings as errors over every room.
#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// Mend formatting instead of complaining.
    #[arg(long)]
    fix: bool,
}

impl Lint {
    pub(crate) fn go(&self) -> Result<()> {
        let shell = Shell::new()?;
        shell.change_dir(project_root());
        let check: &[&str] = if self.fix { &[] } else { &["--check"] };
        let mut failed = Vec::new();
        if cmd!(shell, "cargo fmt --all -- {check...}").run().is_err() {
            failed.push("cargo fmt");
        }
        if cmd!(
            shell,
            "cargo clippy --quiet --locked --workspace --all-targets -- -D warnings"
        )
        .run()
        .is_err()
        {
            failed.push("cargo clippy");
        }
        if failed.is_empty() {
            println!("lint: nothing to complain about");
            return Ok(());
        }
        bail!("{} found something: see above", failed.join(" and "))
    }
}
