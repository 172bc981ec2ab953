//! Agents as the console asks for them: who they are, their keys and tokens, the kill switch, what is open. Every change
//! in here is recorded as one event before it is made.
//!
//! On the console's socket alone: the keys of the front's callers were made for the documents' endpoints.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::StatusCode, response::Response, routing::post};
use clawgress_config::access::{self, Access, AuthType};
use clawgress_link::agents::{
    Agent, AgentKey, AgentKeys, AgentView, Agents, Blocked, NewAgentKey, Token,
};
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
    services::{ServiceError, Wish},
};

/// As long as an agent's id may be.
const LONGEST_ID: usize = 63;
/// An hour, for a token of which nobody says how long it is to be good.
const TOKEN_SECONDS: u32 = 3600;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/clawgress/agents", only_post(post(list)))
        .route("/clawgress/agents/show", only_post(post(show)))
        .route("/clawgress/agents/keys", only_post(post(keys)))
        .route("/clawgress/agents/keys/create", only_post(post(create)))
        .route("/clawgress/agents/keys/rotate", only_post(post(rotate)))
        .route("/clawgress/agents/keys/revoke", only_post(post(revoke)))
        .route("/clawgress/agents/token", only_post(post(token)))
        .route("/clawgress/agents/block", only_post(post(block)))
        .route("/clawgress/agents/unblock", only_post(post(unblock)))
        .route("/clawgress/flows", only_post(post(flows)))
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

async fn keys(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (_, asked) = begin(&api, call, &["agent"]).await?;
    let id = asked.agent()?;
    let keys = api.services.identity.keys(Some(id)).await?;
    // Keys of an agent that is no more can be looked at; one that never was is a typing error.
    if keys.is_empty() {
        let revision = in_force(&api).await?;
        if !revision.access.agents.contains_key(id) {
            return Err(unknown_agent(id, revision.number));
        }
    }
    Ok(fresh(Json(AgentKeys { keys })))
}

async fn create(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let known = &["agent", "name", "sources", "lifetime_seconds"];
    let (actor, asked) = begin(&api, call, known).await?;
    let agent = asked.agent()?.to_owned();
    let mut detail = String::new();
    if let Some(seconds) = asked.seconds {
        detail.push_str(&format!("lifetime_seconds={seconds} "));
    }
    if !asked.sources.is_empty() {
        detail.push_str(&format!("sources={}", asked.sources.join(",")));
    }
    let change = change(actor, "agent key create", Some(&agent), detail);
    let wish = Wish {
        agent,
        name: asked.name.unwrap_or_default(),
        sources: asked.sources.iter().map(|text| network(text)).collect(),
        lifetime_seconds: asked.seconds,
    };
    let working = Arc::clone(&api);
    let work = async move {
        let revision = in_force(&working).await?;
        if !revision.access.agents.contains_key(&wish.agent) {
            return Err(unknown_agent(&wish.agent, revision.number));
        }
        let (key, about) = working.services.identity.create_key(&wish).await?;
        Ok(handed_over(&revision, key, about, None))
    };
    let new = api.records.change(change, work, made).await?;
    Ok(fresh(Json(new)))
}

/// A single address is a network of its own.
fn network(text: &str) -> String {
    match text.parse::<std::net::IpAddr>() {
        Ok(address) if address.is_ipv4() => format!("{address}/32"),
        Ok(address) => format!("{address}/128"),
        Err(_) => text.to_owned(),
    }
}

fn made(new: &NewAgentKey) -> String {
    format!("key {} of {}", new.about.prefix, new.about.agent)
}

