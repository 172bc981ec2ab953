//! Telemetry as tables: who asked, what flowed, what was denied and why, how far caps are used.

use clawgress_link::control::{PrincipalTelemetry, Telemetry};

use crate::style::{Align, Style, bytes, count, table, tame, time};

use Align::{Left, Right};

pub(crate) fn whole(telemetry: &Telemetry, style: Style) -> String {
    let mut parts = vec![format!("In the last {}", tame(&telemetry.window))];
    if telemetry.principals.is_empty() {
        parts.push("nobody was seen".to_owned());
    } else {
        parts.push(principals(telemetry, style));
    }
    let domains = domains(telemetry);
    if !domains.is_empty() {
        let head = [
            ("HOST", Left),
            ("DOMAIN", Left),
            ("QUERIES", Right),
            ("CACHED", Right),
            ("DENIED", Right),
            ("FLOWS", Right),
            ("OUT", Right),
            ("IN", Right),
        ];
        parts.push(table(&head, &domains, style));
    }
    let caps = caps(telemetry);
    if !caps.is_empty() {
        let head = [
            ("HOST", Left),
            ("CAP ON", Left),
            ("USED", Right),
            ("OF", Right),
            ("", Right),
            ("PERIOD", Left),
            ("BEGINS ANEW", Left),
        ];
        parts.push(table(&head, &caps, style));
    }
    parts.extend(denial_tables(telemetry, style));
    parts.join("\n\n")
}

pub(crate) fn denials(telemetry: &Telemetry, style: Style) -> String {
    let tables = denial_tables(telemetry, style);
    let head = format!("Denied in the last {}", tame(&telemetry.window));
    if tables.is_empty() {
        return format!("{head}: nothing");
    }
    [vec![head], tables].concat().join("\n\n")
}

fn principals(telemetry: &Telemetry, style: Style) -> String {
    let rows: Vec<Vec<String>> = telemetry
        .principals
        .iter()
        .map(|(name, told)| {
            vec![
                tame(name),
                count(told.queries),
                count(told.cache_hits),
                count(told.denied.values().sum()),
                count(told.flows),
                bytes(told.bytes_out),
                bytes(told.bytes_in),
            ]
        })
        .collect();
    let head = [
        ("HOST", Left),
        ("QUERIES", Right),
        ("CACHED", Right),
        ("DENIED", Right),
        ("FLOWS", Right),
        ("OUT", Right),
        ("IN", Right),
    ];
    table(&head, &rows, style)
}

fn each(telemetry: &Telemetry) -> impl Iterator<Item = (String, &PrincipalTelemetry)> {
    let principals = telemetry.principals.iter();
    principals.map(|(name, told)| (tame(name), told))
}

fn domains(telemetry: &Telemetry) -> Vec<Vec<String>> {
    each(telemetry)
        .flat_map(|(host, told)| {
            told.domains.iter().map(move |(domain, told)| {
                vec![
                    host.clone(),
                    tame(domain),
                    count(told.queries),
                    count(told.cache_hits),
                    count(told.denied),
                    count(told.flows),
                    bytes(told.bytes_out),
                    bytes(told.bytes_in),
                ]
            })
        })
        .collect()
}

fn caps(telemetry: &Telemetry) -> Vec<Vec<String>> {
    each(telemetry)
        .flat_map(|(host, told)| {
            told.caps.iter().map(move |cap| {
                let share = if cap.limit == 0 {
                    100.0
                } else {
                    cap.used as f64 * 100.0 / cap.limit as f64
                };
                vec![
                    host.clone(),
                    tame(&cap.domain),
                    bytes(cap.used),
                    bytes(cap.limit),
                    format!("{share:.0} %"),
                    tame(&cap.period),
                    time(cap.resets_at),
                ]
            })
        })
        .collect()
}

fn denial_tables(telemetry: &Telemetry, style: Style) -> Vec<String> {
    let mut parts = Vec::new();
    let reasons: Vec<Vec<String>> = each(telemetry)
        .flat_map(|(host, told)| {
            told.denied
                .iter()
                .map(move |(reason, times)| vec![host.clone(), tame(reason), count(*times)])
        })
        .collect();
    if !reasons.is_empty() {
        let head = [("HOST", Left), ("REASON", Left), ("DENIED", Right)];
        parts.push(table(&head, &reasons, style));
    }
    let top: Vec<Vec<String>> = telemetry
        .top_denied
        .iter()
        .map(|(name, times)| vec![tame(name), count(*times)])
        .collect();
    if !top.is_empty() {
        let head = [("MOST DENIED", Left), ("TIMES", Right)];
        parts.push(table(&head, &top, style));
    }
    parts
}
