//! The HTTP face: which path answers what, at the front and on the console. Every answer is JSON, also every refusal.
//!
//! Decides nothing about enforcement; it asks those who do.

mod access;
mod agents;
mod body;
mod call;
mod console;
mod envelope;
mod explain;
mod legacy;
mod peer;
mod refusal;
mod trail;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, StatusCode, Uri, header},
    routing::{MethodRouter, post},
};

use tokio::sync::Mutex;

use crate::daemon::{
    enforcer::Enforcer, measurer::Measurer, publish::Publisher, record::Records,
    services::Services, switch::Switch,
};

pub(crate) use access::{Access, Actor};
pub(crate) use body::Places;
pub(crate) use legacy::told;
pub(crate) use peer::Peer;
pub(crate) use refusal::Refusal;

/// The legacy paths, each also under `/api`.
const PREFIXES: [&str; 2] = ["/clawgress", "/api/clawgress"];

/// Everything that a call may need.
pub(crate) struct Api {
    pub(crate) access: Access,
    pub(crate) places: Places,
    pub(crate) measurer: Measurer,
    pub(crate) enforcer: Enforcer,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) services: Services,
    pub(crate) switch: Arc<Switch>,
    pub(crate) records: Arc<Records>,
    /// One explanation at a time.
    pub(crate) explaining: Mutex<()>,
    /// named.
    pub(crate) resolver: SocketAddr,
    /// For each short question to a neighbour.
    pub(crate) deadline: Duration,
}

/// What the front leads to.
pub(crate) fn front(api: &Arc<Api>) -> Router {
    finish(legacy(), api)
}

/// What the console's socket offers: all of that, and what belongs on the console alone.
pub(crate) fn console(api: &Arc<Api>) -> Router {
    let explain = only_post(post(explain::answer));
    let own = console::routes()
        .merge(agents::routes())
        .merge(trail::routes())
        .route("/clawgress/explain", explain);
    finish(legacy().merge(own), api)
}

fn legacy() -> Router<Arc<Api>> {
    let mut router = Router::new();
    for prefix in PREFIXES {
        router = router
            .route(&format!("{prefix}/health"), only_post(post(legacy::health)))
            .route(&format!("{prefix}/policy"), only_post(post(legacy::policy)))
            .route(
                &format!("{prefix}/telemetry"),
                only_post(post(legacy::telemetry)),
            );
    }
    router
}

fn finish(router: Router<Arc<Api>>, api: &Arc<Api>) -> Router {
    router
        .fallback(unknown)
        // Bodies are read by `body` alone, which has its own limits.
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(api))
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not found",
        format!("there is nothing at {}", uri.path()),
    )
}

fn only_post(method: MethodRouter<Arc<Api>>) -> MethodRouter<Arc<Api>> {
    method.fallback(async |method: Method, uri: Uri| {
        let refusal = Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method not allowed",
            format!("{} takes POST, not {method}", uri.path()),
        );
        ([(header::ALLOW, "POST")], refusal)
    })
}
