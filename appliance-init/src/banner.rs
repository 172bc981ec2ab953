//! The text of the console banner, a pure function of what is known. ASCII, under 80 columns, most important first.

use clawgress_link::terminal;

use crate::enforcer;
use crate::report::{Report, State, cut};

/// Where an operator finds the rest.
pub(crate) const STATUS_COMMAND: &str = "/usr/lib/clawgress/appliance-init status";
const COLUMNS: usize = 78;
/// A configuration may have fifty errors; the console shows the first, status shows all.
const ERROR_LINES: usize = 6;

/// What the banner shows beside the report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) host_name: String,
    pub(crate) live: bool,
    pub(crate) cards: Vec<Card>,
    /// No boot config was found, so the default network is in use.
    pub(crate) unconfigured: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) name: String,
    pub(crate) roles: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) waits_for_dhcp: bool,
}

impl Card {
    /// Its addresses in words.
    pub(crate) fn shown(&self) -> String {
        match (self.addresses.is_empty(), self.waits_for_dhcp) {
            (false, _) => self.addresses.join(", "),
            (true, true) => "no address yet (DHCP)".to_owned(),
            (true, false) => "no address".to_owned(),
        }
    }
}

pub(crate) fn banner(report: &Report, facts: &Facts) -> String {
    let mut lines: Vec<String> = Vec::new();
    let title = format!("Clawgress {} on {}", report.version, report.base);
    let gap = COLUMNS
        .saturating_sub(title.chars().count() + facts.host_name.chars().count())
        .max(1);
    lines.push(String::new());
    lines.push(format!("{title}{}{}", " ".repeat(gap), facts.host_name));
    lines.push("-".repeat(COLUMNS));
    enforced(&mut lines, report);
    lines.push(String::new());
    if facts.cards.is_empty() {
        lines.push("No network card is in use.".to_owned());
    }
    for card in &facts.cards {
        lines.push(format!(
            "{:<6} {:<12} {}",
            card.name,
            card.roles,
            card.shown()
        ));
    }
    if let Some(error) = &report.config_error {
        lines.push(String::new());
        wrap(
            &mut lines,
            "The configuration is wrong. Only management cards that are right are up.",
            "",
        );
        let problems: Vec<&str> = error.lines().collect();
        for problem in problems.iter().take(ERROR_LINES) {
            wrap(&mut lines, problem, "  ");
        }
        if problems.len() > ERROR_LINES {
            lines.push(format!(
                "  and {} more lines, see the command below",
                problems.len() - ERROR_LINES
            ));
        }
    }
    if !report.warnings.is_empty() || facts.live {
        lines.push(String::new());
    }
    for warning in &report.warnings {
        wrap(&mut lines, &format!("! {warning}"), "  ");
    }
    if facts.live {
        lines.push("! live mode: nothing that you change survives a reboot".to_owned());
    }
    next(&mut lines, facts);
    // Names of hosts and errors quote what others wrote.
    let cut: Vec<String> = lines
        .iter()
        .map(|line| cut(&terminal::line(line), COLUMNS))
        .collect();
    cut.join("\n") + "\n"
}

fn enforced(lines: &mut Vec<String>, report: &Report) {
    match report.state {
        State::Enforcing => wrap(lines, &in_force(report), ""),
        State::Sealed if report.broken().all(|step| step.name == "config") => {
            lines.push("SEALED: nothing is forwarded while the configuration is wrong.".to_owned());
        }
        State::Sealed => wrap(
            lines,
            "SEALED: nothing is forwarded until enforcement is whole again.",
            "",
        ),
        State::Failed => wrap(
            lines,
            "SEALED, the boot is not complete: nothing is forwarded. Trying again.",
            "",
        ),
        State::Starting => wrap(lines, "Sealed, still starting: nothing is forwarded.", ""),
    }
    for step in report.broken().filter(|step| step.name != "config") {
        wrap(
            lines,
            &format!(
                "* {} failed: {}",
                step.name,
                step.detail.lines().next().unwrap_or("")
            ),
            "  ",
        );
    }
}

/// What a box in which every daemon is well lets through.
fn in_force(report: &Report) -> String {
    let said = report
        .step("enforcer")
        .map_or("", |step| step.detail.as_str());
    if said.ends_with(enforcer::IN_FORCE) {
        format!("Enforcing: {said}. What it does not allow is denied.")
    } else if said.is_empty() || said == enforcer::NO_POLICY {
        "Sealed and enforcing: no policy is committed, so nothing is forwarded and every name is denied."
            .to_owned()
    } else {
        format!("SEALED: {said}")
    }
}

