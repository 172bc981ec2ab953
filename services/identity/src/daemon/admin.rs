//! The admin socket: who may ask, and the journal's line about every change.

use std::sync::Arc;

use clawgress_identity::admin::{LONGEST_REQUEST, Reply, Request};
use tokio::net::UnixListener;

use super::engine::{Engine, now};
use super::line;

pub(super) async fn serve(listener: UnixListener, uids: Vec<u32>, engine: Arc<Engine>) {
    let uids: Arc<[u32]> = uids.into();
    let may = {
        let uids = Arc::clone(&uids);
        move |uid| uid == 0 || uids.contains(&uid)
    };
    let allowed = may.clone();
    line::serve(listener, LONGEST_REQUEST, may, move |uid, line| {
        let (engine, allowed) = (Arc::clone(&engine), allowed(uid));
        async move {
            if !allowed {
                tracing::warn!(uid, "audit: a caller was turned away");
                return refused(format!("the user {uid} is not answered here; admin_uids in identity.toml has those who are"));
            }
            let request: Request = match serde_json::from_slice(&line) {
                Ok(request) => request,
                Err(error) => return refused(format!("no request: {error}")),
            };
            let what = named(&request);
            let work = tokio::task::spawn_blocking(move || engine.carry_out(request, now())).await;
            match work {
                Ok(Ok(reply)) => {
                    note(uid, what, &reply);
                    reply
                }
                Ok(Err(error)) => refused(format!("{error:#}")),
                Err(stopped) => refused(format!("the work on it was stopped: {stopped}")),
            }
        }
    })
    .await;
}

fn refused(error: String) -> Reply {
    Reply::Error { error }
}

/// None: it changes nothing.
fn named(request: &Request) -> Option<&'static str> {
    match request {
        Request::ListKeys { .. } | Request::Status => None,
        Request::CreateKey(_) => Some("key created"),
        Request::RevokeKey { .. } => Some("key revoked"),
        Request::RotateKey { .. } => Some("key rotated"),
        Request::IssueToken { .. } => Some("token issued"),
        Request::RevokeToken { .. } => Some("token revoked"),
        Request::RevokeTokens { .. } => Some("tokens of an agent revoked"),
        Request::RevokeCertificate { .. } => Some("certificate revoked"),
        Request::RotateSigningKey => Some("signing key rotated"),
    }
}

/// Never the secret that a reply may hold.
fn note(uid: u32, what: Option<&'static str>, reply: &Reply) {
    let Some(what) = what else { return };
    match reply {
        Reply::NewKey { about, .. } | Reply::Key { about } => {
            tracing::info!(
                uid,
                agent = about.agent,
                prefix = about.prefix,
                "audit: {what}"
            );
        }
        Reply::Token { id, .. } => tracing::info!(uid, id, "audit: {what}"),
        _ => tracing::info!(uid, "audit: {what}"),
    }
}
