//! One thing that is wrong with a configuration: where, what, and what would be right.
//!
//! Problems are values, never printed here; the console, the API and the tests show the same text.

use std::fmt;

use serde::Serialize;

/// Where in the text: both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Words of the path joined by spaces, or in policy.json `hosts.agent-1.allow.ips[3]`; empty when the problem is the text as a whole.
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    pub what: String,
    /// What would be right; never empty.
    pub fix: String,
}

impl Problem {
    pub(crate) fn new(
        path: &[&str],
        position: Option<Position>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::at(path.join(" "), position, what, fix)
    }

    /// With a path that is not made of words, such as one into JSON.
    pub(crate) fn at(
        path: String,
        position: Option<Position>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            path,
            position,
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// True if this problem is at `prefix` or below it.
    pub fn concerns(&self, prefix: &str) -> bool {
        self.path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.position {
            write!(f, "line {}, column {}: ", at.line, at.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.what, self.fix)
    }
}
