//! A domain as a policy names it: one canonical form, whichever way it was written.
//!
//! Lowercase A-labels, no trailing dot. `*.example.com` means every name below example.com and not example.com itself;
//! `example.com` means itself alone.

use std::fmt;

use crate::cidr::Wrong;
use crate::policy::name::{MAX_NAME, canonical_name, shown};

/// Canonical; only `parse` makes one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern(Box<str>);

impl DomainPattern {
    /// Any writing of a name or of `*.name`.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let (wildcard, written) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if text == "*" || (wildcard && matches!(written, "" | "." | "*")) {
            return Err(Wrong::new(
                format!("`{}` would mean every domain there is", shown(text)),
                "write the domains that are meant, such as *.example.com",
            ));
        }
        if written.contains('*') {
            let base = written.rsplit('*').next().unwrap_or_default();
            let base = base.trim_start_matches('.');
            return Err(Wrong::new(
                format!("`{}` has a * that is not its whole first part", shown(text)),
                format!("write *.{} for every name below it", shown(base)),
            ));
        }
        let name = canonical_name(written)?;
        if let Some(label) = name
            .split('.')
            .find(|label| label.starts_with('-') || label.ends_with('-'))
        {
            return Err(Wrong::new(
                format!("the part `{label}` begins or ends with a hyphen"),
                "remove that hyphen",
            ));
        }
        if !wildcard {
            return Ok(Self(name.into()));
        }
        if name.len() + 2 > MAX_NAME {
            return Err(Wrong::new(
                format!("the domain has {} characters", name.len() + 2),
                format!("a domain has at most {MAX_NAME}, its wildcard included"),
            ));
        }
        Ok(Self(format!("*.{name}").into()))
    }

    /// What is allowed and yet hardly meant.
    pub(crate) fn doubtful(&self) -> Option<Wrong> {
        (self.is_wildcard() && !self.base().contains('.')).then(|| {
            Wrong::new(
                format!("`{self}` means every name below .{}", self.base()),
                format!(
                    "name the domains that are meant, such as *.example.{}",
                    self.base()
                ),
            )
        })
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        DomainPattern::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn a_name_means_itself_and_a_wildcard_what_is_below() {
        let name = DomainPattern::parse("Example.COM.").unwrap();
        assert_eq!(name.as_str(), "example.com");
        assert!(name.matches("example.com") && !name.matches("a.example.com"));
        let below = DomainPattern::parse("*.Bücher.example").unwrap();
        assert_eq!(below.as_str(), "*.xn--bcher-kva.example");
        assert!(below.matches("a.b.xn--bcher-kva.example"));
        assert!(
            !below.matches("xn--bcher-kva.example") && !below.matches("axn--bcher-kva.example")
        );
        assert_eq!(below.doubtful(), None);
    }

    #[test]
    fn wildcards_stand_first_and_alone() {
        assert!(refused("*").contains("every domain"));
        assert!(refused("*.").contains("every domain"));
        assert!(refused("*.*.example.com").contains("write *.example.com"));
        assert!(refused("a.*.example.com").contains("write *.example.com"));
        assert!(refused("*example.com").contains("write *.example.com"));
        assert!(refused("-a.example.com").contains("hyphen"));
        assert!(refused("*.192.0.2.1").contains("under ips"));
        let longest = format!("*.{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(59));
        assert_eq!(DomainPattern::parse(&longest).unwrap().as_str().len(), 253);
        assert!(refused(&format!("{longest}a")).contains("254"));
        let com = DomainPattern::parse("*.com").unwrap();
        assert!(
            com.doubtful()
                .unwrap()
                .to_string()
                .contains("*.example.com")
        );
    }
}
