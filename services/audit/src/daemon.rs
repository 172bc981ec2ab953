//! The service as a whole: who ships, who asks, and what has to be done every minute.
//!
//! It stands behind nobody: no request waits for it, gateways queue while it is away.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clawgress_link::enrol::Place;
use clawgress_link::mtls::{self, Role, peer_role};
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::api::{Api, Peer, router};
use crate::config::Config;
use crate::event::Micros;
use crate::forward::address::{Collector, Reach, SyslogServer};
use crate::forward::{self, Otlp, Sender, Syslog, Watch};
use crate::ship;
use crate::store::checkpoint::SigningKey;
use crate::store::{Retention, Settings, Store};

/// Shippers at once; who comes beyond that waits in the kernel's queue.
const MOST_SHIPPERS: usize = 256;
const HANDSHAKE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
const PRUNE_EVERY: u32 = 10;
const ENROL_AGAIN: Duration = Duration::from_secs(5);

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
    let watch = Watch::default();
    let mut tasks = JoinSet::new();
    for sender in senders(&config)? {
        let (store, state, watch) = (Arc::clone(&store), config.state.clone(), watch.clone());
        tasks.spawn(async move { forward::keep(store, sender, &state, watch).await });
    }
    let api = Api {
        store: Arc::clone(&store),
        uids: config.api_uids.clone().into(),
        forwarders: watch,
    };
    tasks.spawn(async move {
        let service = router(api).into_make_service_with_connect_info::<Peer>();
        if let Err(error) = axum::serve(api_socket, service).await {
            tracing::error!("answering questions: {error}");
        }
    });
    let config = Arc::new(config);
    let places = Arc::new(Semaphore::new(MOST_SHIPPERS));
    tasks.spawn(take_local(
        ship_socket,
        Arc::clone(&store),
        Arc::clone(&config),
        Arc::clone(&places),
    ));
    if let Some(listener) = ship_tcp {
        tasks.spawn(take_remote(
            listener,
            Arc::clone(&store),
            Arc::clone(&config),
            places,
        ));
    }
    tasks.spawn(keep_house(
        Arc::clone(&store),
        Duration::from_secs(config.checkpoint_seconds),
        config.retention(),
    ));
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

fn senders(config: &Config) -> anyhow::Result<Vec<Sender>> {
    let mut senders = Vec::new();
    if let Some(to) = &config.syslog {
        let SyslogServer(host) = to.to.parse().map_err(anyhow::Error::msg)?;
        senders.push(Sender::Syslog(Syslog(Reach::new(
            host,
            &to.ca,
            config.resolver,
        )?)));
    }
    if let Some(to) = &config.otlp {
        let Collector { host, path } = to.to.parse().map_err(anyhow::Error::msg)?;
        let reach = Reach::new(host, &to.ca, config.resolver)?;
        senders.push(Sender::Otlp(Otlp { reach, path }));
    }
    Ok(senders)
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

/// A name alone, or with a dash and more behind it.
fn is_of(name: &str, shipper: &str) -> bool {
    name.strip_prefix(shipper)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

async fn take_local(
    listener: UnixListener,
    store: Arc<Store>,
    config: Arc<Config>,
    places: Arc<Semaphore>,
) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: trying again at once would only burn the processor.
                tracing::warn!("accepting a shipper: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
        let Some(shipper) = uid.and_then(|uid| config.shipper(uid)).map(str::to_owned) else {
            tracing::warn!("user {uid:?} may not ship events; name it in shippers");
            continue;
        };
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = ship::receive(stream, &store, |name| is_of(name, &shipper)).await {
                tracing::warn!("events of {shipper}: {error}");
            }
        });
    }
}

async fn take_remote(
    listener: TcpListener,
    store: Arc<Store>,
    config: Arc<Config>,
    places: Arc<Semaphore>,
) {
    let enrolment = Place {
        role: Role::Audit,
        directory: config.state.clone(),
        socket: config.enrol_socket.clone(),
    };
    let mut told = false;
    let credentials = loop {
        match enrolment.credentials().await {
            Ok(credentials) => break credentials,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("{error}; until then other gateways keep their events");
                }
                tokio::time::sleep(ENROL_AGAIN).await;
            }
        }
    };
    let acceptor = match mtls::server(&credentials, &Role::ALL) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!("preparing TLS: {error}"),
    };
    let renewing = Arc::clone(&credentials);
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("accepting a shipper: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (acceptor, store) = (acceptor.clone(), Arc::clone(&store));
            tokio::spawn(async move {
                let _place = place;
                let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await
                else {
                    return tracing::warn!("{peer} did not prove that it is a service of ours");
                };
                let Some(role) = peer_role(stream.get_ref().1) else {
                    return;
                };
                if let Err(error) =
                    ship::receive(stream, &store, |name| is_of(name, role.word())).await
                {
                    tracing::warn!("events of {} at {peer}: {error}", role.word());
                }
            });
        }
    };
    tokio::join!(enrolment.keep(&renewing), accepting);
}

async fn keep_house(store: Arc<Store>, every: Duration, retention: Retention) {
    let mut round = 0_u32;
    loop {
        tokio::time::sleep(every).await;
        round = round.wrapping_add(1);
        let keeping = Arc::clone(&store);
        let done = tokio::task::spawn_blocking(move || {
            keeping.checkpoint(Micros::now())?;
            if round % PRUNE_EVERY == 1 {
                for number in keeping.prune(retention, Micros::now())? {
                    tracing::info!("segment {number} is over its time or room; its seal stays");
                }
            }
            Ok::<(), crate::store::StoreError>(())
        });
        if let Ok(Err(error)) = done.await {
            tracing::error!("keeping the audit store: {error}");
        }
    }
}
