//! What the console's socket offers beyond the front: overview, ruleset, zone, the policy in force, and the keys.
//!
//! Every change in here leaves an event, and a line in the journal.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, Router, extract::State, http::StatusCode, response::Response, routing::post};
use clawgress_link::admin::{Key, Keys, NewKey, Overview, PolicyReply, Role};
use serde_json::json;

use crate::daemon::{
    clock, files,
    http::{
        Api, Refusal,
        access::{Actor, Need},
        body::{LARGEST, LARGEST_POLICY},
        call::Call,
        envelope::Envelope,
        legacy::{Origin, ending, fresh, told},
        only_post,
    },
    keys::KeysError,
    policy_text::{self, Within},
    publish::PublishError,
    record::Change,
};

pub(crate) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/clawgress/console/overview", only_post(post(overview)))
        .route("/clawgress/console/firewall", only_post(post(firewall)))
        .route("/clawgress/console/zone", only_post(post(zone)))
        .route("/clawgress/console/policy", only_post(post(policy)))
        .route("/clawgress/console/policy/apply", only_post(post(apply)))
        .route("/clawgress/console/keys", only_post(post(keys)))
        .route("/clawgress/console/keys/create", only_post(post(create)))
        .route("/clawgress/console/keys/revoke", only_post(post(revoke)))
}

/// Reads the call's few texts.
async fn begin(
    api: &Api,
    call: Call,
    known: &'static [&'static str],
) -> Result<(Actor, BTreeMap<&'static str, String>), Refusal> {
    let (caller, taken) = call.take(api, LARGEST).await?;
    let envelope = Envelope::open(&taken.bytes, known)?;
    let actor = caller.actor(api, &envelope, Need::Operator).await?;
    let mut texts = BTreeMap::new();
    for name in known {
        if let Some(text) = envelope.read(name, "write a text")? {
            texts.insert(*name, text);
        }
    }
    Ok((actor, texts))
}

async fn overview(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    begin(&api, call, &[]).await?;
    let health = api.measurer.health().await.ok_or_else(ending)?;
    Ok(fresh(Json(Overview {
        health: health.as_ref().clone().with_services(),
        enforcer: api.enforcer.status().await.ok(),
        boot_revision: api.publisher.store.boot().map_err(PublishError::from)?,
    })))
}

async fn firewall(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    begin(&api, call, &[]).await?;
    let text = api.enforcer.firewall().await?;
    Ok(fresh(Json(json!({ "text": text }))))
}

async fn zone(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (caller, taken) = call.take(&api, LARGEST).await?;
    let envelope = Envelope::open(&taken.bytes, &["limit"])?;
    caller.actor(&api, &envelope, Need::Operator).await?;
    let limit = envelope.read("limit", "write a number")?.unwrap_or(1000);
    let (names, total) = api.enforcer.zone(limit).await?;
    Ok(fresh(Json(json!({ "names": names, "total": total }))))
}

async fn policy(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    begin(&api, call, &[]).await?;
    Ok(fresh(Json(api.publisher.enforced().await?)))
}

/// Applies policy.json as it lies there, for who has edited it.
async fn apply(State(api): State<Arc<Api>>, call: Call) -> Result<Json<PolicyReply>, Refusal> {
    let (actor, _) = begin(&api, call, &[]).await?;
    let path = api.publisher.policy_file.clone();
    let publisher = Arc::clone(&api.publisher);
    let change = Change {
        actor: actor.clone(),
        source: None,
        action: "policy apply",
        agent: None,
        detail: path.display().to_string(),
    };
    let work = async move {
        let reading = tokio::task::spawn_blocking(move || {
            let text = files::read_if_there(&path, LARGEST_POLICY as u64)
                .map_err(PublishError::from)?
                .ok_or(PublishError::NoPolicy)?;
            let shown = path.display().to_string();
            policy_text::read(&text, Within::WHOLE).map_err(|problems| {
                Refusal::troubles(StatusCode::UNPROCESSABLE_ENTITY, "invalid policy", problems)
                    .about(&shown)
            })
        });
        let policy = reading.await.map_err(PublishError::from)??;
        Ok::<_, Refusal>(publisher.apply(policy).await?)
    };
    let outcome = api.records.change(change, work, told).await;
    let origin = Origin {
        actor,
        source: "console".to_owned(),
        action: "apply policy.json",
    };
    origin.note(&outcome);
    outcome.map(Json)
}

async fn keys(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    begin(&api, call, &[]).await?;
    let keys = api.access.keys.list();
    Ok(fresh(Json(Keys { keys })))
}

async fn create(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (actor, texts) = begin(&api, call, &["name", "role"]).await?;
    let role = match texts.get("role").map(String::as_str) {
        None | Some("operator") => Role::Operator,
        Some("viewer") => Role::Viewer,
        Some(_) => {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "malformed request",
                "role: write operator or viewer",
            ));
        }
    };
    let name = texts.get("name").map_or("unnamed", String::as_str);
    let change = Change {
        actor,
        source: None,
        action: "key create",
        agent: None,
        detail: format!("name={name} role={}", role.word()),
    };
    let (name, working) = (name.to_owned(), Arc::clone(&api));
    let work = async move { Ok(working.access.keys.create(&name, role, clock::now())?) };
    let told = |new: &NewKey| format!("key {}", new.about.id);
    let new = api.records.change(change, work, told).await?;
    Ok(fresh(Json(new)))
}

async fn revoke(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (actor, texts) = begin(&api, call, &["id"]).await?;
    let id = texts.get("id").cloned().unwrap_or_default();
    let change = Change {
        actor,
        source: None,
        action: "key revoke",
        agent: None,
        detail: format!("id={id}"),
    };
    let working = Arc::clone(&api);
    let work = async move { Ok(working.access.keys.revoke(&id, clock::now())?) };
    let told = |key: &Key| format!("key {}", key.id);
    let key = api.records.change(change, work, told).await?;
    Ok(fresh(Json(key)))
}

impl From<KeysError> for Refusal {
    fn from(error: KeysError) -> Self {
        let (status, word) = match error {
            KeysError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown key"),
            KeysError::Name(_) => (StatusCode::BAD_REQUEST, "malformed request"),
            KeysError::Full => (StatusCode::CONFLICT, "too many keys"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "not kept"),
        };
        Self::new(status, word, error.to_string())
    }
}
