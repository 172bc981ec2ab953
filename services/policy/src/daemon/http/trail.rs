//! Questions about the audit trail, passed on to the audit service for who may ask here. An export is recorded as one
//! event that says who took it.
//!
//! Holds a page at a time, however long an answer is; a stream that can't be finished is cut, never closed.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use clawgress_audit::event::Micros;
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use tokio::sync::mpsc;

use crate::daemon::{
    http::{
        Api, Refusal,
        access::{Actor, Need},
        body::LARGEST,
        call::Call,
        envelope::Envelope,
        legacy::fresh,
        only_post,
    },
    record::{Change, Recorded},
};

const QUESTION: Duration = Duration::from_secs(30);
/// Every byte of the trail is read.
const PROOF: Duration = Duration::from_secs(900);
/// Events of an export that are held at once.
const PAGE: usize = 500;
/// Pieces that wait for a slow caller.
const AHEAD: usize = 2;

/// What an event can be found by, as its fields are called.
pub(crate) const FIELDS: [&str; 37] = [
    "agent_id",
    "alert",
    "anomaly_score",
    "auth_type",
    "bytes_in",
    "bytes_out",
    "client_address",
    "credential",
    "decision",
    "destination_address",
    "destination_asn",
    "destination_geo",
    "destination_host",
    "destination_port",
    "duration_ms",
    "enforce_would_deny",
    "enforcement_mode",
    "environment",
    "folded",
    "gateway",
    "http_method",
    "interrupted",
    "label",
    "latency_ms",
    "path",
    "policy_id",
    "policy_version",
    "project_id",
    "quota_applied",
    "reason",
    "request_id",
    "revision",
    "source",
    "status",
    "team_id",
    "token_estimate",
    "workload_fingerprint",
];

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/clawgress/audit/query", only_post(post(query)))
        .route("/clawgress/audit/tail", only_post(post(tail)))
        .route("/clawgress/audit/export", only_post(post(export)))
        .route("/clawgress/audit/verify", only_post(post(verify)))
}

const FILTER: [&str; 3] = ["from", "to", "where"];

/// The filter as the audit service reads it.
fn filter(envelope: &Envelope<'_>) -> Result<Map<String, Value>, Refusal> {
    let mut filter = Map::new();
    for name in ["from", "to"] {
        if let Some(text) = envelope.read::<String>(name, "write a time")? {
            let time =
                Micros::parse(&text).map_err(|error| malformed(format!("{name}: {error}")))?;
            filter.insert(name.to_owned(), time.to_string().into());
        }
    }
    let fields: BTreeMap<String, String> = envelope
        .read("where", "write an object of fields and texts")?
        .unwrap_or_default();
    if let Some(wrong) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        let wrong: String = wrong.chars().take(60).collect();
        return Err(malformed(format!(
            "where: events have no field {wrong}; they have {}",
            FIELDS.join(", ")
        )));
    }
    if !fields.is_empty() {
        filter.insert("where".to_owned(), json!(fields));
    }
    Ok(filter)
}

fn malformed(reason: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "malformed request", reason)
}

fn json_text(text: Vec<u8>) -> Response {
    fresh(([(header::CONTENT_TYPE, "application/json")], text))
}

async fn query(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (caller, taken) = call.take(&api, LARGEST).await?;
    let known = &["from", "to", "where", "limit", "after", "newest_first"];
    let envelope = Envelope::open(&taken.bytes, known)?;
    caller.actor(&api, &envelope, Need::Operator).await?;
    let mut question = filter(&envelope)?;
    if let Some(limit) = envelope.read::<u32>("limit", "write a number")? {
        question.insert("limit".to_owned(), limit.into());
    }
    if let Some(after) = envelope.read::<String>("after", "write the place that was told")? {
        question.insert("after".to_owned(), after.into());
    }
    if let Some(newest) = envelope.read::<bool>("newest_first", "write true or false")? {
        question.insert("newest_first".to_owned(), newest.into());
    }
    let question = Value::from(question);
    let text = api.services.trail.ask("/audit/query", &question, QUESTION);
    Ok(json_text(text.await?))
}

async fn verify(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (caller, taken) = call.take(&api, LARGEST).await?;
    let envelope = Envelope::open(&taken.bytes, &["anchors"])?;
    caller.actor(&api, &envelope, Need::Operator).await?;
    let anchors: Vec<String> = envelope
        .read("anchors", "write a list of checkpoint lines")?
        .unwrap_or_default();
    let question = json!({ "anchors": anchors });
    let trail = &api.services.trail;
    Ok(json_text(
        trail.ask("/audit/verify", &question, PROOF).await?,
    ))
}

async fn tail(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (caller, taken) = call.take(&api, LARGEST).await?;
    let envelope = Envelope::open(&taken.bytes, &["where"])?;
    caller.actor(&api, &envelope, Need::Operator).await?;
    let question = json!({ "filter": filter(&envelope)? });
    let opening = api.services.trail.open("/audit/tail", &question);
    let mut answer = tokio::time::timeout(QUESTION, opening)
        .await
        .unwrap_or_else(|_| {
            Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "service unavailable",
                "clawgress-audit does not answer; see systemctl status clawgress-audit",
            ))
        })?;
    let (to, pieces) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            let piece = tokio::select! {
                piece = answer.piece() => piece,
                () = to.closed() => return,
            };
            let piece = match piece {
                Ok(Some(bytes)) => Ok(bytes),
                // It never ends by itself: the audit service is gone.
                Ok(None) => Err(Cut),
                Err(error) => {
                    tracing::warn!("following the audit trail: {error}");
                    Err(Cut)
                }
            };
            let last = piece.is_err();
            if to.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    Ok(stream(pieces))
}

