//! The HTTP face: which path answers what. Every answer is JSON, also every refusal.
//!
//! Decides nothing about enforcement; it tells what the measurer found.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use serde::Serialize;

use crate::{body, measurer::Measurer};

/// The legacy paths, each also under `/api`.
const PREFIXES: [&str; 2] = ["/clawgress", "/api/clawgress"];

pub(crate) fn router(measurer: Measurer) -> Router {
    let mut router = Router::new();
    for prefix in PREFIXES {
        router = router
            .route(&format!("{prefix}/health"), only_post(post(health)))
            .route(&format!("{prefix}/policy"), only_post(post(policy)));
    }
    router
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(body::LARGEST))
        .with_state(measurer)
}

/// A refusal: the text for the caller, with the status that fits.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    text: Text,
}

#[derive(Debug, Serialize)]
struct Text {
    error: &'static str,
    reason: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: &'static str, reason: impl Into<String>) -> Self {
        Self {
            status,
            text: Text {
                error,
                reason: reason.into(),
            },
        }
    }

    #[cfg(test)]
    pub(crate) fn reason(&self) -> &str {
        &self.text.reason
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.text)).into_response()
    }
}

/// 200 only when everything enforces; the body says what was measured either way.
async fn health(
    State(measurer): State<Measurer>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    body::read(body)?;
    let report = measurer.report().await.ok_or_else(|| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ending",
            "the service is shutting down",
        )
    })?;
    let status = if report.enforcing {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut response = (status, Json(report.as_ref())).into_response();
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn policy(body: Result<Bytes, BytesRejection>) -> Result<Response, Refusal> {
    body::read(body)?;
    Err(Refusal::new(
        StatusCode::NOT_IMPLEMENTED,
        "not implemented",
        "this version enforces the sealed policy alone: it denies everything and takes no policy yet",
    ))
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not found",
        format!("there is nothing at {}", uri.path()),
    )
}

fn only_post(method: MethodRouter<Measurer>) -> MethodRouter<Measurer> {
    method.fallback(async |method: Method, uri: Uri| {
        let refusal = Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method not allowed",
            format!("{} takes POST, not {method}", uri.path()),
        );
        ([(header::ALLOW, "POST")], refusal)
    })
}
