//! The kill switch, kept on disk: no restart and no boot lets anybody go on. What can't be read holds everybody.

use std::path::Path;

use clawgress_link::durable::{self, FileError};

use crate::plan::Blocked;

/// Below the state directory.
pub(super) const FILE: &str = "blocked.json";

/// Whom it holds, as the last process left it.
pub(super) fn read(state: &Path) -> Blocked {
    let path = state.join(FILE);
    let everybody = |error: &dyn std::fmt::Display| {
        tracing::error!(
            "reading {}: {error}; everybody is blocked until the kill switch is set again",
            path.display()
        );
        Blocked {
            all: true,
            ..Blocked::default()
        }
    };
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Blocked::default(),
        Err(error) => everybody(&error),
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| everybody(&error)),
    }
}

pub(super) fn write(state: &Path, blocked: &Blocked) -> Result<(), FileError> {
    let text = serde_json::to_vec(blocked).unwrap_or_default();
    durable::replace(&state.join(FILE), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_cannot_be_read_holds_everybody() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(read(state.path()), Blocked::default());
        let one = Blocked {
            all: false,
            agents: ["agent-1".to_owned()].into(),
        };
        write(state.path(), &one).unwrap();
        assert_eq!(read(state.path()), one);
        for damaged in [
            "",
            "{",
            r#"{"all": false}"#,
            r#"{"all": false, "agents": [], "more": 1}"#,
        ] {
            std::fs::write(state.path().join(FILE), damaged).unwrap();
            assert!(read(state.path()).all, "{damaged}");
        }
    }
}
