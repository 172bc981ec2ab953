//! The endpoints of the documents: health, policy, telemetry. Same paths and bodies at the front and on the console.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use clawgress_link::{
    admin::{PolicyReply, Trouble},
    control::Window,
};

use crate::daemon::{
    enforcer::AskError,
    http::{
        Api, Refusal,
        access::{Actor, Need},
        body::{LARGEST, LARGEST_POLICY},
        call::Call,
        envelope::Envelope,
    },
    policy_text::{self, Within},
    publish::PublishError,
    record::{Change, one_line},
};

/// 200 only when everything enforces; the body says what was measured either way.
pub(crate) async fn health(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (caller, taken) = call.take(&api, LARGEST).await?;
    let envelope = Envelope::open(&taken.bytes, &["key"])?;
    caller.actor(&api, &envelope, Need::Look).await?;
    let health = api.measurer.health().await.ok_or_else(ending)?;
    let health = health.as_ref().clone();
    // Who asks on the console may be who seals this box by the answer, and that is no matter of the services' own.
    let health = if caller.is_console() {
        health
    } else {
        health.with_services()
    };
    let status = if health.report.enforcing {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok(fresh((status, Json(health))))
}

pub(crate) async fn telemetry(
    State(api): State<Arc<Api>>,
    call: Call,
) -> Result<Response, Refusal> {
    let (caller, taken) = call.take(&api, LARGEST).await?;
    let envelope = Envelope::open(&taken.bytes, &["key", "window"])?;
    caller.actor(&api, &envelope, Need::Key).await?;
    let window = envelope
        .read("window", "write \"1m\", \"1h\" or \"24h\"")?
        .unwrap_or(Window::Hour);
    let telemetry = api.enforcer.telemetry(window).await?;
    Ok(fresh(Json(telemetry)))
}

pub(crate) async fn policy(
    State(api): State<Arc<Api>>,
    call: Call,
) -> Result<Json<PolicyReply>, Refusal> {
    let (caller, taken) = call.take(&api, LARGEST_POLICY).await?;
    let envelope = Envelope::open(&taken.bytes, &["key", "policy", "apply"])?;
    let apply: Option<bool> = match envelope.read("apply", "write true or false") {
        Ok(apply) => apply,
        // Whether the key is right is not told to who has none.
        Err(refusal) => {
            caller.actor(&api, &envelope, Need::Key).await?;
            return Err(refusal);
        }
    };
    let need = if apply == Some(true) {
        Need::Operator
    } else {
        Need::Key
    };
    let actor = caller.actor(&api, &envelope, need).await?;
    let origin = Origin {
        actor,
        source: if caller.is_console() {
            "console".to_owned()
        } else {
            caller.source.to_string()
        },
        action: if apply == Some(true) {
            "apply"
        } else {
            "check"
        },
    };
    let Some(raw) = envelope.member("policy") else {
        let missing = Trouble {
            path: "policy".to_owned(),
            line: None,
            column: None,
            what: "the call has no policy".to_owned(),
            fix: "send {\"key\": …, \"policy\": {\"version\": 1, …}, \"apply\": true}".to_owned(),
        };
        return Err(Refusal::troubles(
            StatusCode::BAD_REQUEST,
            "malformed request",
            vec![missing],
        ));
    };
    // What is read of the text may take a second and must not keep anybody waiting; the body goes with it.
    let (line, column) = envelope.place_of(raw);
    let within = Within {
        path: "policy",
        line,
        column,
    };
    let range = envelope.range_of(raw);
    let size = range.len();
    let reading = tokio::task::spawn_blocking(move || {
        policy_text::read(taken.bytes.get(range).unwrap_or_default(), within)
    });
    let publisher = Arc::clone(&api.publisher);
    let work = async move {
        let policy = reading.await.map_err(PublishError::from)?;
        let policy = policy.map_err(|problems| {
            Refusal::troubles(StatusCode::UNPROCESSABLE_ENTITY, "invalid policy", problems)
        })?;
        if apply == Some(true) {
            Ok(publisher.apply(policy).await?)
        } else {
            Ok(publisher.check(policy).await?)
        }
    };
    let outcome = if apply == Some(true) {
        let change = Change {
            actor: origin.actor.clone(),
            source: (!caller.is_console()).then(|| origin.source.clone()),
            action: "policy apply",
            agent: None,
            detail: format!("{size} bytes of policy.json"),
        };
        api.records.change(change, work, told).await
    } else {
        // In a task of its own: a caller who hangs up must not stop it halfway.
        let work = tokio::spawn(work).await;
        work.unwrap_or_else(|stopped| Err(PublishError::Stopped(stopped).into()))
    };
    origin.note(&outcome);
    outcome.map(|mut reply| {
        if apply.is_none() {
            "\"apply\" is absent, which means false: only checked, nothing was changed"
                .clone_into(&mut reply.note);
        }
        Json(reply)
    })
}

/// What is told of a policy that was applied.
pub(crate) fn told(reply: &PolicyReply) -> String {
    format!("revision {}", reply.revision.unwrap_or(0))
}

/// Who wanted what, for the line in the journal that every use leaves.
pub(crate) struct Origin {
    pub(crate) actor: Actor,
    pub(crate) source: String,
    pub(crate) action: &'static str,
}

impl Origin {
    pub(crate) fn note(&self, outcome: &Result<PolicyReply, Refusal>) {
        let Self {
            actor,
            source,
            action,
        } = self;
        match outcome {
            Ok(reply) => {
                let revision = reply.revision.unwrap_or(0);
                tracing::info!(%actor, source, action, result = "ok", revision, "audit: policy");
            }
            Err(refusal) => {
                let why = one_line(refusal.reason());
                tracing::info!(%actor, source, action, result = refusal.error(), why, "audit: policy");
            }
        }
    }
}

/// The revision in a reply for people who look at it through a cache: never an old one.
pub(crate) fn fresh(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(crate) fn ending() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "ending",
        "the service is shutting down",
    )
}

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "enforcer unavailable",
            error.to_string(),
        )
    }
}

impl From<PublishError> for Refusal {
    fn from(error: PublishError) -> Self {
        let reason = error.to_string();
        match error {
            PublishError::Busy => Self::new(StatusCode::CONFLICT, "busy", reason).retry_after(1),
            PublishError::NotEnabled => Self::new(StatusCode::CONFLICT, "not enabled", reason),
            PublishError::NoPolicy => Self::new(StatusCode::NOT_FOUND, "no policy", reason),
            PublishError::Configuration(_) => {
                Self::new(StatusCode::CONFLICT, "configuration invalid", reason)
            }
            PublishError::Index(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid policy", reason)
            }
            PublishError::Enforcer(error) => error.into(),
            PublishError::Refused(report) => {
                // Before anything was touched the policy is to blame, after that the box.
                let touched = report.stages.iter().any(|stage| stage.name == "rollback");
                let status = if touched {
                    StatusCode::CONFLICT
                } else {
                    StatusCode::UNPROCESSABLE_ENTITY
                };
                Self::new(status, "policy refused", reason).with_report(report)
            }
            PublishError::Store(_)
            | PublishError::Revision(_)
            | PublishError::File(_)
            | PublishError::Unwritable(_)
            | PublishError::Stopped(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "not kept", reason)
            }
        }
    }
}
