//! Questions to the trail: HTTP and JSON on a unix socket that knows who is calling. Every answer is JSON, or lines of
//! JSON where it is a stream; `metrics` speaks as Prometheus reads it. A request id that the caller sends is in the log.
//!
//! Changes nothing but what retention and checkpoints change; that somebody took an export is itself an event.

mod remote;
mod stream;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use clawgress_link::mtls::Role;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tracing::Instrument;

use crate::event::{Begun, Decision, Micros, Outcome, Source, is_name};
use crate::metrics::{Forwarding, Proof, render};
use crate::query::{Filter, Query, QueryError, page};
use crate::store::{Place, Store, StoreError};
use crate::verify::{Trust, verify};
pub use remote::{Asking, Peeked};

/// Bodies are questions; anchors are the longest.
const LONGEST_BODY: usize = 256 * 1024;

#[derive(Clone)]
pub struct Api {
    pub store: Arc<Store>,
    /// Root is answered always.
    pub uids: Arc<[u32]>,
    /// What else there is to tell in `status`.
    pub forwarders: crate::forward::Watch,
    pub proof: Proof,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    /// On this box; None: the kernel did not say, then it is nobody.
    User(Option<u32>),
    /// On another one, proved by its certificate.
    Service(Role),
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(Some(uid)) => write!(f, "uid {uid}"),
            Self::User(None) => f.write_str("nobody"),
            Self::Service(role) => f.write_str(role.word()),
        }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self::User(credentials.map(|credentials| credentials.uid()))
    }
}

struct Refusal(StatusCode, &'static str, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1, "reason": self.2}))).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self(
            StatusCode::INTERNAL_SERVER_ERROR,
            "store",
            error.to_string(),
        )
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Store(error) => error.into(),
            wrong => Self(StatusCode::BAD_REQUEST, "wrong question", wrong.to_string()),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Follow {
    #[serde(default)]
    filter: Filter,
    /// Where the one before ended; absent: `tail` begins with what comes next, `export` at the beginning.
    #[serde(default)]
    after: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Anchors {
    #[serde(default)]
    anchors: Vec<String>,
}

#[derive(Serialize)]
struct Found {
    events: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub fn router(api: Api) -> Router {
    Router::new()
        .route("/audit/status", post(status))
        .route("/audit/query", post(query))
        .route("/audit/tail", post(tail))
        .route("/audit/export", post(export))
        .route("/audit/verify", post(prove))
        .route("/audit/checkpoint", post(checkpoint))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .layer(middleware::from_fn(logged))
        .layer(axum::extract::DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(api)
}

impl Api {
    fn admit(&self, peer: Peer) -> Result<Peer, Refusal> {
        let known = match peer {
            Peer::User(uid) => uid.is_some_and(|uid| uid == 0 || self.uids.contains(&uid)),
            Peer::Service(role) => role == Role::Policy,
        };
        known.then_some(peer).ok_or_else(|| {
            Refusal(
                StatusCode::FORBIDDEN,
                "forbidden",
                "this user may not read the audit trail; ask as root, or name the user in api_uids"
                    .to_owned(),
            )
        })
    }
}

fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    is_name(id).then_some(id)
}

/// Whatever is said while a question is answered carries the id that its asker gave it.
async fn logged(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let span = tracing::info_span!("question", request_id = id, path = request.uri().path());
    async move {
        let response = next.run(request).await;
        if !response.status().is_success() {
            tracing::warn!("answered {}", response.status());
        }
        response
    }
    .instrument(span)
    .await
}

/// The body is taken all the same: a connection that is closed with something unread loses its answer.
async fn unknown(_body: Bytes) -> Refusal {
    Refusal(
        StatusCode::NOT_FOUND,
        "not found",
        "there is nothing here; see `clawgress audit --help`".to_owned(),
    )
}

/// An empty body asks for everything.
fn parse<T: Default + for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, "wrong question", error.to_string()))
}

/// Reading files would hold up everybody else on this thread.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                error.to_string(),
            ))
        })
}

/// It answers, so it lives.
async fn health() -> Json<Value> {
    Json(json!({"alive": true}))
}