async fn export(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (caller, taken) = call.take(&api, LARGEST).await?;
    let envelope = Envelope::open(&taken.bytes, &FILTER)?;
    let actor: Actor = caller.actor(&api, &envelope, Need::Operator).await?;
    let mut question = filter(&envelope)?;
    // What comes while it is being written belongs to the next one.
    question
        .entry("to")
        .or_insert_with(|| Micros::now().to_string().into());
    let change = Change {
        actor,
        source: None,
        action: "audit export",
        agent: None,
        detail: Value::from(question.clone()).to_string(),
    };
    question.insert("limit".to_owned(), PAGE.into());
    let recorded = api.records.begin(&change).await?;
    // What is wrong with the question is told before the stream begins.
    let first = match page(&api, &question).await {
        Ok(first) => first,
        Err(refusal) => {
            recorded.refused(&refusal);
            return Err(refusal);
        }
    };
    let (to, pieces) = mpsc::channel(AHEAD);
    tokio::spawn(write(api, question, first, recorded, to));
    Ok(stream(pieces))
}

/// A page of the trail. The events stay the text that they are.
#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
    next: Option<String>,
}

async fn page(api: &Api, question: &Map<String, Value>) -> Result<Page, Refusal> {
    let question = Value::from(question.clone());
    let text = api.services.trail.ask("/audit/query", &question, QUESTION);
    serde_json::from_slice(&text.await?).map_err(|error| {
        Refusal::new(
            StatusCode::BAD_GATEWAY,
            "service unavailable",
            format!("clawgress-audit answered no page of events: {error}"),
        )
    })
}

async fn write(
    api: Arc<Api>,
    mut question: Map<String, Value>,
    first: Page,
    recorded: Recorded,
    to: mpsc::Sender<Result<Bytes, Cut>>,
) {
    let (mut events, mut found) = (0, first);
    loop {
        let mut text = Vec::new();
        for event in &found.events {
            text.extend_from_slice(event.get().as_bytes());
            text.push(b'\n');
        }
        events += found.events.len();
        if !text.is_empty() && to.send(Ok(text.into())).await.is_err() {
            // Dropped, the record says that it was interrupted: the caller has gone.
            return;
        }
        let Some(next) = found.next else { break };
        question.insert("after".to_owned(), next.into());
        match page(&api, &question).await {
            Ok(more) => found = more,
            Err(refusal) => {
                recorded.refused(&refusal);
                to.send(Err(Cut)).await.ok();
                return;
            }
        }
    }
    recorded.done(&format!("{events} events"));
}

/// The caller sees that something is missing, for the answer has no end.
#[derive(Debug, thiserror::Error)]
#[error("the audit service stopped answering")]
struct Cut;

struct Pieces(mpsc::Receiver<Result<Bytes, Cut>>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let polled = self.0.poll_recv(context);
        polled.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn stream(pieces: mpsc::Receiver<Result<Bytes, Cut>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::new(Pieces(pieces))).into_response()
}

#[cfg(test)]
mod tests {
    use clawgress_audit::event::{Begun, Decision, Outcome, Source};

    use super::*;

    /// Every field that an event can have, under the name that it has in JSON.
    #[test]
    fn an_event_is_found_by_any_of_its_fields() {
        let text = || Some("x".into());
        let begun = Begun {
            timestamp: Micros(1),
            request_id: "r".into(),
            source: Source::Admin,
            agent_id: text(),
            team_id: text(),
            project_id: text(),
            environment: text(),
            auth_type: text(),
            credential: text(),
            workload_fingerprint: text(),
            client_address: text(),
            destination_host: text(),
            destination_port: Some(1),
            path: text(),
            http_method: text(),
            policy_id: text(),
            policy_version: Some(1),
            revision: Some(1),
            enforcement_mode: text(),
            enforce_would_deny: text(),
            label: text(),
            alert: true,
        };
        let outcome = Outcome {
            decision: Decision::Deny,
            reason: text(),
            status: Some(1),
            destination_address: text(),
            destination_asn: Some(1),
            destination_geo: text(),
            quota_applied: text(),
            latency_ms: Some(1.0),
            bytes_out: Some(1),
            bytes_in: Some(1),
            duration_ms: Some(1),
            token_estimate: Some(1),
            dlp_matches: vec!["x".to_owned()].into(),
            anomaly_score: Some(1.0),
            folded: Some(1),
            interrupted: true,
        };
        let mut names = Vec::new();
        for value in [json!(begun), json!(outcome)] {
            names.extend(value.as_object().unwrap().keys().cloned());
        }
        // These are found by time, by nothing that is one word, and by their number.
        names.retain(|name| !["timestamp", "dlp_matches", "fold"].contains(&name.as_str()));
        names.push("gateway".to_owned());
        names.sort();
        assert_eq!(names, FIELDS);
    }
}
