//! `cargo xtask clean`: removes what the builder made.

use anyhow::{Context, Result};
use clap::Args;

use crate::binaries::project_root;
use crate::cache;

/// Remove dist/ and, with --cache, the unpacked bases in the user's cache directory. Cargo's target/ stays.
#[derive(Debug, Args)]
pub(crate) struct Clean {
    /// Remove the cached bases too.
    #[arg(long)]
    cache: bool,
}

impl Clean {
    pub(crate) fn go(&self) -> Result<()> {
        let dist = project_root().join("dist");
        if dist.exists() {
            std::fs::remove_dir_all(&dist)
                .with_context(|| format!("removing {}", dist.display()))?;
        }
        println!("removed {}", dist.display());
        if self.cache {
            cache::clear()?;
        }
        Ok(())
    }
}
