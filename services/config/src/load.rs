//! From bytes to a document that may be acted on, or to everything that is wrong with them.

use std::fmt;

use crate::document::{Document, Ethernet};
use crate::management;
use crate::parse::{MAX_PROBLEMS, parse};
use crate::problem::Problem;
use crate::tree::Tree;
use crate::validate::validate;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub document: Document,
    pub warnings: Vec<Problem>,
    pub tree: Tree,
}

/// A configuration that must not be applied.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Invalid {
    /// Never empty; syntax first.
    pub problems: Vec<Problem>,
    management: Vec<Ethernet>,
}

impl Invalid {
    /// The management cards that are valid on their own, for a box that stays sealed.
    pub fn management(&self) -> &[Ethernet] {
        &self.management
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        if self.problems.len() >= MAX_PROBLEMS {
            write!(f, "\nand more after these {}", self.problems.len())?;
        }
        Ok(())
    }
}

/// Parses and validates. No input panics.
pub fn load(bytes: &[u8]) -> Result<Loaded, Box<Invalid>> {
    let parsed = parse(bytes);
    // Without readable text there is nothing more to say about it.
    if parsed.tree.is_empty() && !parsed.problems.is_empty() {
        return Err(Box::new(Invalid {
            problems: parsed.problems,
            management: Vec::new(),
        }));
    }
    let verdict = validate(&parsed.tree);
    if parsed.problems.is_empty() && verdict.problems.is_empty() {
        return Ok(Loaded {
            document: verdict.document,
            warnings: verdict.warnings,
            tree: parsed.tree,
        });
    }
    let management = management::management(&parsed);
    let mut problems = parsed.problems;
    problems.extend(verdict.problems);
    problems.truncate(MAX_PROBLEMS);
    Err(Box::new(Invalid {
        problems,
        management,
    }))
}
