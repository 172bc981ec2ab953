//! What this gateway has taken last, kept for its next start: the last good revision, whole, and the highest number that
//! was ever taken. A broken or an older file outside changes nothing then, and nobody is served by a revision of before.

use std::path::{Path, PathBuf};

use clawgress_link::durable;
use clawgress_policy::Revision;

const LONGEST_NUMBER: u64 = 32;

#[derive(Debug, Clone)]
pub struct Kept {
    revision: PathBuf,
    number: PathBuf,
}

impl Kept {
    /// Below the service's own directory.
    pub fn below(state: &Path) -> Self {
        Self {
            revision: state.join("revision.json"),
            number: state.join("revision.number"),
        }
    }

    /// None: there is none yet, or it can't be read, which is told.
    pub fn revision(&self) -> Option<Revision> {
        if !self.revision.exists() {
            return None;
        }
        Revision::read(&self.revision)
            .inspect_err(|error| tracing::error!("the last good revision is lost: {error}"))
            .ok()
    }

    /// 0: none was ever taken. An error is what can't be told from that.
    pub fn highest(&self) -> Result<u64, String> {
        let text =
            durable::read(&self.number, LONGEST_NUMBER).map_err(|error| error.to_string())?;
        let Some(text) = text else { return Ok(0) };
        let number = std::str::from_utf8(&text).ok();
        let number = number.and_then(|number| number.trim().parse().ok());
        number.ok_or_else(|| {
            format!(
                "{} holds no number; write the number of the last revision that was in force",
                self.number.display()
            )
        })
    }

    /// Each tells the number, so that either may be missing after a crash.
    pub fn keep(&self, revision: &Revision) {
        let told = |error: String| {
            tracing::error!(
                "{error}; a restart might not know revision {}",
                revision.number
            );
        };
        if let Err(error) = revision.write(&self.revision) {
            told(error.to_string());
        }
        let number = format!("{}\n", revision.number);
        if let Err(error) = durable::replace(&self.number, number.as_bytes()) {
            told(error.to_string());
        }
    }
}
