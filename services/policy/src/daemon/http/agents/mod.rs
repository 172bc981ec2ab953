//! Agents as the console asks for them: who they are. Below are their keys and tokens, and the kill switch; every change
//! in there is recorded as one event before it is made.
//!
//! On the console's socket alone: the keys of the front's callers were made for the documents' endpoints.

mod keys;
mod switch;

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::StatusCode, response::Response, routing::post};
use clawgress_config::access;
use clawgress_link::agents::{Agent, AgentKey, AgentView, Agents};
use clawgress_policy::Revision;

use crate::daemon::{
    clock,
    http::{
        Api, Refusal,
        access::{Actor, Need},
        body::LARGEST,
        call::Call,
        envelope::Envelope,
        legacy::fresh,
        only_post,
    },
    publish::PublishError,
    record::Change,
    services::ServiceError,
};

/// As long as an agent's id may be.
const LONGEST_ID: usize = 63;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/clawgress/agents", only_post(post(list)))
        .route("/clawgress/agents/show", only_post(post(show)))
        .route("/clawgress/agents/keys", only_post(post(keys::list)))
        .route(
            "/clawgress/agents/keys/create",
            only_post(post(keys::create)),
        )
        .route(
            "/clawgress/agents/keys/rotate",
            only_post(post(keys::rotate)),
        )
        .route(
            "/clawgress/agents/keys/revoke",
            only_post(post(keys::revoke)),
        )
        .route("/clawgress/agents/token", only_post(post(keys::token)))
        .route("/clawgress/agents/block", only_post(post(switch::block)))
        .route(
            "/clawgress/agents/unblock",
            only_post(post(switch::unblock)),
        )
        .route("/clawgress/flows", only_post(post(switch::flows)))
}

/// What a call in here may hold.
#[derive(Debug, Default)]
struct Asked {
    agent: Option<String>,
    all: bool,
    name: Option<String>,
    prefix: Option<String>,
    sources: Vec<String>,
    seconds: Option<u32>,
}

impl Asked {
    fn agent(&self) -> Result<&str, Refusal> {
        self.agent
            .as_deref()
            .ok_or_else(|| malformed("agent: write the agent's id"))
    }

    fn prefix(&self) -> Result<&str, Refusal> {
        self.prefix
            .as_deref()
            .ok_or_else(|| malformed("prefix: write the key's prefix"))
    }

    /// None: everybody.
    fn whom(&self) -> Result<Option<&str>, Refusal> {
        match (self.all, self.agent.as_deref()) {
            (true, None) => Ok(None),
            (false, Some(agent)) => Ok(Some(agent)),
            _ => Err(malformed("write either an agent or \"all\": true")),
        }
    }
}

async fn begin(
    api: &Api,
    call: Call,
    known: &'static [&'static str],
) -> Result<(Actor, Asked), Refusal> {
    let (caller, taken) = call.take(api, LARGEST).await?;
    let envelope = Envelope::open(&taken.bytes, known)?;
    let actor = caller.actor(api, &envelope, Need::Operator).await?;
    let seconds = ["lifetime_seconds", "keep_seconds"]
        .into_iter()
        .filter(|name| known.contains(name))
        .map(|name| envelope.read(name, "write whole seconds"))
        .next()
        .transpose()?;
    let asked = Asked {
        agent: envelope.read("agent", "write the agent's id")?,
        all: envelope.read("all", "write true")?.unwrap_or(false),
        name: envelope.read("name", "write a text")?,
        prefix: envelope.read("prefix", "write the key's prefix")?,
        sources: envelope
            .read("sources", "write a list of networks")?
            .unwrap_or_default(),
        seconds: seconds.flatten(),
    };
    if let Some(agent) = &asked.agent
        && !is_id(agent)
    {
        return Err(malformed(
            "agent: this is no agent's id; those in force are listed by: clawgress agent list",
        ));
    }
    Ok((actor, asked))
}

