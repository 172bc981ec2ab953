//! The configuration that this box runs with, as text on disk made a document. Read anew each time it is needed.
//!
//! Writes nothing, and takes nothing from a text with a single fault in it.

use std::path::{Path, PathBuf};

use clawgress_config::{Document, Invalid, MAX_BYTES};
use clawgress_link::hex;
use sha2::{Digest, Sha256};

use crate::daemon::files::{self, FileError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigurationError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the configuration {} is wrong, so nothing is made of it: {problems}", path.display())]
    Invalid {
        path: PathBuf,
        problems: Box<Invalid>,
    },
}

/// A valid configuration, and what tells it from others.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) document: Document,
    pub(crate) digest: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    taken: PathBuf,
    committed: PathBuf,
}

impl Configuration {
    /// `taken` has its source on its first line, then the text; it counts where it is there.
    pub(crate) fn new(taken: PathBuf, committed: PathBuf) -> Self {
        Self { taken, committed }
    }

    pub(crate) fn read(&self) -> Result<Taken, ConfigurationError> {
        // The source may be a path of a device: it may take a few more bytes than the text.
        let most = MAX_BYTES as u64 + 4096;
        if let Some(bytes) = files::read_if_there(&self.taken, most)? {
            let text = bytes
                .iter()
                .position(|byte| *byte == b'\n')
                .and_then(|end| bytes.get(end + 1..));
            return of(&self.taken, text.unwrap_or_default());
        }
        let bytes = files::read_if_there(&self.committed, most)?.unwrap_or_default();
        of(&self.committed, &bytes)
    }
}

fn of(path: &Path, text: &[u8]) -> Result<Taken, ConfigurationError> {
    let loaded = clawgress_config::load(text).map_err(|problems| ConfigurationError::Invalid {
        path: path.to_owned(),
        problems,
    })?;
    Ok(Taken {
        document: loaded.document,
        digest: digest(text),
    })
}

/// SHA-256, in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration() -> (tempfile::TempDir, Configuration) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        let configuration = Configuration::new(at("taken.boot"), at("config.boot"));
        (directory, configuration)
    }

    fn host_name(configuration: &Configuration) -> String {
        configuration.read().unwrap().document.system.host_name
    }

    #[test]
    fn what_the_boot_took_counts_before_what_is_committed() {
        let (directory, configuration) = configuration();
        let without = host_name(&configuration);
        let write = |name, text| std::fs::write(directory.path().join(name), text).unwrap();
        write("config.boot", "system { host-name committed }");
        assert_eq!(host_name(&configuration), "committed");
        write("taken.boot", "volume /dev/sdb\nsystem { host-name taken }");
        assert_eq!(host_name(&configuration), "taken");
        // This boot took none, whatever lies there by now.
        write("taken.boot", "");
        assert_eq!(host_name(&configuration), without);
    }

    #[test]
    fn a_faulty_one_is_told_with_its_place() {
        let (directory, configuration) = configuration();
        std::fs::write(
            directory.path().join("taken.boot"),
            "x\nsystem { host-nam a }",
        )
        .unwrap();
        let error = configuration.read().unwrap_err().to_string();
        assert!(
            error.contains("taken.boot is wrong") && error.contains("line 1"),
            "{error}"
        );
    }
}
