//! A domain as a policy names it: one canonical form, whichever way it was written.
//!
//! Lowercase A-labels, no trailing dot. `*.example.com` means every name below example.com and not example.com itself;
//! `example.com` means itself alone.

use std::fmt;

/// Canonical; only `parse` makes one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern(Box<str>);

impl DomainPattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The name without the wildcard label.
    pub fn base(&self) -> &str {
        self.0.strip_prefix("*.").unwrap_or(&self.0)
    }

    /// Whether a canonical name is meant by this pattern.
    pub fn matches(&self, name: &str) -> bool {
        if !self.is_wildcard() {
            return name == self.as_str();
        }
        name.strip_suffix(self.base())
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