async fn ready(State(api): State<Api>) -> Result<Json<Value>, Refusal> {
    match api.store.status().broken {
        None => Ok(Json(json!({"ready": true}))),
        Some(why) => Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "not ready", why)),
    }
}

async fn metrics(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Response, Refusal> {
    api.admit(peer)?;
    let forwarding: Vec<Forwarding> = api
        .forwarders
        .tell()
        .into_iter()
        .map(|(name, progress)| Forwarding {
            name,
            behind: api.store.behind(progress.place()),
            progress,
        })
        .collect();
    let text = render(
        &api.store.status(),
        &forwarding,
        api.proof.last(),
        Micros::now(),
    );
    let form = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((form, text).into_response())
}

async fn status(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    _body: Bytes,
) -> Result<Json<Value>, Refusal> {
    api.admit(peer)?;
    Ok(Json(
        json!({"store": api.store.status(), "forwarders": api.forwarders.tell(), "verified": api.proof.last()}),
    ))
}

async fn query(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Json<Found>, Refusal> {
    api.admit(peer)?;
    let mut query: Query = parse(&body)?;
    if body.is_empty() {
        query.limit = 100;
    }
    let found = off_thread(move || Ok(page(&api.store, &query)?)).await?;
    let events = found
        .lines
        .iter()
        .filter_map(|line| serde_json::from_str(&line.json).ok());
    Ok(Json(Found {
        events: events.collect(),
        next: found.next.map(|place| place.to_string()),
    }))
}

async fn tail(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Response, Refusal> {
    api.admit(peer)?;
    let follow: Follow = parse(&body)?;
    let after = follow.place()?;
    // Judges the filter before the stream begins.
    page(
        &api.store,
        &Query {
            filter: follow.filter.clone(),
            limit: 1,
            after: Some(format!("{}-0", u64::MAX)),
            ..Query::default()
        },
    )?;
    Ok(lines(stream::tail(api.store, follow.filter, after)))
}

async fn export(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let peer = api.admit(peer)?;
    let request_id = request_id(&headers).unwrap_or_default().to_owned();
    let follow: Follow = parse(&body)?;
    let after = follow.place()?;
    let what = serde_json::to_string(&follow.filter).unwrap_or_default();
    let store = Arc::clone(&api.store);
    off_thread(move || {
        let begun = Begun {
            timestamp: Micros::now(),
            source: Source::Admin,
            request_id: request_id.into(),
            client_address: Some(peer.to_string().into()),
            http_method: Some("export".into()),
            path: Some(what.into()),
            ..Begun::default()
        };
        let outcome = Outcome {
            decision: Decision::Allow,
            ..Outcome::default()
        };
        Ok(store.note(&begun, &outcome)?)
    })
    .await?;
    Ok(lines(stream::export(api.store, follow.filter, after)))
}

async fn prove(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Response, Refusal> {
    api.admit(peer)?;
    let proof: Anchors = parse(&body)?;
    off_thread(move || {
        let trust = Trust {
            key: Some(api.store.public_key()),
            anchors: &proof.anchors,
            growing: Some(api.store.growing()),
        };
        let report = verify(api.store.place(), &trust).map_err(StoreError::from)?;
        Ok(Json(report).into_response())
    })
    .await
}

/// Signs at once; the line is an anchor to be kept elsewhere.
async fn checkpoint(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    _body: Bytes,
) -> Result<Json<Value>, Refusal> {
    api.admit(peer)?;
    off_thread(move || {
        Ok(Json(
            json!({"anchor": api.store.checkpoint(Micros::now())?}),
        ))
    })
    .await
}

impl Follow {
    fn place(&self) -> Result<Option<Place>, Refusal> {
        let place = self.after.as_deref().map(str::parse::<Place>).transpose();
        place.map_err(|why| {
            Refusal(
                StatusCode::BAD_REQUEST,
                "wrong question",
                format!("after: {why}"),
            )
        })
    }
}

fn lines(body: stream::Lines) -> Response {
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::new(body),
    )
        .into_response()
}
