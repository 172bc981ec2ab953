//! The initramfs of an image: modules chosen by the base file, unpacked from however the base compresses them,
//! and the whole compressed once.

use std::io::Read;

use anyhow::{Context, Result};
use clawgress_initramfs::identity::ImageIdentity;
use clawgress_initramfs::image::{Spec, build};
use clawgress_initramfs::modules::{Source, Wanted, select};

use crate::base::Modules;
use crate::progress::{Step, size};
use crate::tree::Tree;

/// Slow to make, fast to unpack: it is unpacked at every boot.
const LEVEL: i32 = 19;

/// The modules directory of one kernel in the tree.
pub(crate) struct Directory<'a> {
    tree: &'a Tree,
    prefix: String,
}

impl<'a> Directory<'a> {
    pub(crate) fn of(tree: &'a Tree, kernel: &str) -> Self {
        Self {
            tree,
            prefix: format!("usr/lib/modules/{kernel}"),
        }
    }
}

impl Source for Directory<'_> {
    fn read(&self, path: &str) -> std::io::Result<Option<Vec<u8>>> {
        self.tree
            .content(&format!("{}/{path}", self.prefix))
            .map(|bytes| decompress(path, bytes))
            .transpose()
    }
}

fn decompress(path: &str, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match path.rsplit('.').next() {
        Some("xz") => {
            liblzma::read::XzDecoder::new(bytes).read_to_end(&mut plain)?;
        }
        Some("zst") => plain = zstd::decode_all(bytes)?,
        _ => plain.extend_from_slice(bytes),
    }
    Ok(plain)
}

pub(crate) fn make(
    tree: &Tree,
    kernel: &str,
    modules: &Modules,
    init: &[u8],
    rescue: &[u8],
    identity: &ImageIdentity,
    epoch: u32,
) -> Result<Vec<u8>> {
    let step = Step::begin("making the initramfs");
    let source = Directory::of(tree, kernel);
    let wanted = Wanted {
        required: modules.required.clone(),
        directories: modules.directories.clone(),
        ..Wanted::default()
    };
    let selection = select(&source, &wanted)
        .with_context(|| format!("choosing the initramfs modules of the kernel {kernel}"))?;
    let archive = build(&Spec {
        init,
        busybox: Some(rescue),
        identity,
        modules: &selection,
        mtime: epoch,
    })?;
    let packed =
        zstd::encode_all(archive.as_slice(), LEVEL).context("compressing the initramfs")?;
    step.done(format!(
        "{} with {} modules",
        size(packed.len() as u64),
        selection.modules.len()
    ));
    Ok(packed)
}
