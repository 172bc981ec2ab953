//! What people see of an answer: status, reports, keys, refusals.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clawgress_link::{
    admin::{Key, NewKey, Overview, PolicyReply, Trouble},
    control::Report,
    health::Check,
    terminal,
};
use serde_json::Value;

use crate::{
    ask::{Failure, pretty},
    style::{Align, Style, count, seen, table, tame, time},
};

/// A reader who has seen enough is no failure.
pub(crate) fn print(text: &str) -> ExitCode {
    if text.is_empty() {
        return ExitCode::SUCCESS;
    }
    match writeln!(io::stdout().lock(), "{}", seen(text)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

pub(crate) fn complain(failure: &Failure, json: bool) {
    // Behind half a stream another object would be taken for one of its lines.
    let json = json && !matches!(failure, Failure::Cut(_));
    let text = match failure {
        Failure::Refused { refused, .. } if json => {
            terminal::json(&serde_json::to_string_pretty(refused).unwrap_or_default()).into_owned()
        }
        _ if json => {
            let error = match failure {
                Failure::Unreachable { .. } => "unreachable",
                Failure::Usage(_) => "wrong usage",
                _ => "failed",
            };
            let value = serde_json::json!({ "error": error, "reason": failure.to_string() });
            pretty(&value)
        }
        _ => complaint(failure),
    };
    let text = seen(&text);
    // Programs read what they asked for where they read everything else.
    let written = if json {
        writeln!(io::stdout().lock(), "{text}")
    } else {
        writeln!(io::stderr().lock(), "{text}")
    };
    // Nobody is left to tell.
    written.ok();
}

pub(crate) fn complaint(failure: &Failure) -> String {
    let Failure::Refused { file, refused } = failure else {
        return format!("clawgress: {}", tame(&failure.to_string()));
    };
    if refused.problems.is_empty() {
        return format!("clawgress: {}", tame(&refused.reason));
    }
    let file = file.as_ref().map(|file| file.display().to_string());
    let mut lines: Vec<String> = refused
        .problems
        .iter()
        .map(|problem| tame(&located(file.as_deref(), problem)))
        .collect();
    let number = match refused.problems.len() {
        1 => "one problem".to_owned(),
        more => format!("{more} problems"),
    };
    lines.push(format!("clawgress: {number}; nothing was changed"));
    lines.join("\n")
}

/// `policy.json:3:14: allow.ports[0]: 0 is no port; …`
fn located(file: Option<&str>, problem: &Trouble) -> String {
    let mut parts = Vec::new();
    let place = match (problem.line, problem.column) {
        (Some(line), Some(column)) => format!("{line}:{column}"),
        _ => String::new(),
    };
    match (file, place.as_str()) {
        (Some(file), "") => parts.push(file.to_owned()),
        (Some(file), place) => parts.push(format!("{file}:{place}")),
        (None, "") => {}
        (None, place) => parts.push(place.to_owned()),
    }
    if !problem.path.is_empty() {
        parts.push(problem.path.clone());
    }
    parts.push(if problem.fix.is_empty() {
        problem.what.clone()
    } else {
        format!("{}; {}", problem.what, problem.fix)
    });
    parts.join(": ")
}

pub(crate) fn status(overview: &Overview, style: Style) -> String {
    let health = &overview.health;
    let mut facts = Vec::new();
    let enforcing = if health.report.enforcing {
        match health.revision {
            Some(revision) => style.good(&format!("enforcing revision {revision}")),
            None => style.good("sealed: nothing leaves, no policy is committed"),
        }
    } else {
        style.bad("NOT as it should be")
    };
    facts.push(("Gateway", enforcing));
    if let Some(status) = &overview.enforcer {
        facts.push(("Generation", status.generation.to_string()));
        facts.push((
            "Principals",
            format!(
                "{}, {} domains, {} pinned addresses",
                count(status.principals as u64),
                count(status.domains as u64),
                count(status.pins as u64)
            ),
        ));
        facts.push((
            "Clock",
            if status.clock_trusted {
                style.good("trusted")
            } else {
                style.bad("not trusted: whatever has a time window is denied")
            },
        ));
        if let Some(next) = status.next_change {
            facts.push(("Next window", time(next)));
        }
    }
    if overview.boot_revision != health.revision {
        let boots = match overview.boot_revision {
            Some(revision) => format!("revision {revision}"),
            None => "sealed".to_owned(),
        };
        facts.push(("Next boot", boots));
    }
    let mut lines: Vec<String> = facts
        .into_iter()
        .map(|(name, fact)| format!("{name:<12}{fact}"))
        .collect();
    lines.push(String::new());
    lines.extend(checks(("FAIL", "CHECK"), &health.report.checks, style));
    if !health.services.is_empty() {
        lines.push(String::new());
        lines.push("Nobody needs these, for no committed revision enables the gateway:".to_owned());
        lines.extend(checks(("no", "SERVICE"), &health.services, style));
    }
    let warnings = overview.enforcer.iter().flat_map(|status| &status.warnings);
    let warnings: Vec<String> = warnings
        .map(|warning| format!("  {}", tame(warning)))
        .collect();
    if !warnings.is_empty() {
        lines.push(String::new());
        lines.push(style.loud("Warnings"));
        lines.extend(warnings);
    }
    lines.join("\n")
}

fn checks((broken, what): (&str, &str), checks: &[Check], style: Style) -> Vec<String> {
    // Colours would count as width, so they come after the table is laid out.
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|check| {
            vec![
                if check.ok { "ok" } else { broken }.to_owned(),
                tame(&check.name),
                format!("{} ms", check.took_ms),
                tame(&check.detail),
            ]
        })
        .collect();
    let head = [
        ("", Align::Left),
        (what, Align::Left),
        ("TOOK", Align::Right),
        ("", Align::Left),
    ];
    let table = table(&head, &rows, style);
    let lines = table.lines().map(|line| match line.strip_prefix("FAIL") {
        Some(rest) => format!("{}{rest}", style.bad("FAIL")),
        None => line.to_owned(),
    });
    lines.collect()
}

pub(crate) fn applied(reply: &PolicyReply, style: Style) -> String {
    let mut lines = stages(&reply.report, style);
    for warning in &reply.warnings {
        lines.push(format!("{} {}", style.loud("warning:"), tame(warning)));
    }
    lines.push(style.good(&tame(&reply.note)));
    lines.join("\n")
}

fn stages(report: &Report, style: Style) -> Vec<String> {
    if report.stages.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Vec<String>> = report
        .stages
        .iter()
        .map(|stage| {
            vec![
                if stage.ok { "ok" } else { "FAIL" }.to_owned(),
                tame(&stage.name),
                format!("{} ms", stage.took_ms),
                tame(&stage.detail),
            ]
        })
        .collect();
    let head = [
        ("", Align::Left),
        ("STAGE", Align::Left),
        ("TOOK", Align::Right),
        ("", Align::Left),
    ];
    vec![table(&head, &rows, style)]
}

pub(crate) fn zone(answer: &Value, style: Style) -> String {
    let names: Vec<&str> = answer["names"]
        .as_array()
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let total = answer["total"].as_u64().unwrap_or(0);
    let mut lines: Vec<String> = names.iter().map(|name| tame(name)).collect();
    let shown = names.len() as u64;
    let tail = if shown < total {
        format!(
            "{} of {} names; --limit shows more",
            count(shown),
            count(total)
        )
    } else {
        format!(
            "{} names are let through, every other is denied",
            count(total)
        )
    };
    lines.push(style.loud(&tail));
    lines.join("\n")
}

pub(crate) fn new_key(new: &NewKey, style: Style) -> String {
    format!(
        "{}\n\nThis is the only time that the key is shown. It is the key '{}' of role {}; to end it: clawgress key revoke {}",
        style.loud(&new.key),
        tame(&new.about.name),
        new.about.role.word(),
        new.about.id
    )
}

pub(crate) fn keys(keys: &[Key], style: Style) -> String {
    if keys.is_empty() {
        return "there is no key yet; make one with: clawgress key create".to_owned();
    }
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            vec![
                key.id.clone(),
                tame(&key.name),
                key.role.word().to_owned(),
                time(key.created),
                key.last_used.map_or_else(|| "never".to_owned(), time),
                key.revoked
                    .map_or_else(|| "in use".to_owned(), |at| format!("revoked {}", time(at))),
            ]
        })
        .collect();
    let head = [
        ("ID", Align::Left),
        ("NAME", Align::Left),
        ("ROLE", Align::Left),
        ("CREATED", Align::Left),
        ("LAST USED", Align::Left),
        ("STATE", Align::Left),
    ];
    table(&head, &rows, style)
}
