//! Owns where the image under test is. It must never build or fetch one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, IoContext, Result};

/// The directory that `cargo xtask image` wrote.
#[derive(Clone, Debug)]
pub struct Dist {
    pub iso: PathBuf,
    pub squashfs: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub manifest: Value,
}

impl Dist {
    /// The image with the kernel for virtual machines, named by `CLAWGRESS_DIST`.
    pub fn from_env() -> Result<Self> {
        Self::named_by("CLAWGRESS_DIST")
    }

    /// The image with the kernel for all hardware, named by `CLAWGRESS_DIST_GENERIC`. USB sticks need it: the
    /// kernels for virtual machines know no USB.
    pub fn generic_from_env() -> Result<Self> {
        Self::named_by("CLAWGRESS_DIST_GENERIC")
    }

    fn named_by(variable: &str) -> Result<Self> {
        let Some(directory) = std::env::var_os(variable) else {
            return Err(Error::other(format!(
                "{variable} is not set: it names the directory of an image under test. \
                 `cargo xtask test vm` builds the images and sets it"
            )));
        };
        Self::open(Path::new(&directory))
    }

    pub fn open(directory: &Path) -> Result<Self> {
        let file = |name: &str| {
            let path = directory.join(name);
            fs::metadata(&path).doing("looking for", &path)?;
            fs::canonicalize(&path).doing("resolving", &path)
        };
        let manifest_path = file("manifest.json")?;
        let text = fs::read_to_string(&manifest_path).doing("reading", &manifest_path)?;
        let manifest = serde_json::from_str(&text).map_err(|error| {
            Error::other(format!(
                "{} is no JSON: {error}; build the image again",
                manifest_path.display()
            ))
        })?;
        Ok(Self {
            iso: only_iso(directory)?,
            squashfs: file("root.squashfs")?,
            kernel: file("vmlinuz")?,
            initrd: file("initrd.img")?,
            manifest,
        })
    }

    /// A text of the manifest, for instance `image_id`.
    pub fn manifest_text(&self, key: &str) -> Result<&str> {
        self.manifest[key]
            .as_str()
            .ok_or_else(|| Error::other(format!("the image's manifest.json has no text {key:?}")))
    }
}

fn only_iso(directory: &Path) -> Result<PathBuf> {
    let mut isos = Vec::new();
    for entry in fs::read_dir(directory).doing("listing", directory)? {
        let path = entry.doing("listing", directory)?.path();
        if path.extension().is_some_and(|extension| extension == "iso") {
            isos.push(path);
        }
    }
    match isos.as_slice() {
        [iso] => fs::canonicalize(iso).doing("resolving", iso),
        others => Err(Error::other(format!(
            "{} holds {} ISO images and should hold one",
            directory.display(),
            others.len()
        ))),
    }
}
