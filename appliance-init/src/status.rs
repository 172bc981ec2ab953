//! Shows the boot report: a table for people, the file itself for programs.

use anyhow::Result;
use clawgress_link::terminal;

use crate::login::read_report;
use crate::paths::Paths;
use crate::report::{Report, State};

/// Prints the report; true only if the box enforces.
pub(crate) fn status(paths: &Paths, json: bool) -> Result<bool> {
    let report = read_report(paths)?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", terminal::lines(&table(&report)));
    }
    Ok(report.state == State::Enforcing)
}

fn table(report: &Report) -> String {
    let mut lines = vec![
        format!(
            "Clawgress {} on {}: {}",
            report.version,
            report.base,
            report.state.word()
        ),
        String::new(),
        format!(
            "{:<10} {:>10} {:>10}  {:<6}  {}",
            "STEP", "AT", "TOOK", "RESULT", "DETAIL"
        ),
    ];
    for step in &report.steps {
        let result = if step.ok { "ok" } else { "FAILED" };
        let mut details = step.detail.lines();
        lines.push(format!(
            "{:<10} {:>10} {:>10}  {result:<6}  {}",
            step.name,
            seconds(step.started_ms),
            seconds(step.took_ms),
            details.next().unwrap_or("")
        ));
        lines.extend(details.map(|detail| format!("{:42}{detail}", "")));
    }
    if let Some(error) = &report.config_error {
        lines.extend([String::new(), "The configuration is wrong:".to_owned()]);
        lines.extend(error.lines().map(|line| format!("  {line}")));
    }
    if !report.warnings.is_empty() {
        lines.extend([String::new(), "Warnings:".to_owned()]);
        lines.extend(report.warnings.iter().map(|warning| format!("  {warning}")));
    }
    lines.join("\n") + "\n"
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Step;

    #[test]
    fn the_table_shows_steps_errors_and_warnings() {
        let mut report = Report::new("0.1.0".into(), "debian-13".into());
        report.record(Step {
            name: "seal".into(),
            started_ms: 2345,
            took_ms: 67,
            ok: true,
            detail: "closed".into(),
        });
        report.record(Step {
            name: "config".into(),
            started_ms: 2412,
            took_ms: 1,
            ok: false,
            detail: "first\nsecond".into(),
        });
        report.config_error = Some("line 1: wrong".into());
        report.warnings = vec!["2 CPUs".into()];
        assert_eq!(
            table(&report),
            "Clawgress 0.1.0 on debian-13: starting\n\n\
             STEP               AT       TOOK  RESULT  DETAIL\n\
             seal          2.345 s    0.067 s  ok      closed\n\
             config        2.412 s    0.001 s  FAILED  first\n\
             \x20                                         second\n\n\
             The configuration is wrong:\n  line 1: wrong\n\n\
             Warnings:\n  2 CPUs\n"
        );
    }
}
