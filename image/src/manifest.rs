//! What an image says about itself: on the medium, in `dist/`, and inside the root.

use std::path::Path;

use anyhow::{Context, Result};
use clawgress_initramfs::identity::Artifact;
use serde::{Deserialize, Serialize};
use xshell::{Shell, cmd};

use crate::binaries::project_root;
use crate::cache;
use crate::tree::Tree;

/// `manifest.json`: on the medium it names what lies beside it, in `dist/` the ISO too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) base: String,
    pub(crate) flavour: String,
    /// SHA-256 of the squashfs: what makes this image this image.
    pub(crate) image_id: String,
    pub(crate) commit: Option<String>,
    pub(crate) kernel: String,
    /// Seconds since 1970 that every file carries.
    pub(crate) built: u32,
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) packages: Vec<Package>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// Where the source stands.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) commit: Option<String>,
    pub(crate) epoch: u32,
}

impl Source {
    /// From git and SOURCE_DATE_EPOCH; a tree with changes says so in its commit.
    pub(crate) fn read() -> Result<Self> {
        let shell = Shell::new()?;
        shell.change_dir(project_root());
        let git = |arguments: &[&str]| {
            cmd!(shell, "git {arguments...}")
                .quiet()
                .ignore_stderr()
                .read()
                .ok()
                .filter(|text| !text.is_empty())
        };
        let changed = git(&["status", "--porcelain"]).is_some();
        let commit = git(&["rev-parse", "HEAD"])
            .map(|id| if changed { format!("{id}-changed") } else { id });
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text.parse().with_context(|| {
                format!("SOURCE_DATE_EPOCH is '{text}': it must be seconds since 1970")
            })?,
            Err(_) => git(&["log", "-1", "--format=%ct"])
                .and_then(|text| text.parse().ok())
                .unwrap_or(1_700_000_000),
        };
        Ok(Self { commit, epoch })
    }
}

pub(crate) fn artifact(path: &Path) -> Result<Artifact> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .context("an artifact needs a name")?;
    Ok(Artifact {
        name: name.to_owned(),
        size: std::fs::metadata(path)
            .with_context(|| format!("reading {}", path.display()))?
            .len(),
        sha256: cache::digest_of(path)?,
    })
}

/// Every installed package of the root, from its own package database.
pub(crate) fn packages(tree: &Tree) -> Result<Vec<Package>> {
    let status = tree
        .text("var/lib/dpkg/status")
        .context("the base has no /var/lib/dpkg/status")?;
    let mut packages: Vec<Package> = status
        .split("\n\n")
        .filter_map(|entry| {
            let field = |name: &str| {
                entry
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                    .map(str::to_owned)
            };
            (field("Status")? == "install ok installed").then(|| {
                Some(Package {
                    name: field("Package")?,
                    version: field("Version")?,
                })
            })?
        })
        .collect();
    packages.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn packages_are_those_that_are_installed() {
        let mut tree = Tree::default();
        let status = "Package: jq\nStatus: install ok installed\nVersion: 1.7\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                      Package: curl\nStatus: install ok installed\nVersion: 8.5\n";
        tree.put("var/lib/dpkg/status", Node::file(status.as_bytes(), 0o644))
            .unwrap();
        let found: Vec<String> = packages(&tree)
            .unwrap()
            .into_iter()
            .map(|p| p.name + " " + &p.version)
            .collect();
        assert_eq!(found, ["curl 8.5", "jq 1.7"]);
    }
}
