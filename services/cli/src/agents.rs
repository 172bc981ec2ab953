//! `agent` and `flows`: asks, and shows agents, keys and flows as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

use clawgress_link::agents::{
    Agent, AgentKey, AgentKeys, AgentView, Agents, Blocked, Flows, NewAgentKey, Token,
};
use serde_json::json;

use crate::{
    arguments::agent::{AgentKey as Key, OfAgent},
    ask::{Api, Failure, shown},
    style::{Align, Style, bytes, count, table, tame, time},
};

use Align::{Left, Right};

/// The id that means everybody, and the one that means the list.
const ALL: &str = "all";
const LIST: &str = "list";

pub(crate) async fn agent(
    api: &Api<'_>,
    id: &str,
    action: Option<&OfAgent>,
    json: bool,
    style: Style,
) -> Result<String, Failure> {
    match action {
        None if id == LIST => {
            let answer = api.ask("/clawgress/agents", json!({})).await?;
            shown(json, answer, |agents| list(&agents, style))
        }
        None => Err(Failure::Usage(format!(
            "what of the agent {id}? Write one of show, key, token, block, unblock behind it; agents are listed by: clawgress agent list"
        ))),
        Some(OfAgent::Block) => {
            let answer = api.ask("/clawgress/agents/block", whom(id)).await?;
            shown(json, answer, |blocked| switched(&blocked, id, true, style))
        }
        Some(OfAgent::Unblock) => {
            let answer = api.ask("/clawgress/agents/unblock", whom(id)).await?;
            shown(json, answer, |blocked| switched(&blocked, id, false, style))
        }
        Some(_) if id == ALL => Err(Failure::Usage(
            "everybody can be blocked and unblocked, and nothing else; name one agent".to_owned(),
        )),
        Some(OfAgent::Show) => {
            let answer = api
                .ask("/clawgress/agents/show", json!({ "agent": id }))
                .await?;
            shown(json, answer, |view| one(&view, now(), style))
        }
        Some(OfAgent::Token { lifetime }) => {
            let call = json!({ "agent": id, "lifetime_seconds": lifetime });
            let answer = api.ask("/clawgress/agents/token", call).await?;
            shown(json, answer, |token| issued(&token, style))
        }
        Some(OfAgent::Key(key)) => of_key(api, id, key, json, style).await,
    }
}

fn whom(id: &str) -> serde_json::Value {
    if id == ALL {
        json!({ "all": true })
    } else {
        json!({ "agent": id })
    }
}

async fn of_key(
    api: &Api<'_>,
    id: &str,
    key: &Key,
    json: bool,
    style: Style,
) -> Result<String, Failure> {
    match key {
        Key::Create {
            expires,
            sources,
            name,
        } => {
            let seconds = expires.map(|end| end.seconds(now())).transpose();
            let seconds = seconds.map_err(|why| Failure::Usage(format!("--expires: {why}")))?;
            let call = json!({
                "agent": id, "name": name, "sources": sources, "lifetime_seconds": seconds
            });
            let answer = api.ask("/clawgress/agents/keys/create", call).await?;
            shown(json, answer, |new| new_key(&new, now(), style))
        }
        Key::List => {
            let answer = api
                .ask("/clawgress/agents/keys", json!({ "agent": id }))
                .await?;
            shown(json, answer, |keys: AgentKeys| match keys.keys.as_slice() {
                [] => {
                    format!("{id} has no key yet; make one with: clawgress agent {id} key create")
                }
                keys => key_table(keys, now(), style),
            })
        }
        Key::Revoke { prefix } => {
            let call = json!({ "agent": id, "prefix": prefix });
            let answer = api.ask("/clawgress/agents/keys/revoke", call).await?;
            shown(json, answer, |key: AgentKey| {
                format!(
                    "key {} of {} is revoked; the gateway cuts what it has open within a second",
                    tame(&key.prefix),
                    tame(&key.agent)
                )
            })
        }
        Key::Rotate { prefix, keep } => {
            let call = json!({ "agent": id, "prefix": prefix, "keep_seconds": keep.unwrap_or(0) });
            let answer = api.ask("/clawgress/agents/keys/rotate", call).await?;
            shown(json, answer, |new| new_key(&new, now(), style))
        }
    }
}

