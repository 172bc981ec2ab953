//! The kill switch: who is blocked, or that everybody is. Kept on disk, so that no restart lets anybody go on.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clawgress_link::durable::{self, FileError};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocked {
    pub all: bool,
    pub agents: BTreeSet<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum BlockedError {
    #[error("reading who is blocked from {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} does not say who is blocked: {source}; put it right, or remove it to block nobody", path.display())]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("writing who is blocked: {0}")]
    Write(#[from] FileError),
    #[error("writing who is blocked: {0}")]
    Unwritable(serde_json::Error),
}

impl Blocked {
    pub fn holds(&self, agent: &str) -> bool {
        self.all || self.agents.contains(agent)
    }

    /// A file that is not there blocks nobody; one that can't be understood is an error, for it may block somebody.
    pub fn read(path: &Path) -> Result<Self, BlockedError> {
        let failed = |source| BlockedError::Read {
            path: path.to_owned(),
            source,
        };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        serde_json::from_slice(&text).map_err(|source| BlockedError::Parse {
            path: path.to_owned(),
            source,
        })
    }

    /// On disk when it returns.
    pub fn write(&self, path: &Path) -> Result<(), BlockedError> {
        let text = serde_json::to_vec(self).map_err(BlockedError::Unwritable)?;
        Ok(durable::replace(path, &text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_blocked_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocked.json");
        assert_eq!(Blocked::read(&path).unwrap(), Blocked::default());
        let mut blocked = Blocked::default();
        blocked.agents.insert("agent-1".to_owned());
        blocked.write(&path).unwrap();
        let read = Blocked::read(&path).unwrap();
        assert!(read.holds("agent-1") && !read.holds("agent-2"));
        let all = Blocked { all: true, ..read };
        assert!(all.holds("agent-2"));
        fs::write(&path, "{").unwrap();
        let error = Blocked::read(&path).unwrap_err().to_string();
        assert!(error.contains("blocked.json"), "{error}");
    }
}
