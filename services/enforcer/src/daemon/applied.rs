//! What this process has put into the kernel, noted for the next process: a restart finds its own work again.
//!
//! Lives in /run: it says something about this kernel only.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use clawgress_link::durable::{self, FileError};

/// Its file, in the run directory.
pub(super) const APPLIED: &str = "applied.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Applied {
    pub(super) file: PathBuf,
    pub(super) digest: String,
    pub(super) revision: u64,
    pub(super) generation: u32,
    /// The moment that the plan in the kernel was compiled for.
    pub(super) now: i64,
    pub(super) clock_trusted: bool,
    /// False: the box was sealed on purpose, and only the numbers count.
    pub(super) enforcing: bool,
}

impl Applied {
    /// None: nothing was applied since the boot, or nobody can tell what.
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), FileError> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        durable::replace(path, &text)
    }
}