pub(crate) async fn flows(
    api: &Api<'_>,
    agent: Option<&str>,
    json: bool,
    style: Style,
) -> Result<String, Failure> {
    let answer = api
        .ask("/clawgress/flows", json!({ "agent": agent }))
        .await?;
    shown(json, answer, |flows| open(&flows, style))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

pub(crate) fn with_notes(mut text: String, word: &str, notes: &[String], style: Style) -> String {
    for note in notes {
        text.push_str(&format!("\n{} {}", style.loud(word), tame(note)));
    }
    text
}

pub(crate) fn list(agents: &Agents, style: Style) -> String {
    if agents.agents.is_empty() {
        return format!(
            "revision {} has no agents; make one with: set service clawgress agent <id> …, and commit",
            agents.revision
        );
    }
    let rows: Vec<Vec<String>> = agents
        .agents
        .iter()
        .map(|agent| {
            vec![
                tame(&agent.agent_id),
                tame(&agent.team_id),
                tame(&agent.project_id),
                tame(&agent.environment),
                tame(&agent.auth_type),
                agent
                    .keys
                    .map_or_else(|| "?".to_owned(), |keys| count(keys as u64)),
                state(agent),
            ]
        })
        .collect();
    let head = [
        ("AGENT", Left),
        ("TEAM", Left),
        ("PROJECT", Left),
        ("ENVIRONMENT", Left),
        ("BY", Left),
        ("KEYS", Right),
        ("STATE", Left),
    ];
    let mut text = table(&head, &rows, style);
    if agents.all_blocked == Some(true) {
        text.push_str(&format!(
            "\n{}",
            style.bad("EVERYBODY is blocked; lifted with: clawgress agent all unblock")
        ));
    }
    with_notes(text, "note:", &agents.notes, style)
}

fn state(agent: &Agent) -> String {
    match agent.blocked {
        Some(true) => format!("{}, BLOCKED", tame(&agent.status)),
        _ => tame(&agent.status),
    }
}

pub(crate) fn one(view: &AgentView, now: i64, style: Style) -> String {
    let agent = &view.agent;
    let mut facts = vec![
        ("Agent", tame(&agent.agent_id)),
        ("Revision", view.revision.to_string()),
        ("Team", tame(&agent.team_id)),
        ("Project", tame(&agent.project_id)),
        ("Environment", tame(&agent.environment)),
        ("Proves by", tame(&agent.auth_type)),
        ("Status", tame(&agent.status)),
    ];
    if !agent.sources.is_empty() {
        let bound = if agent.bound {
            ", credentials count from there alone"
        } else {
            ""
        };
        facts.push((
            "Addresses",
            format!("{}{bound}", tame(&agent.sources.join(", "))),
        ));
    }
    let blocked = match (view.all_blocked, agent.blocked) {
        (None, _) | (_, None) => "not known: the gateway does not answer".to_owned(),
        (Some(true), _) => style.bad("yes, as everybody is"),
        (_, Some(true)) => style.bad("yes"),
        _ => "no".to_owned(),
    };
    facts.push(("Blocked", blocked));
    if let Some(flows) = view.flows {
        facts.push(("Open flows", count(flows as u64)));
    }
    let lines: Vec<String> = facts
        .into_iter()
        .map(|(name, fact)| format!("{name:<12}{fact}"))
        .collect();
    let mut text = lines.join("\n");
    if let Some(keys) = &view.keys
        && !keys.is_empty()
    {
        text.push_str("\n\n");
        text.push_str(&key_table(keys, now, style));
    }
    with_notes(text, "note:", &view.notes, style)
}

pub(crate) fn key_table(keys: &[AgentKey], now: i64, style: Style) -> String {
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            let state = match (key.revoked, key.expires) {
                (Some(at), _) => format!("revoked {}", time(at)),
                (None, Some(at)) if at <= now => format!("expired {}", time(at)),
                (None, Some(at)) => format!("until {}", time(at)),
                (None, None) => "in use".to_owned(),
            };
            let sources = if key.sources.is_empty() {
                "anywhere".to_owned()
            } else {
                tame(&key.sources.join(", "))
            };
            vec![
                tame(&key.prefix),
                tame(&key.name),
                time(key.created),
                key.last_used.map_or_else(|| "never".to_owned(), time),
                sources,
                state,
            ]
        })
        .collect();
    let head = [
        ("PREFIX", Left),
        ("NAME", Left),
        ("CREATED", Left),
        ("LAST USED", Left),
        ("FROM", Left),
        ("STATE", Left),
    ];
    table(&head, &rows, style)
}