pub(super) fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn malformed(reason: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "malformed request", reason)
}

pub(super) fn unknown_agent(agent: &str, revision: u64) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "unknown agent",
        format!(
            "revision {revision} has no agent {agent}; those it has are listed by: clawgress agent list"
        ),
    )
}

pub(super) async fn in_force(api: &Arc<Api>) -> Result<Revision, Refusal> {
    Ok(api
        .publisher
        .boot_revision()
        .await?
        .ok_or(PublishError::NoPolicy)?)
}

pub(super) fn shown(id: &str, agent: &access::Agent) -> Agent {
    Agent {
        agent_id: id.to_owned(),
        team_id: agent.team_id.clone(),
        project_id: agent.project_id.clone(),
        environment: agent.environment.clone(),
        auth_type: agent.auth_type.word().to_owned(),
        status: agent.status.word().to_owned(),
        sources: agent.sources.iter().map(ToString::to_string).collect(),
        bound: agent.bound,
        keys: None,
        blocked: None,
    }
}

/// What a neighbour says, or a note that it says nothing.
fn noted<T>(told: Result<T, ServiceError>, notes: &mut Vec<String>) -> Option<T> {
    told.inspect_err(|error| notes.push(error.to_string())).ok()
}

async fn list(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    begin(&api, call, &[]).await?;
    let revision = in_force(&api).await?;
    let (keys, standing) = tokio::join!(
        api.services.identity.keys(None),
        api.services.gateway.standing(api.deadline)
    );
    let mut notes = Vec::new();
    let keys = noted(keys, &mut notes);
    let blocked = noted(standing, &mut notes).map(|standing| standing.blocked);
    let now = clock::now();
    let mut good = std::collections::HashMap::<&str, usize>::new();
    for key in keys.iter().flatten().filter(|key| key.is_good(now)) {
        *good.entry(&key.agent).or_default() += 1;
    }
    let agents = revision.access.agents.iter().map(|(id, agent)| Agent {
        keys: keys
            .as_ref()
            .map(|_| good.get(id.as_str()).copied().unwrap_or(0)),
        blocked: blocked.as_ref().map(|blocked| blocked.agents.contains(id)),
        ..shown(id, agent)
    });
    Ok(fresh(Json(Agents {
        revision: revision.number,
        agents: agents.collect(),
        all_blocked: blocked.as_ref().map(|blocked| blocked.all),
        notes,
    })))
}

async fn show(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (_, asked) = begin(&api, call, &["agent"]).await?;
    let id = asked.agent()?;
    let revision = in_force(&api).await?;
    let agent = revision
        .access
        .agents
        .get(id)
        .ok_or_else(|| unknown_agent(id, revision.number))?;
    let (keys, standing, flows) = tokio::join!(
        api.services.identity.keys(Some(id)),
        api.services.gateway.standing(api.deadline),
        api.services.gateway.flows(Some(id))
    );
    let mut notes = Vec::new();
    let keys = noted(keys, &mut notes);
    let blocked = noted(standing, &mut notes).map(|standing| standing.blocked);
    let now = clock::now();
    let good = |keys: &Vec<AgentKey>| keys.iter().filter(|key| key.is_good(now)).count();
    Ok(fresh(Json(AgentView {
        revision: revision.number,
        agent: Agent {
            keys: keys.as_ref().map(good),
            blocked: blocked.as_ref().map(|blocked| blocked.agents.contains(id)),
            ..shown(id, agent)
        },
        all_blocked: blocked.as_ref().map(|blocked| blocked.all),
        keys,
        flows: flows.ok().map(|flows| flows.total),
        notes,
    })))
}

fn change(actor: Actor, action: &'static str, agent: Option<&str>, detail: String) -> Change {
    Change {
        actor,
        source: None,
        action,
        agent: agent.map(str::to_owned),
        detail,
    }
}
