//! The verbs of `cargo xtask`, one per file.

pub(crate) mod bench;
pub(crate) mod clean;
pub(crate) mod image;
pub(crate) mod lint;
pub(crate) mod run;
pub(crate) mod test;

use clap::Args;

use crate::base::{Base, Flavour, PRODUCT};
use crate::host::{self, Consent, Need};
use crate::{assemble, fetch};

/// Which image: shared by every verb that needs one.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// Distribution base: ubuntu-24.04 (the product), debian-13, debian-12; auto takes the product where its
    /// archive answers and else the debian-13 stand-in.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub(crate) base: String,
    /// Kernel: virtual (small, for virtual machines) or generic (hardware too, USB sticks among it).
    #[arg(long, value_enum, default_value_t)]
    pub(crate) flavour: Flavour,
}

impl Which {
    /// The base meant, with the host made ready to build it.
    pub(crate) fn prepare(&self, more: &[Need], consent: Consent) -> anyhow::Result<Base> {
        if self.base != "auto" {
            Base::load(&self.base)?;
        }
        let mut needs = host::BUILD.to_vec();
        needs.extend_from_slice(more);
        host::ensure(&needs, consent)?;
        if self.base == "auto" {
            // Without the product's keys its archive cannot be asked; a host that has no package for them cannot
            // build the product either.
            host::ensure_keyring(&Base::load(PRODUCT)?, consent).ok();
        }
        let base = fetch::resolve(&self.base)?;
        host::ensure_keyring(&base, consent)?;
        Ok(base)
    }

    pub(crate) fn build(&self, more: &[Need], consent: Consent) -> anyhow::Result<assemble::Dist> {
        let base = self.prepare(more, consent)?;
        assemble::image(&base, self.flavour)
    }
}
