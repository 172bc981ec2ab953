//! Denials told to people: one JSON line each, on the standard output and, where the configuration wants it, to the
//! syslog. At most so many a second, of everybody together and of each principal; how many were left out is told with
//! the next one.
//!
//! Exact numbers are the counters' matter. Nothing that an agent wrote gets into a line unescaped.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use serde::Serialize;

const SYSLOG: &str = "/dev/log";
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

/// Numbers of RFC 5424.
fn facility(word: &str) -> Option<u8> {
    const WORDS: [(&str, u8); 20] = [
        ("kern", 0),
        ("user", 1),
        ("mail", 2),
        ("daemon", 3),
        ("auth", 4),
        ("syslog", 5),
        ("lpr", 6),
        ("news", 7),
        ("uucp", 8),
        ("cron", 9),
        ("authpriv", 10),
        ("ftp", 11),
        ("local0", 16),
        ("local1", 17),
        ("local2", 18),
        ("local3", 19),
        ("local4", 20),
        ("local5", 21),
        ("local6", 22),
        ("local7", 23),
    ];
    WORDS
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(_, number)| *number)
}

#[derive(Debug)]
pub struct DenyLog {
    enabled: bool,
    facility: u8,
    syslog: Option<UnixDatagram>,
    begun: Instant,
    told: HashMap<String, u32>,
    told_to_all: u32,
    suppressed: u64,
}

impl Default for DenyLog {
    fn default() -> Self {
        Self {
            enabled: false,
            facility: 16,
            syslog: None,
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
        self.facility = facility(facility_word).unwrap_or(16);
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
        // A closed output is no reason to stop enforcing.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
        self.tell_syslog(&line);
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

    fn tell_syslog(&mut self, line: &str) {
        if self.syslog.is_none() {
            self.syslog = UnixDatagram::unbound().ok().filter(|socket| {
                socket.set_nonblocking(true).is_ok() && socket.connect(SYSLOG).is_ok()
            });
        }
        // Severity 5: notice. Without a time: the receiver on this machine has the same clock.
        let priority = u16::from(self.facility) * 8 + 5;
        let message = format!("<{priority}>clawgress-enforcer: {line}");
        if let Some(socket) = &self.syslog
            && socket
                .send(message.as_bytes())
                .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
        {
            self.syslog = None;
        }
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

    #[test]
    fn facilities_have_the_numbers_of_the_standard() {
        assert_eq!(facility("local3"), Some(19));
        assert_eq!(facility("daemon"), Some(3));
        assert_eq!(facility("local8"), None);
    }
}
