//! The report of `POST /clawgress/health`: one wire form for the daemon that writes it and for all who read it.
//!
//! Holds no opinion of its own: `enforcing` is the conjunction of the checks, nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What was measured, and whether all of it together means that the box enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub enforcing: bool,
    pub checks: Vec<Check>,
}

/// One question to one neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    pub detail: String,
    pub took_ms: u64,
}

impl Report {
    /// A report without a single check proves nothing and therefore does not enforce.
    pub fn of(checks: Vec<Check>) -> Self {
        Self {
            enforcing: !checks.is_empty() && checks.iter().all(|check| check.ok),
            checks,
        }
    }

    /// The checks that stand between this box and enforcing.
    pub fn broken(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.ok)
    }
}

impl Check {
    /// A check out of what a probe said and how long it took.
    pub fn of(name: impl Into<String>, took: Duration, outcome: Result<String, String>) -> Self {
        let ok = outcome.is_ok();
        let (Ok(detail) | Err(detail)) = outcome;
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self {
            name: name.into(),
            ok,
            detail,
            took_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ok: bool) -> Check {
        let outcome = if ok {
            Ok("fine".to_owned())
        } else {
            Err("silent".to_owned())
        };
        Check::of("named", Duration::from_millis(3), outcome)
    }

    #[test]
    fn one_broken_check_is_enough_to_not_enforce() {
        assert!(Report::of(vec![check(true), check(true)]).enforcing);
        let report = Report::of(vec![check(true), check(false)]);
        assert!(!report.enforcing);
        assert_eq!(report.broken().count(), 1);
    }

    #[test]
    fn a_report_of_nothing_does_not_enforce() {
        assert!(!Report::of(Vec::new()).enforcing);
    }

    #[test]
    fn the_wire_form_is_what_the_documents_name() {
        let written = serde_json::to_string(&Report::of(vec![check(false)])).unwrap();
        assert_eq!(
            written,
            r#"{"enforcing":false,"checks":[{"name":"named","ok":false,"detail":"silent","took_ms":3}]}"#
        );
    }
}