pub(crate) fn new_key(new: &NewAgentKey, now: i64, style: Style) -> String {
    let (agent, prefix) = (tame(&new.about.agent), tame(&new.about.prefix));
    let mut text = style.loud(&tame(&new.key));
    if let Some(proxy) = &new.proxy {
        text.push_str(&format!("\n\nHTTPS_PROXY={}", tame(proxy)));
    } else {
        text.push_str(
            "\n\nNo card has the role lan and an address, so there is no proxy's address to show.",
        );
    }
    text.push_str("\n\nThis is the only time that the key is shown.");
    if let Some(end) = new.about.expires {
        text.push_str(&format!(" It is good until {}.", time(end)));
    }
    if !new.about.sources.is_empty() {
        text.push_str(&format!(
            " It may be used from {} alone.",
            tame(&new.about.sources.join(", "))
        ));
    }
    match new.old_ends {
        Some(end) if end > now => {
            text.push_str(&format!(" The old key is good until {}.", time(end)));
        }
        Some(_) => text.push_str(" The old key has ended."),
        None => {}
    }
    text.push_str(&format!(
        "\nTo end it: clawgress agent {agent} key revoke {prefix}"
    ));
    with_notes(text, "warning:", &new.warnings, style)
}

pub(crate) fn issued(token: &Token, style: Style) -> String {
    let mut text = style.loud(&tame(&token.token));
    if let Some(proxy) = &token.proxy {
        text.push_str(&format!("\n\nHTTPS_PROXY={}", tame(proxy)));
    }
    text.push_str(&format!(
        "\n\nThis is the only time that the token is shown. It is good until {}; its id is {}.",
        time(token.expires),
        tame(&token.id)
    ));
    with_notes(text, "warning:", &token.warnings, style)
}

pub(crate) fn switched(blocked: &Blocked, id: &str, block: bool, style: Style) -> String {
    let text = match (id == ALL, block) {
        (true, true) => style.bad("everybody is blocked; what was open is cut"),
        (false, true) => style.bad(&format!("{} is blocked; what it had open is cut", tame(id))),
        (true, false) => "the block of everybody is lifted".to_owned(),
        (false, false) => format!("{} is not blocked any more", tame(id)),
    };
    with_notes(text, "warning:", &blocked.warnings, style)
}

pub(crate) fn open(flows: &Flows, style: Style) -> String {
    if flows.flows.is_empty() {
        return "nothing is open".to_owned();
    }
    let rows: Vec<Vec<String>> = flows
        .flows
        .iter()
        .map(|flow| {
            vec![
                tame(&flow.agent_id),
                tame(&flow.source),
                tame(&flow.destination),
                if flow.tunnel { "tunnel" } else { "request" }.to_owned(),
                bytes(flow.bytes_out),
                bytes(flow.bytes_in),
                tame(&flow.request_id),
            ]
        })
        .collect();
    let head = [
        ("AGENT", Left),
        ("FROM", Left),
        ("TO", Left),
        ("KIND", Left),
        ("OUT", Right),
        ("IN", Right),
        ("REQUEST", Left),
    ];
    let text = table(&head, &rows, style);
    let shown = flows.flows.len();
    if shown < flows.total {
        let (shown, total) = (count(shown as u64), count(flows.total as u64));
        return format!("{text}\n{shown} of {total} flows; --agent shows those of one");
    }
    text
}
