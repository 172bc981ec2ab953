//! Questions to the trail: HTTP and JSON on a unix socket that knows who is calling. Every answer is JSON, or lines of
//! JSON where it is a stream.
//!
//! Changes nothing but what retention and checkpoints change; that somebody took an export is itself an event.

mod stream;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use crate::event::{Begun, Decision, Micros, Outcome, Source};
use crate::query::{Filter, Query, QueryError, page};
use crate::store::{Place, Store, StoreError};
use crate::verify::{Trust, verify};

/// Bodies are questions; anchors are the longest.
const LONGEST_BODY: usize = 256 * 1024;

#[derive(Clone)]
pub struct Api {
    pub store: Arc<Store>,
    /// Root is answered always.
    pub uids: Arc<[u32]>,
    /// What else there is to tell in `status`.
    pub forwarders: crate::forward::Watch,
}

/// None: the kernel did not say; then it is nobody.
#[derive(Debug, Clone, Copy)]
pub struct Peer(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(
            stream
                .io()
                .peer_cred()
                .ok()
                .map(|credentials| credentials.uid()),
        )
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
struct Proof {
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
        .fallback(unknown)
        .layer(axum::extract::DefaultBodyLimit::max(LONGEST_BODY))
        .with_state(api)
}

impl Api {
    fn admit(&self, Peer(uid): Peer) -> Result<u32, Refusal> {
        uid.filter(|uid| *uid == 0 || self.uids.contains(uid)).ok_or_else(|| {
            Refusal(StatusCode::FORBIDDEN, "forbidden", "this user may not read the audit trail; ask as root, or name the user in api_uids".to_owned())
        })
    }
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

async fn status(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    _body: Bytes,
) -> Result<Json<Value>, Refusal> {
    api.admit(peer)?;
    Ok(Json(
        json!({"store": api.store.status(), "forwarders": api.forwarders.tell()}),
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
    body: Bytes,
) -> Result<Response, Refusal> {
    let uid = api.admit(peer)?;
    let follow: Follow = parse(&body)?;
    let after = follow.place()?;
    let what = serde_json::to_string(&follow.filter).unwrap_or_default();
    let store = Arc::clone(&api.store);
    off_thread(move || {
        let begun = Begun {
            timestamp: Micros::now(),
            source: Source::Admin,
            client_address: Some(format!("uid {uid}").into()),
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
    let proof: Proof = parse(&body)?;
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