async fn rotate(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (actor, asked) = begin(&api, call, &["agent", "prefix", "keep_seconds"]).await?;
    let (agent, prefix) = (asked.agent()?.to_owned(), asked.prefix()?.to_owned());
    let keep = asked.seconds.unwrap_or(0);
    let detail = format!("prefix={prefix} keep_seconds={keep}");
    let change = change(actor, "agent key rotate", Some(&agent), detail);
    let working = Arc::clone(&api);
    let work = async move {
        let old = of_agent(&working, &agent, &prefix).await?;
        let now = clock::now();
        if !old.is_good(now) {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "refused",
                format!(
                    "the key {prefix} is revoked or has expired; make another one with: clawgress agent {agent} key create"
                ),
            ));
        }
        let revision = in_force(&working).await?;
        let (key, about) = working.services.identity.rotate_key(&prefix, keep).await?;
        let end = now.saturating_add(keep.into());
        let end = old.expires.map_or(end, |expires| expires.min(end));
        Ok(handed_over(&revision, key, about, Some(end)))
    };
    let new = api.records.change(change, work, made).await?;
    Ok(fresh(Json(new)))
}

async fn revoke(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (actor, asked) = begin(&api, call, &["agent", "prefix"]).await?;
    let (agent, prefix) = (asked.agent()?.to_owned(), asked.prefix()?.to_owned());
    let detail = format!("prefix={prefix}");
    let change = change(actor, "agent key revoke", Some(&agent), detail);
    let working = Arc::clone(&api);
    let work = async move {
        let key = of_agent(&working, &agent, &prefix).await?;
        working.services.identity.revoke_key(&prefix).await?;
        Ok(AgentKey {
            revoked: key.revoked.or(Some(clock::now())),
            ..key
        })
    };
    let told = |key: &AgentKey| format!("key {} of {}", key.prefix, key.agent);
    let key = api.records.change(change, work, told).await?;
    Ok(fresh(Json(key)))
}

/// A key that is somebody else's is none here: a slip of the hand must not end it.
async fn of_agent(api: &Api, agent: &str, prefix: &str) -> Result<AgentKey, Refusal> {
    let keys = api.services.identity.keys(Some(agent)).await?;
    let key = keys.into_iter().find(|key| key.prefix == prefix);
    key.ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "unknown key",
            format!("{agent} has no key {prefix}; those it has are listed by: clawgress agent {agent} key list"),
        )
    })
}

async fn token(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (actor, asked) = begin(&api, call, &["agent", "lifetime_seconds"]).await?;
    let agent = asked.agent()?.to_owned();
    let lifetime = asked.seconds.unwrap_or(TOKEN_SECONDS);
    let detail = format!("lifetime_seconds={lifetime}");
    let change = change(actor, "agent token", Some(&agent), detail);
    let working = Arc::clone(&api);
    let work = async move {
        let revision = in_force(&working).await?;
        let Some(who) = revision.access.agents.get(&agent) else {
            return Err(unknown_agent(&agent, revision.number));
        };
        if who.auth_type == AuthType::Jwt && !has_own_issuer(&revision.access) {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "no issuer",
                "no committed issuer has the appliance's own keys; set service clawgress identity issuer NAME own, and commit",
            ));
        }
        let (token, id, expires) = working.services.identity.token(&agent, lifetime).await?;
        Ok(Token {
            proxy: proxy(&revision, &agent, &token),
            warnings: warnings(&revision, &agent),
            token,
            id,
            expires,
        })
    };
    let told = |token: &Token| format!("token {}, expires {}", token.id, token.expires);
    let token = api.records.change(change, work, told).await?;
    Ok(fresh(Json(token)))
}

fn has_own_issuer(access: &Access) -> bool {
    let mut issuers = access.issuers.values();
    issuers.any(|issuer| issuer.keys == access::KeySource::Own)
}

