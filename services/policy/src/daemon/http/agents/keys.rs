//! Keys and tokens of agents: made, listed, rotated, revoked by the identity service, for who may ask here.
//!
//! What is secret goes to who asked, and nowhere else: neither into the trail nor into the journal.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use clawgress_config::access::{self, Access, AuthType};
use clawgress_link::agents::{AgentKey, AgentKeys, NewAgentKey, Token};
use clawgress_policy::Revision;

use super::{begin, change, in_force, unknown_agent};
use crate::daemon::{
    clock,
    http::{Api, Refusal, call::Call, legacy::fresh},
    services::Wish,
};

/// An hour, for a token of which nobody says how long it is to be good.
const TOKEN_SECONDS: u32 = 3600;

pub(super) async fn list(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
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

pub(super) async fn create(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
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

pub(super) async fn rotate(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
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

pub(super) async fn revoke(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
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

pub(super) async fn token(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
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
        let mut warnings = warnings(&revision, &agent);
        let status = working.enforcer.status().await;
        let trusted =
            revision.trust_hardware_clock || status.is_ok_and(|status| status.clock_trusted);
        if !trusted {
            warnings.push("the clock of this box is not trusted yet, and tokens are denied until it is; see clawgress status".to_owned());
        }
        Ok(Token {
            proxy: proxy(&revision, &agent, &token),
            warnings,
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
