//! The boot report: which step did what, when, and what that makes of the box. It is the file boot.json.
//!
//! Pure; who writes it and when is the board's business.

use serde::{Deserialize, Serialize};

/// The steps of a boot, in order.
pub(crate) const STEPS: [&str; 10] = [
    "seal", "config", "network", "bus", "nftables", "named", "haproxy", "dns", "enforcer", "policy",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// The boot has not come to an end yet.
    Starting,
    /// Everything runs and everything is denied that no policy allows.
    Enforcing,
    /// Nothing is forwarded, and something is missing from enforcement or from the configuration.
    Sealed,
    /// A step of the boot did not succeed; it is tried again.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// Since the kernel started.
    pub(crate) started_ms: u64,
    pub(crate) took_ms: u64,
    pub(crate) ok: bool,
    pub(crate) detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) version: String,
    pub(crate) base: String,
    pub(crate) state: State,
    /// Every step has once ended well in this boot.
    pub(crate) complete: bool,
    pub(crate) steps: Vec<Step>,
    pub(crate) warnings: Vec<String>,
    pub(crate) config_error: Option<String>,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Enforcing => "enforcing",
            Self::Sealed => "sealed",
            Self::Failed => "failed",
        }
    }
}

impl Step {
    /// One line for a console, at most 79 columns.
    pub(crate) fn line(&self) -> String {
        let mark = if self.ok { "ok    " } else { "FAILED" };
        let seconds = format!("{}.{}", self.took_ms / 1000, self.took_ms % 1000 / 100);
        let line = format!(
            "clawgress: {:<9} {mark} {seconds:>5} s  {}",
            self.name,
            first_line(&self.detail)
        );
        cut(&line, 79)
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}

pub(crate) fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(3)).collect();
    format!("{kept}...")
}

impl Report {
    pub(crate) fn new(version: String, base: String) -> Self {
        Self {
            version,
            base,
            state: State::Starting,
            complete: false,
            steps: Vec::new(),
            warnings: Vec::new(),
            config_error: None,
        }
    }

    pub(crate) fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    pub(crate) fn is_ok(&self, name: &str) -> bool {
        self.step(name).is_some_and(|step| step.ok)
    }

    /// Puts the step in the place of its last attempt. True if it says something new.
    pub(crate) fn record(&mut self, step: Step) -> bool {
        let known = self.steps.iter_mut().find(|known| known.name == step.name);
        // An attempt that repeats the last one says nothing; the time of the first success stays.
        let news = known
            .as_ref()
            .is_none_or(|known| known.ok != step.ok || known.detail != step.detail);
        match known {
            Some(known) if news => *known = step,
            Some(_) => {}
            None => self.steps.push(step),
        }
        let all_ok = STEPS.iter().all(|name| self.is_ok(name));
        self.complete |= all_ok;
        self.state = self.judge(all_ok);
        news
    }

    fn judge(&self, all_ok: bool) -> State {
        if all_ok {
            return State::Enforcing;
        }
        // After a complete boot the loss of a daemon is not a failed boot; the seal holds.
        if self.complete {
            return State::Sealed;
        }
        if self
            .steps
            .iter()
            .any(|step| !step.ok && step.name != "config")
        {
            return State::Failed;
        }
        if STEPS.iter().all(|name| self.step(name).is_some()) {
            // Only the configuration is wrong.
            return State::Sealed;
        }
        State::Starting
    }

    /// The steps that stand between the box and enforcing.
    pub(crate) fn broken(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| !step.ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, ok: bool) -> Step {
        Step {
            name: name.into(),
            started_ms: 1,
            took_ms: 1234,
            ok,
            detail: "detail".into(),
        }
    }

    fn report() -> Report {
        Report::new("0.1.0".into(), "debian-13".into())
    }

    #[test]
    fn a_good_boot_starts_and_then_enforces() {
        let mut report = report();
        for name in STEPS {
            assert_eq!(report.state, State::Starting);
            assert!(report.record(step(name, true)));
        }
        assert!(report.complete);
        assert_eq!(report.state, State::Enforcing);
    }

    #[test]
    fn a_failed_step_fails_the_boot_until_it_succeeds() {
        let mut report = report();
        report.record(step("seal", true));
        report.record(step("config", true));
        report.record(step("network", false));
        assert_eq!(report.state, State::Failed);
        report.record(step("network", true));
        assert_eq!(report.state, State::Starting);
    }

    #[test]
    fn a_daemon_lost_later_seals_and_comes_back() {
        let mut report = report();
        for name in STEPS {
            report.record(step(name, true));
        }
        report.record(step("named", false));
        assert_eq!(report.state, State::Sealed);
        assert!(report.complete);
        assert_eq!(report.broken().count(), 1);
        report.record(step("named", true));
        assert_eq!(report.state, State::Enforcing);
    }

    #[test]
    fn an_invalid_configuration_seals() {
        let mut report = report();
        for name in STEPS {
            report.record(step(name, name != "config"));
        }
        assert_eq!(report.state, State::Sealed);
        assert!(!report.complete);
    }

    #[test]
    fn a_repeated_failure_is_no_news() {
        let mut report = report();
        assert!(report.record(step("seal", false)));
        assert!(!report.record(step("seal", false)));
        assert!(report.record(step("seal", true)));
    }

    #[test]
    fn the_file_is_what_the_documents_name() {
        let mut report = report();
        report.record(step("seal", true));
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"version":"0.1.0","base":"debian-13","state":"starting","complete":false,"steps":[{"name":"seal","started_ms":1,"took_ms":1234,"ok":true,"detail":"detail"}],"warnings":[],"config_error":null}"#
        );
    }

    #[test]
    fn lines_fit_the_console() {
        assert_eq!(
            step("named", true).line(),
            "clawgress: named     ok       1.2 s  detail"
        );
        let mut long = step("named", false);
        long.detail = "x".repeat(200) + "\nmore";
        assert_eq!(long.line().chars().count(), 79);
    }
}
