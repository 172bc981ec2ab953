//! The service as a whole: who ships, who asks, and what has to be done every minute.
//!
//! It stands behind nobody: no request waits for it, gateways queue while it is away.

mod doors;
mod house;
mod settings;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::alerts::Alerts;
use crate::api::{Api, Peer, router};
use crate::config::Config;
use crate::event::Micros;
use crate::forward::Watch;
use crate::metrics::Proof;
use crate::store::checkpoint::SigningKey;
use crate::store::{Retention, Settings, Store};
use doors::Doors;

/// Serves until `end` comes true.
pub async fn serve(config: Config, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let key =
        SigningKey::open(&config.state.join("signing.key")).context("opening the signing key")?;
    let settings = Settings {
        segment_bytes: config.segment_bytes,
    };
    let store = Store::open(&config.state.join("segments"), key, settings)
        .context("opening the audit store")?;
    let store = Arc::new(store);
    // For those who verify without this service.
    clawgress_link::durable::replace(
        &config.state.join("public.key"),
        store.public_key().as_bytes(),
    )?;
    let ship_socket = listen_on(&config.ship_socket)?;
    let api_socket = listen_on(&config.api_socket)?;
    let ship_tcp = match config.ship_listen {
        None => None,
        Some(address) => {
            let why = || format!("listening on {address}: is another instance running?");
            Some(TcpListener::bind(address).await.with_context(why)?)
        }
    };
    let alerts = Alerts::new(Arc::clone(&store));
    let (forwarders, proof) = (Watch::default(), Proof::default());
    let mut tasks = JoinSet::new();
    let config = Arc::new(config);
    let api = Api {
        store: Arc::clone(&store),
        uids: config.api_uids.clone().into(),
        forwarders: forwarders.clone(),
        proof: proof.clone(),
    };
    let local = api.clone();
    tasks.spawn(async move {
        let service = router(local).into_make_service_with_connect_info::<Peer>();
        if let Err(error) = axum::serve(api_socket, service).await {
            tracing::error!("answering questions: {error}");
        }
    });
    let doors = Doors::new(Arc::clone(&store), Arc::clone(&config), alerts.clone());
    tasks.spawn(doors.clone().take_local(ship_socket));
    if let Some(listener) = ship_tcp {
        tasks.spawn(doors.take_remote(listener, api));
    }
    let (tell, retention) = watch::channel(Retention::default());
    tasks.spawn(settings::follow(
        settings::Followed::new(&config, &store, &forwarders, &alerts),
        tell,
    ));
    tasks.spawn(house::keep(
        Arc::clone(&store),
        Arc::clone(&config),
        retention,
        forwarders,
        alerts.clone(),
    ));
    tasks.spawn(house::keep_proving(Arc::clone(&store), proof, alerts));
    sd_notify::notify(&[NotifyState::Ready])
        .context("telling systemd that the service is ready")?;
    tokio::select! {
        () = end => {}
        // None of them ends by itself.
        Some(ended) = tasks.join_next() => ended.context("serving")?,
    }
    // Best effort: systemd learns the same from our exit.
    sd_notify::notify(&[NotifyState::Stopping]).ok();
    tasks.shutdown().await;
    let signed = tokio::task::spawn_blocking(move || store.checkpoint(Micros::now())).await?;
    signed.context("signing a last checkpoint")?;
    Ok(())
}

/// The directory's group may connect; who is answered is decided at each connection.
fn listen_on(socket: &Path) -> anyhow::Result<UnixListener> {
    let listening = || format!("listening on {}", socket.display());
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(listening);
        }
        _ => {}
    }
    let listener = UnixListener::bind(socket).with_context(listening)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))
        .with_context(listening)?;
    Ok(listener)
}
