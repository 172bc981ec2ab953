//! Owns where the image under test is. It must never build or fetch one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, IoContext, Result};
use crate::process;

/// Where the boot menu lies on the ISO.
const MENU: &str = "/boot/grub/grub.cfg";

/// The directory that `cargo xtask image` wrote.
#[derive(Clone, Debug)]
pub struct Dist {
    pub iso: PathBuf,
    pub squashfs: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    /// What the boot menu's first entry says to the kernel, without the words that make it quiet.
    pub command_line: String,
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
        let iso = only_iso(directory)?;
        Ok(Self {
            command_line: verbose(&menu(&iso)?)?,
            iso,
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

/// The text of the boot menu on the ISO.
fn menu(iso: &Path) -> Result<String> {
    let scratch = tempfile::tempdir().doing("making a scratch directory for the menu of", iso)?;
    let path = scratch.path().join("grub.cfg");
    let (from, to) = (iso.display().to_string(), path.display().to_string());
    let mut arguments = process::words("xorriso -no_rc -osirrox on -indev");
    arguments.extend([from, "-extract".to_owned(), MENU.to_owned(), to]);
    process::run(&arguments)?;
    fs::read_to_string(&path).doing("reading the menu taken from the ISO,", &path)
}

/// The kernel's words of the first entry; a test wants to see what it says.
fn verbose(menu: &str) -> Result<String> {
    let line = menu
        .lines()
        .find_map(|line| line.trim().strip_prefix("linux "))
        .ok_or_else(|| Error::other(format!("{MENU} on the ISO starts no kernel:\n{menu}")))?;
    let words: Vec<&str> = line
        .split_whitespace()
        .skip(1)
        .filter(|word| *word != "quiet" && !word.starts_with("loglevel="))
        .collect();
    Ok(words.join(" "))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_speaks_up() {
        let menu = "set timeout=2\nmenuentry 'A' {\n  linux /k/vmlinuz console=ttyS0 panic=30 quiet loglevel=4\n}\n\
                    menuentry 'B' {\n  linux /k/vmlinuz other\n}\n";
        assert_eq!(verbose(menu).expect("a line"), "console=ttyS0 panic=30");
        assert!(verbose("set timeout=2").is_err());
    }
}
