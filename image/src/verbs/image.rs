//! `cargo xtask image`: builds the image and says where it is.

use anyhow::Result;
use clap::Args;

use super::Which;
use crate::host::Consent;
use crate::manifest::Source;
use crate::progress::size;
use crate::{assemble, binaries};

/// Build the image: ISO, squashfs, kernel, initramfs and manifest under dist/VERSION/BASE-FLAVOUR/.
#[derive(Debug, Args)]
pub(crate) struct Image {
    /// As for the other verbs, but a release is built from the product's base unless another is named.
    #[arg(long, default_value = crate::base::PRODUCT, value_name = "NAME")]
    base: String,
    /// Kernel: virtual or generic.
    #[arg(long, value_enum, default_value_t = crate::base::Flavour::Generic)]
    flavour: crate::base::Flavour,
    /// Write the artifacts into this directory instead.
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<std::path::PathBuf>,
}

impl Image {
    pub(crate) fn go(&self, consent: Consent) -> Result<()> {
        let which = Which {
            base: self.base.clone(),
            flavour: self.flavour,
        };
        let dist = match &self.into {
            None => which.build(&[], consent)?,
            Some(directory) => {
                let base = which.prepare(&[], consent)?;
                let (built, source) = (binaries::build()?, Source::read()?);
                assemble::image_at(&base, self.flavour, &built, &source, directory)?
            }
        };
        if dist.own_time.is_none() {
            println!("Nothing is stale.");
        }
        println!(
            "{} {} on {} ({} kernel {}):",
            dist.manifest.name,
            dist.manifest.version,
            dist.manifest.base,
            dist.manifest.flavour,
            dist.manifest.kernel
        );
        for artifact in &dist.manifest.artifacts {
            println!(
                "  {:>10}  {}  {}",
                size(artifact.size),
                &artifact.sha256[..16],
                artifact.name
            );
        }
        if let Some(time) = dist.own_time {
            println!("built in {:.1} s, cargo not counted", time.as_secs_f64());
        }
        println!("in {}", dist.directory.display());
        Ok(())
    }
}
