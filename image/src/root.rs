//! From the base's tree to the appliance's root: pruned, laid over, programs in, accounts numbered, units enabled.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::base::Base;
use crate::binaries::{Program, project_root};
use crate::manifest::Source;
use crate::tree::{Kind, Node, Tree};
use crate::{accounts, prune, units};

/// What the kernel packages brought.
pub(crate) struct Kernel {
    pub(crate) release: String,
    pub(crate) image: Arc<[u8]>,
}

/// The one kernel of the base's tree.
pub(crate) fn kernel(tree: &Tree) -> Result<Kernel> {
    let found: Vec<(&str, &Node)> = tree
        .below("boot")
        .filter(|(path, _)| path.starts_with("boot/vmlinuz-"))
        .collect();
    let [(path, node)] = found.as_slice() else {
        let names: Vec<&str> = found.iter().map(|(path, _)| *path).collect();
        bail!(
            "the base must bring exactly one kernel, it brings {}: {}",
            names.len(),
            names.join(", ")
        );
    };
    let Kind::File(image) = &node.kind else {
        bail!("/{path} is not a file")
    };
    let release = path.trim_start_matches("boot/vmlinuz-").to_owned();
    if tree
        .get(&format!("usr/lib/modules/{release}/modules.dep"))
        .is_none()
    {
        bail!("the kernel {release} has no /usr/lib/modules/{release}/modules.dep");
    }
    Ok(Kernel {
        release,
        image: Arc::clone(image),
    })
}

/// Where the base's static shell lies; the initramfs gets a copy, for whoever asks for it at boot.
const RESCUE_SHELL: &str = "usr/bin/busybox";

/// Makes the appliance's root of the base's tree. Answers the rescue shell.
pub(crate) fn compose(
    tree: &mut Tree,
    base: &Base,
    programs: &[Program],
    source: &Source,
) -> Result<Vec<u8>> {
    let shell = tree
        .content(RESCUE_SHELL)
        .with_context(|| format!("the base brings no /{RESCUE_SHELL} for the rescue shell"))?
        .to_vec();
    units::reset(tree);
    prune::prune(tree);
    lay_over(tree, &project_root().join("rootfs-overlay"))?;
    for program in programs {
        if let Some(destination) = program.destination {
            tree.put(destination, Node::file(program.bytes.as_slice(), 0o755))?;
        }
    }
    let release = serde_json::json!({
        "name": "Clawgress",
        "version": env!("CARGO_PKG_VERSION"),
        "base": base.name,
        "commit": source.commit,
        "built": source.epoch,
    });
    let mut text = serde_json::to_string_pretty(&release)?;
    text.push('\n');
    tree.put(
        "usr/lib/clawgress/release.json",
        Node::file(text.into_bytes(), 0o644),
    )?;
    accounts::settle(tree)?;
    units::enable(tree)?;
    Ok(shell)
}

/// Puts every file of the overlay into the tree: a file that its author made executable stays so.
fn lay_over(tree: &mut Tree, overlay: &Path) -> Result<()> {
    let mut pending = vec![overlay.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(&directory)
            .with_context(|| format!("reading {}", directory.display()))?
            .collect::<std::io::Result<_>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let name = path
                .strip_prefix(overlay)?
                .to_str()
                .with_context(|| format!("the name {} is not text", path.display()))?
                .to_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if tree.resolve(&name).is_none() {
                    tree.put(&name, Node::directory())?;
                }
                pending.push(path);
                continue;
            }
            let node = if kind.is_symlink() {
                let target = std::fs::read_link(&path)?;
                Node::symlink(target.to_str().context("a link target is not text")?)
            } else {
                let mode =
                    std::os::unix::fs::PermissionsExt::mode(&entry.metadata()?.permissions());
                let bytes =
                    std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                Node::file(bytes, if mode & 0o100 == 0 { 0o644 } else { 0o755 })
            };
            tree.put(&name, node)
                .with_context(|| format!("laying over {}", path.display()))?;
        }
    }
    Ok(())
}

/// The digest of the overlay: part of what makes an image stale.
pub(crate) fn overlay_digest() -> Result<String> {
    let mut tree = Tree::default();
    lay_over(&mut tree, &project_root().join("rootfs-overlay"))?;
    let mut text = String::new();
    for (path, node) in tree.iter() {
        use std::fmt::Write;
        let body = match &node.kind {
            Kind::File(bytes) => clawgress_initramfs::identity::sha256_hex(bytes),
            other => format!("{other:?}"),
        };
        let _ = writeln!(text, "{path} {:o} {body}", node.mode);
    }
    Ok(clawgress_initramfs::identity::sha256_hex(text.as_bytes()))
}
