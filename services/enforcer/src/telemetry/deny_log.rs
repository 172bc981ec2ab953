//! Denials told to people: one JSON line each. At most so many a second, of everybody together and of each principal;
//! how many were left out is told with the next one.
//!
//! Exact numbers are the counters' matter. Nothing that an agent wrote gets into a line unescaped.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clawgress_link::deny_lines::{DenyLines, USUAL_FACILITY, facility};
use serde::Serialize;

const OF_ALL: u32 = 100;
const OF_ONE: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial<'a> {
    pub event: &'static str,
    /// Seconds since 1970.
    pub time: i64,
    /// Empty: nobody that is known.
    pub principal: &'a str,
    pub source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    pub reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<&'a str>,
    /// As in the answer to the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    /// So many like it were not told since the last one.
    #[serde(skip_serializing_if = "is_zero")]
    pub suppressed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug)]
pub struct DenyLog {
    enabled: bool,
    facility: u8,
    lines: DenyLines,
    begun: Instant,
    told: HashMap<String, u32>,
    told_to_all: u32,
    suppressed: u64,
}

impl Default for DenyLog {
    fn default() -> Self {
        Self {
            enabled: false,
            facility: USUAL_FACILITY,
            lines: DenyLines::of("clawgress-enforcer"),
            begun: Instant::now(),
            told: HashMap::new(),
            told_to_all: 0,
            suppressed: 0,
        }
    }
}

impl DenyLog {
    pub fn configure(&mut self, enabled: bool, facility_word: &str) {
        self.enabled = enabled;
        self.facility = facility(facility_word).unwrap_or(USUAL_FACILITY);
    }

    /// Writes it down, or counts that it was not.
    pub fn tell(&mut self, mut denial: Denial<'_>) {
        if !self.enabled {
            return;
        }
        let Some(suppressed) = self.admitted(denial.principal, Instant::now()) else {
            return;
        };
        denial.suppressed = suppressed;
        let Ok(line) = serde_json::to_string(&denial) else {
            return;
        };
        // A reader that is behind is no reason to stop enforcing.
        if !self.lines.write(self.facility, &line) {
            self.suppressed += suppressed + 1;
        }
    }

    /// So many never got here; the next one tells of them.
    pub fn left_out(&mut self, many: u64) {
        self.suppressed = self.suppressed.saturating_add(many);
    }

    /// How many were left out before this one; none, if this one is left out, too.
    fn admitted(&mut self, principal: &str, now: Instant) -> Option<u64> {
        if self.admits(principal, now) {
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }

    fn admits(&mut self, principal: &str, now: Instant) -> bool {
        if now.duration_since(self.begun) >= SECOND {
            self.begun = now;
            self.told.clear();
            self.told_to_all = 0;
        }
        let of_one = self.told.entry(principal.to_owned()).or_default();
        if self.told_to_all >= OF_ALL || *of_one >= OF_ONE {
            return false;
        }
        *of_one += 1;
        self.told_to_all += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(principal: &str) -> Denial<'_> {
        Denial {
            event: "deny",
            time: 1,
            principal,
            source: "192.168.10.10".to_owned(),
            destination: Some("192.0.2.1".to_owned()),
            port: Some(443),
            protocol: "tcp",
            name: Some("a\n\"b"),
            reason: "not-allowlisted",
            label: None,
            request_id: None,
            suppressed: 0,
        }
    }

    #[test]
    fn a_line_is_one_line() {
        let line = serde_json::to_string(&denial("agent-1")).unwrap();
        assert!(
            !line.contains('\n') && !line.contains("suppressed"),
            "{line}"
        );
    }

    #[test]
    fn one_noisy_principal_silences_no_other() {
        let mut log = DenyLog::default();
        let now = Instant::now();
        let admitted = (0..1000).filter(|_| log.admits("noisy", now)).count();
        assert_eq!(admitted, OF_ONE as usize);
        assert!(log.admits("quiet", now));
        assert!(log.admits("noisy", now + SECOND));
    }

    #[test]
    fn what_was_left_out_is_counted() {
        let mut log = DenyLog::default();
        let now = Instant::now();
        let left_out = (0..30).filter(|_| log.admitted("a", now).is_none()).count();
        assert_eq!(left_out, 10);
        assert_eq!(log.admitted("b", now), Some(10));
        assert_eq!(log.admitted("b", now), Some(0));
        log.left_out(7);
        assert_eq!(log.admitted("b", now), Some(7));
    }
}
