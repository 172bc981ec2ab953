//! `explain`: what would be decided, and each rule on the way to it.

use clawgress_link::agents::Explained;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::json;

use crate::{
    agents::with_notes,
    arguments::agent::Explain,
    ask::{Api, Failure, shown},
    style::{Align, Style, count, table, tame, time},
};

use Align::{Left, Right};

pub(crate) async fn run(
    api: &Api<'_>,
    asked: &Explain,
    json: bool,
    style: Style,
) -> Result<String, Failure> {
    let call = json!({
        "agent": asked.agent, "url": asked.url, "method": asked.method, "at": asked.at
    });
    let body = call.to_string().into_bytes();
    let answer = api.work("/clawgress/explain", body, None).await?;
    shown(json, answer, |told| explained(&told, style))
}

pub(crate) fn explained(told: &Explained, style: Style) -> String {
    let what = match &told.path {
        Some(path) => format!(
            "{} {}:{} {}",
            told.method, told.destination, told.port, path
        ),
        None => format!("{} {}:{}", told.method, told.destination, told.port),
    };
    let clock = if told.clock_trusted {
        ""
    } else {
        ", by a clock that is not trusted: whatever has a time window is denied"
    };
    let by = match told.policy_id.as_str() {
        "policy.json" => "policy.json".to_owned(),
        "default-deny" => "default".to_owned(),
        rule => format!("rule {} (version {})", tame(rule), told.version),
    };
    let mut verdict = format!("{}, by {by}", if told.allowed { "allow" } else { "deny" });
    // That a rule denies is said by its name.
    if let Some(reason) = told.reason.as_ref().filter(|reason| *reason != "rule") {
        verdict.push_str(&format!(": {}", tame(reason)));
    }
    let verdict = if told.allowed {
        style.good(&verdict)
    } else {
        style.bad(&verdict)
    };
    let agent = &told.agent;
    let who = [
        &agent.agent_id,
        &agent.team_id,
        &agent.project_id,
        &agent.environment,
    ];
    let [id, team, project, environment] = who.map(|text| tame(text));
    let mut lines = vec![
        format!("Agent       {id} (team {team}, project {project}, environment {environment})"),
        format!("Request     {}", tame(&what)),
        format!("At          {}{}{clock}", time(told.at), in_zone(told)),
        format!("Revision    {}", told.revision),
        format!("Verdict     {verdict}"),
    ];
    if let Some(label) = &told.label {
        lines.push(format!("Label       {}", tame(label)));
    }
    if let Some(rule) = &told.enforce_would_deny {
        lines.push(format!(
            "Would deny  {}, which is in report mode",
            tame(rule)
        ));
    }
    if told.alert {
        lines.push("Alert       a rule that matched wants somebody to be told".to_owned());
    }
    lines.push(String::new());
    let rows: Vec<Vec<String>> = told
        .considered
        .iter()
        .map(|rule| {
            vec![
                rule.priority
                    .map_or_else(|| "-".to_owned(), |priority| priority.to_string()),
                tame(&rule.policy_id),
                tame(&rule.action),
                tame(&rule.mode),
                tame(&rule.why),
            ]
        })
        .collect();
    let head = [
        ("PRIORITY", Right),
        ("RULE", Left),
        ("ACTION", Left),
        ("MODE", Left),
        ("", Left),
    ];
    lines.push(table(&head, &rows, style));
    lines.extend(leads(told, style));
    lines.extend(paths(told, style));
    lines.extend(limits(told, style));
    with_notes(lines.join("\n"), "note:", &told.notes, style)
}

fn leads(told: &Explained, style: Style) -> Vec<String> {
    if let Some(why) = &told.unresolved {
        return vec![
            String::new(),
            format!("Leads to    not known: {}", tame(why)),
        ];
    }
    if told.addresses.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Vec<String>> = told
        .addresses
        .iter()
        .map(|led| {
            let dialled = match &led.refused {
                None => "may be dialled".to_owned(),
                Some(why) => format!("refused: {why}"),
            };
            vec![led.address.clone(), led.class.clone(), dialled]
        })
        .collect();
    let head = [("LEADS TO", Left), ("CLASS", Left), ("", Left)];
    vec![String::new(), table(&head, &rows, style)]
}

fn paths(told: &Explained, style: Style) -> Vec<String> {
    if told.paths.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Vec<String>> = told
        .paths
        .iter()
        .map(|path| {
            let verdict = match path.allowed {
                Some(true) => "allow",
                Some(false) => "deny",
                None => "-",
            };
            vec![path.path.clone(), verdict.to_owned(), path.why.clone()]
        })
        .collect();
    let head = [("PATH", Left), ("VERDICT", Left), ("", Left)];
    vec![String::new(), table(&head, &rows, style)]
}

fn limits(told: &Explained, style: Style) -> Vec<String> {
    if told.limits.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Vec<String>> = told
        .limits
        .iter()
        .map(|limit| {
            vec![
                limit.limit.clone(),
                limit.of.clone(),
                count(limit.most),
                limit.left.map_or_else(|| "?".to_owned(), count),
                limit.unit.clone(),
                limit.beyond.clone(),
            ]
        })
        .collect();
    let head = [
        ("LIMIT", Left),
        ("OF", Left),
        ("MOST", Right),
        ("LEFT", Right),
        ("UNIT", Left),
        ("BEYOND", Left),
    ];
    vec![String::new(), table(&head, &rows, style)]
}

/// Windows of rules are in the time zone of the box.
fn in_zone(told: &Explained) -> String {
    let local = || {
        let zone = TimeZone::get(&told.time_zone).ok()?;
        let at = Timestamp::from_second(told.at).ok()?.to_zoned(zone);
        Some(format!(
            " ({} in {})",
            at.strftime("%a %H:%M"),
            tame(&told.time_zone)
        ))
    };
    local().unwrap_or_default()
}
