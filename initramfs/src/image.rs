//! The contents of the initramfs, in one place.
//!
//! Says which file lies where; it never compresses and never chooses modules.

use crate::cpio::{Archive, CpioError, Entry};
use crate::identity::{IDENTITY_PATH, ImageIdentity};
use crate::modules::{Selection, TABLE_PATH};

/// Everything that goes in.
#[derive(Debug)]
pub struct Spec<'s> {
    /// The static `/init`.
    pub init: &'s [u8],
    /// A static busybox for the rescue shell.
    pub busybox: Option<&'s [u8]>,
    pub identity: &'s ImageIdentity,
    pub modules: &'s Selection,
    /// Date of every entry (`SOURCE_DATE_EPOCH`).
    pub mtime: u32,
}

/// Why the initramfs can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Cpio(#[from] CpioError),
    #[error("writing initramfs entry {IDENTITY_PATH}: {0}")]
    Identity(#[from] serde_json::Error),
    #[error("writing initramfs entry {IDENTITY_PATH}: {0}")]
    Defect(String),
}

/// The initramfs as an uncompressed archive.
pub fn build(spec: &Spec<'_>) -> Result<Vec<u8>, BuildError> {
    if let Some(defect) = spec.identity.defect() {
        return Err(BuildError::Defect(defect));
    }
    let mut archive = Archive::default();
    for directory in ["dev", "newroot", "proc", "run", "sys"] {
        archive.add(directory, Entry::Directory { mode: 0o755 })?;
    }
    // Before devtmpfs is there: the kernel opens the first for init's three standard streams, and
    // the Rust runtime aborts if those are closed and it can't open the second in their place.
    for (path, mode, major, minor) in [("dev/console", 0o600, 5, 1), ("dev/null", 0o666, 1, 3)] {
        archive.add(path, Entry::CharDevice { mode, major, minor })?;
    }
    let executable = |content: &[u8]| Entry::File {
        mode: 0o755,
        content: content.to_vec(),
    };
    let link = |target: &str| Entry::Symlink {
        target: target.to_owned(),
    };
    archive.add("init", executable(spec.init))?;
    // The kernel asks this program for modules that only it knows it needs.
    archive.add("sbin/modprobe", link("/init"))?;
    if let Some(busybox) = spec.busybox {
        archive.add("bin/busybox", executable(busybox))?;
        archive.add("bin/sh", link("busybox"))?;
    }
    let data = |content: Vec<u8>| Entry::File {
        mode: 0o644,
        content,
    };
    let mut identity = serde_json::to_vec(spec.identity)?;
    identity.push(b'\n');
    archive.add(IDENTITY_PATH.trim_start_matches('/'), data(identity))?;
    let table = spec.modules.table().write();
    archive.add(TABLE_PATH.trim_start_matches('/'), data(table.into_bytes()))?;
    for module in &spec.modules.modules {
        archive.add(
            module.path.trim_start_matches('/'),
            data(module.content.clone()),
        )?;
    }
    Ok(archive.write(spec.mtime)?)
}