/// Never refused for want of a record: who is blocked late has done more harm than a gap in the trail.
async fn block(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (actor, asked) = begin(&api, call, &["agent", "all"]).await?;
    let whom = asked.whom()?.map(str::to_owned);
    let change = change(
        actor,
        "agent block",
        whom.as_deref(),
        scope(whom.as_deref()),
    );
    let recorded = api.records.begin_if_possible(&change).await;
    let working = Arc::clone(&api);
    let work = async move {
        let mut blocked = working.services.gateway.block(whom.as_deref()).await?;
        blocked.warnings = strangers(&working, whom.as_deref()).await;
        Ok(blocked)
    };
    let blocked = recorded.carry_out(change, work, |_: &Blocked| "in force".to_owned());
    Ok(fresh(Json(blocked.await?)))
}

async fn unblock(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (actor, asked) = begin(&api, call, &["agent", "all"]).await?;
    let whom = asked.whom()?.map(str::to_owned);
    let scope = scope(whom.as_deref());
    let change = change(actor, "agent unblock", whom.as_deref(), scope);
    let working = Arc::clone(&api);
    let work = async move {
        let mut blocked = working.services.gateway.unblock(whom.as_deref()).await?;
        blocked.warnings = strangers(&working, whom.as_deref()).await;
        if whom.is_some() && blocked.all {
            blocked.warnings.push(
                "everybody is blocked still; that is lifted with: clawgress agent all unblock"
                    .to_owned(),
            );
        } else if whom.is_none() && !blocked.agents.is_empty() {
            blocked.warnings.push(format!(
                "blocked one by one, and so still: {}",
                blocked
                    .agents
                    .iter()
                    .take(20)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        Ok(blocked)
    };
    let told = |_: &Blocked| "lifted".to_owned();
    let blocked = api.records.change(change, work, told).await?;
    Ok(fresh(Json(blocked)))
}

fn scope(whom: Option<&str>) -> String {
    if whom.is_none() {
        "everybody"
    } else {
        "one agent"
    }
    .to_owned()
}

/// A name that nobody has may be a typing error, and is blocked all the same.
async fn strangers(api: &Arc<Api>, whom: Option<&str>) -> Vec<String> {
    let Some(agent) = whom else {
        return Vec::new();
    };
    match in_force(api).await {
        Ok(revision) if revision.access.agents.contains_key(agent) => Vec::new(),
        Ok(revision) => vec![format!(
            "revision {} has no agent {agent}; is the id written right? See: clawgress agent list",
            revision.number
        )],
        Err(_) => {
            vec!["no revision could be read to see whether there is such an agent".to_owned()]
        }
    }
}

async fn flows(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (_, asked) = begin(&api, call, &["agent"]).await?;
    let flows = api.services.gateway.flows(asked.agent.as_deref()).await?;
    Ok(fresh(Json(flows)))
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

fn handed_over(
    revision: &Revision,
    key: String,
    about: AgentKey,
    old_ends: Option<i64>,
) -> NewAgentKey {
    NewAgentKey {
        proxy: proxy(revision, &about.agent, &key),
        warnings: warnings(revision, &about.agent),
        key,
        about,
        old_ends,
    }
}

/// What an agent's environment needs. Neither ids nor credentials hold a letter that a URL would have to escape.
fn proxy(revision: &Revision, agent: &str, secret: &str) -> Option<String> {
    let network = &revision.network;
    let lan = network.lan.iter().flat_map(|card| &card.addresses);
    let address = network
        .listen_addresses
        .first()
        .copied()
        .or_else(|| lan.map(|cidr| cidr.address).next())?;
    let host = std::net::SocketAddr::new(address, revision.access.gateway.port);
    Some(format!("http://{agent}:{secret}@{host}"))
}

fn warnings(revision: &Revision, agent: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    if !(revision.enabled && revision.access.gateway.enabled) {
        warnings.push(format!(
            "revision {} does not enable the gateway, so this can't be used yet; set service clawgress gateway enable, and commit",
            revision.number
        ));
    }
    let status = revision.access.agents.get(agent).map(|agent| agent.status);
    if status == Some(access::Status::Disabled) {
        warnings.push(format!("the agent {agent} is disabled and denied everything; set service clawgress agent {agent} status active, and commit"));
    }
    warnings
}
