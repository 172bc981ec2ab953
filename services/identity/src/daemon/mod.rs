//! The daemon: credentials in a data base, a signed snapshot of them for gateways, certificates for the box's services.
//!
//! Decides nothing about a request: gateways do, by the snapshot.

mod admin;
mod authority;
mod config;
mod engine;
mod enrol;
mod fetch;
mod line;
mod store;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clawgress_identity::CredentialKey;
use clawgress_identity::admin::{MISSED, Missed, Uses};
use clawgress_identity::snapshot::KIND;
use clawgress_link::bundle::Publisher;
use clawgress_link::mtls::{self, Role};
use clawgress_link::{durable, hex};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) use config::Config;

use authority::OwnAuthority;
use engine::Engine;
use store::Store;

/// How often revision and files are looked at. A change is with the gateways within a second, so this is a fraction.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LARGEST_REPORT: usize = 4 * 1024 * 1024;

/// Serves until `end` comes true.
pub(crate) async fn serve(config: Config, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let store = Store::open(&config.state).context("opening the credentials")?;
    let credential_key = credential_key(&config, &store)?;
    let publisher =
        Arc::new(Publisher::open(&config.state, KIND).context("opening what was published last")?);
    let authority = Arc::new(
        OwnAuthority::open(&config.state, &publisher).context("opening the box's authority")?,
    );
    let engine = Arc::new(Engine::new(
        &config,
        store,
        CredentialKey::of(&credential_key),
        Arc::clone(&publisher),
    )?);
    engine.refresh().context("publishing the first snapshot")?;

    let gateways = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "listening on {}: is another instance running?",
            config.listen
        )
    })?;
    let admin = line::listen(&config.admin_socket)?;
    let enrol = line::listen(&config.enrol_socket)?;
    let acceptor = mtls::server(authority.credentials(), &Role::ALL).context("preparing TLS")?;

    let mut tasks = JoinSet::new();
    tasks.spawn(keep_house(Arc::clone(&engine), Arc::clone(&authority)));
    tasks.spawn(keep_keys(
        Arc::clone(&engine),
        fetch::Client::new(config.resolver),
    ));
    tasks.spawn(admin::serve(
        admin,
        config.admin_uids.clone(),
        Arc::clone(&engine),
    ));
    tasks.spawn(enrol::serve(
        enrol,
        config.clone(),
        Arc::clone(&authority),
        hex::encode(&credential_key),
    ));
    tasks.spawn(mtls::http::serve(
        gateways,
        acceptor,
        move |role, request| answer(role, request, Arc::clone(&engine), Arc::clone(&publisher)),
    ));
    sd_notify::notify(&[NotifyState::Ready])
        .context("telling systemd that the service is ready")?;
    tracing::info!("listening on {}", config.listen);
    tokio::select! {
        () = end => {}
        // None of them ends by itself.
        Some(ended) = tasks.join_next() => ended.context("serving")?,
    }
    // Best effort: systemd learns the same from our exit. Whoever is cut off asks again.
    sd_notify::notify(&[NotifyState::Stopping]).ok();
    Ok(())
}

/// The server's half of every hash. Without it no key can ever match again: that is a loss to be told, not a first start.
fn credential_key(config: &Config, store: &Store) -> anyhow::Result<[u8; CredentialKey::BYTES]> {
    let path = config.state.join("credential.key");
    if let Some(bytes) = durable::read(&path, 1024)? {
        return bytes.try_into().map_err(|_| {
            anyhow::anyhow!(
                "{} does not hold {} bytes; restore it from a backup",
                path.display(),
                CredentialKey::BYTES
            )
        });
    }
    if store.has_keys()? {
        anyhow::bail!(
            "{} is missing and there are keys hashed with it; restore it from a backup",
            path.display()
        );
    }
    let bytes = clawgress_identity::api_key::random()?;
    durable::replace(&path, &bytes)?;
    Ok(bytes)
}

/// What has to be looked at again and again.
async fn keep_house(engine: Arc<Engine>, authority: Arc<OwnAuthority>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        authority.renew_when_due();
        let engine = Arc::clone(&engine);
        let looked = tokio::task::spawn_blocking(move || engine.refresh_when_stale()).await;
        match looked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("publishing a snapshot: {error:#}"),
            Err(stopped) => tracing::error!("publishing a snapshot: {stopped}"),
        }
    }
}

/// Fetches what is due: one issuer that does not answer holds no other one back.
async fn keep_keys(engine: Arc<Engine>, client: fetch::Client) {
    loop {
        for order in engine.orders() {
            let (engine, client) = (Arc::clone(&engine), client.clone());
            tokio::spawn(async move {
                let answer = client.fetch(&order.source).await;
                let taken =
                    tokio::task::spawn_blocking(move || engine.fetched(&order, answer)).await;
                match taken {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!("publishing fetched keys: {error:#}"),
                    Err(stopped) => tracing::error!("publishing fetched keys: {stopped}"),
                }
            });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Over TLS, to services of the box alone: the snapshot, and gateways' reports of which keys were used and of which
/// issuers tokens came whose key is not known.
async fn answer(
    role: Role,
    request: Request<Incoming>,
    engine: Arc<Engine>,
    publisher: Arc<Publisher>,
) -> Response<Full<Bytes>> {
    let of = |status| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    };
    if role == Role::Gateway && request.method() == Method::POST && request.uri().path() == "/uses"
    {
        let Ok(body) = Limited::new(request.into_body(), LARGEST_REPORT)
            .collect()
            .await
        else {
            return of(StatusCode::PAYLOAD_TOO_LARGE);
        };
        let Ok(uses) = serde_json::from_slice::<Uses>(&body.to_bytes()) else {
            return of(StatusCode::BAD_REQUEST);
        };
        let noted = tokio::task::spawn_blocking(move || engine.note_uses(&uses.uses)).await;
        return match noted {
            Ok(Ok(())) => of(StatusCode::NO_CONTENT),
            Ok(Err(error)) => {
                tracing::warn!("{error}");
                of(StatusCode::SERVICE_UNAVAILABLE)
            }
            Err(_) => of(StatusCode::SERVICE_UNAVAILABLE),
        };
    }
    if role == Role::Gateway && request.method() == Method::POST && request.uri().path() == MISSED {
        let Ok(body) = Limited::new(request.into_body(), LARGEST_REPORT)
            .collect()
            .await
        else {
            return of(StatusCode::PAYLOAD_TOO_LARGE);
        };
        let Ok(missed) = serde_json::from_slice::<Missed>(&body.to_bytes()) else {
            return of(StatusCode::BAD_REQUEST);
        };
        engine.missed(&missed.issuers);
        return of(StatusCode::NO_CONTENT);
    }
    if request.method() != Method::GET {
        return of(StatusCode::METHOD_NOT_ALLOWED);
    }
    match publisher.answer(request.uri()).await {
        Some(response) => response,
        None => of(StatusCode::NOT_FOUND),
    }
}