fn next(lines: &mut Vec<String>, facts: &Facts) {
    lines.push(String::new());
    lines.push("What next:".to_owned());
    lines.push(format!("  {STATUS_COMMAND:<42} every step of this boot"));
    lines.push(format!(
        "  {:<42} what went wrong",
        "journalctl -b -p warning"
    ));
    lines.push(format!("  {:<42} switch off", "poweroff"));
    if facts.unconfigured {
        wrap(
            lines,
            "  To configure: boot with a volume labelled CLAWGRESS-CFG that holds config.boot.",
            "  ",
        );
    }
    lines.push(String::new());
}

/// Breaks a text into lines between words; those after the first are indented.
fn wrap(lines: &mut Vec<String>, text: &str, indent: &str) {
    let mut line = String::new();
    let mut started = false;
    for word in text.split(' ') {
        if started && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(std::mem::replace(&mut line, format!("{indent}{word}")));
            continue;
        }
        if started {
            line.push(' ');
        }
        line.push_str(word);
        started = true;
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{STEPS, Step};

    fn report(broken: Option<&str>) -> Report {
        let mut report = Report::new("0.1.0".into(), "debian-13".into());
        for name in STEPS {
            report.record(Step {
                name: name.into(),
                started_ms: 1000,
                took_ms: 120,
                ok: broken != Some(name),
                detail: if broken == Some(name) {
                    "no answer within 60000 ms".into()
                } else if name == "enforcer" {
                    enforcer::NO_POLICY.into()
                } else {
                    "fine".into()
                },
            });
        }
        report
    }

    #[test]
    fn what_is_in_force_is_what_is_said() {
        let mut enforcing = report(None);
        let mut says = |detail: &str| {
            enforcing.record(Step {
                name: "enforcer".into(),
                started_ms: 1000,
                took_ms: 120,
                ok: true,
                detail: detail.into(),
            });
            banner(&enforcing, &facts())
        };
        assert!(says("revision 7 is in force").contains("\nEnforcing: revision 7 is in force."));
        assert!(
            says("revision 7: sealed by root").contains("\nSEALED: revision 7: sealed by root")
        );
    }

    fn facts() -> Facts {
        Facts {
            host_name: "gw1".into(),
            live: true,
            unconfigured: false,
            cards: vec![
                Card {
                    name: "eth0".into(),
                    roles: "wan".into(),
                    addresses: Vec::new(),
                    waits_for_dhcp: true,
                },
                Card {
                    name: "eth1".into(),
                    roles: "lan".into(),
                    addresses: vec!["192.168.10.1/24".into()],
                    waits_for_dhcp: false,
                },
            ],
        }
    }

    fn golden(name: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata/banner")
            .join(name);
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == kept,
            "{} differs from what is shown now:\n{text}",
            path.display()
        );
        assert!(
            text.is_ascii() && text.lines().all(|line| line.len() < 80),
            "{text}"
        );
    }

    #[test]
    fn enforcing() {
        let mut report = report(None);
        report.warnings = vec!["2 CPUs: at least 4 are needed".into()];
        golden("enforcing.txt", &banner(&report, &facts()));
    }

    #[test]
    fn a_failed_boot() {
        golden("failed.txt", &banner(&report(Some("named")), &facts()));
    }

    #[test]
    fn an_invalid_configuration() {
        let mut report = report(Some("config"));
        let invalid = clawgress_config::load(
            b"interfaces {\n ethernet eth0 {\n address 10.0.0.0/24\n role wna\n }\n}\nsystem { hostname gw1 }\n",
        )
        .unwrap_err();
        report.config_error = Some(format!("/config/config.boot:\n{invalid}"));
        let facts = Facts {
            cards: Vec::new(),
            live: false,
            ..facts()
        };
        golden("config-error.txt", &banner(&report, &facts));
    }

    #[test]
    fn nothing_in_it_commands_the_console() {
        let mut report = report(Some("named"));
        report.config_error = Some("line 1: '\u{1b}[2J\u{202e}x' is no name\rok\nline 2".into());
        report.warnings = vec!["\u{9b}31mcard".into()];
        let text = banner(&report, &facts());
        assert!(
            text.contains(r"\u{1b}[2J\u{202e}x") && text.contains(r"no name\rok"),
            "{text}"
        );
        assert!(text.contains(r"! \u{9b}31mcard"), "{text}");
    }

    #[test]
    fn never_wider_than_the_console() {
        let mut report = report(Some("named"));
        report.config_error = Some("x".repeat(500));
        report.warnings = vec!["word ".repeat(100), "y".repeat(200)];
        let facts = Facts {
            host_name: "h".repeat(64),
            unconfigured: true,
            ..facts()
        };
        let text = banner(&report, &facts);
        assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
    }
}
