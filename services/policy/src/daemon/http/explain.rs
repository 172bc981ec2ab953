//! `explain`, over the console's socket: reads the revision in force and the question, and has them decided off the
//! threads that answer everybody.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use clawgress_link::{control::Window, lookup::addresses};

use crate::daemon::{
    clock,
    explain::{Cards, ExplainError, Question, explain, lookup},
    http::{
        Api, Refusal,
        access::Need,
        agents::{in_force, is_id, shown, unknown_agent},
        body::LARGEST,
        call::Call,
        envelope::Envelope,
        legacy::fresh,
    },
    publish::PublishError,
};

pub(super) async fn answer(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (caller, taken) = call.take(&api, LARGEST).await?;
    let envelope = Envelope::open(&taken.bytes, &["agent", "url", "method", "at"])?;
    caller.actor(&api, &envelope, Need::Operator).await?;
    let text = |name| envelope.read::<String>(name, "write a text");
    let missing = |what: &str| {
        let reason = format!("{what} is missing; explain needs an agent and a url");
        Refusal::new(StatusCode::BAD_REQUEST, "malformed request", reason)
    };
    let id = text("agent")?.ok_or_else(|| missing("agent"))?;
    let url = text("url")?.ok_or_else(|| missing("url"))?;
    let (method, at) = (text("method")?, text("at")?);
    drop(taken);
    // A large revision takes much memory while it is compiled: one at a time.
    let Ok(_turn) = api.explaining.try_lock() else {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "busy",
            "another question is being explained at this moment; ask again when it is done",
        )
        .retry_after(1));
    };
    let resolve = async {
        match lookup(&url)? {
            Ok(address) => Ok(Ok(vec![address])),
            Err(name) => Ok::<_, ExplainError>(
                addresses(api.resolver, &name, api.deadline)
                    .await
                    .map_err(|error| error.to_string()),
            ),
        }
    };
    let (status, standing, telemetry, resolved) = tokio::join!(
        api.enforcer.status(),
        api.services.gateway.standing(api.deadline),
        api.enforcer.telemetry(Window::Minute),
        resolve,
    );
    let resolved = resolved?;
    let revision = in_force(&api).await?;
    let Some(agent) = revision.access.agents.get(&id).filter(|_| is_id(&id)) else {
        let id: String = id.chars().take(64).collect();
        return Err(unknown_agent(&id, revision.number));
    };
    let mut agent = shown(&id, agent);
    let mut notes = Vec::new();
    if let Ok(standing) = standing {
        let blocked = &standing.blocked;
        agent.blocked = Some(blocked.agents.contains(&id));
        if blocked.all {
            notes.push("the kill switch blocks everybody now, whatever is decided below; lifted with: clawgress agent all unblock".to_owned());
        } else if agent.blocked == Some(true) {
            notes.push(format!("the kill switch blocks {id} now, whatever is decided below; lifted with: clawgress agent {id} unblock"));
        }
    }
    if !revision.access.gateway.enabled {
        notes.push(format!("revision {} does not enable the gateway: this is what it would decide; set service clawgress gateway enable, and commit", revision.number));
    }
    let question = Question {
        agent,
        url,
        method,
        at,
        now: clock::now(),
        clock_trusted: status.is_ok_and(|status| status.clock_trusted),
        resolved,
        cards: Cards::read(),
        caps: telemetry.ok().map(|told| {
            let each = told.principals.into_iter();
            each.map(|(name, told)| (name, told.caps)).collect()
        }),
    };
    let work = tokio::task::spawn_blocking(move || explain(&revision, question));
    let mut explained = work.await.map_err(PublishError::from)??;
    explained.notes.splice(0..0, notes);
    Ok(fresh(Json(explained)))
}

impl From<ExplainError> for Refusal {
    fn from(error: ExplainError) -> Self {
        let (status, word) = match error {
            ExplainError::Url(_) | ExplainError::Method(_) | ExplainError::At(_) => {
                (StatusCode::BAD_REQUEST, "malformed request")
            }
            _ => (StatusCode::CONFLICT, "revision unusable"),
        };
        Self::new(status, word, error.to_string())
    }
}
