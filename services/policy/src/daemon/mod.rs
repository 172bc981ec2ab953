//! The daemon: wires keys, revisions, the enforcer and measurement to the front's port and the console's socket.
//!
//! Holds no privilege: it asks those who do. It listens on loopback and on a socket for root alone.

mod assemble;
mod boot;
mod clock;
mod config;
mod configuration;
mod enforcer;
mod explain;
mod files;
mod http;
mod keys;
mod measure;
mod measurer;
mod notice;
mod policy_text;
mod publish;
mod record;
mod services;
mod store;
mod switch;

use std::{io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Mutex, watch},
    task::JoinSet,
};

pub(crate) use config::Config;

use self::{
    boot::Boot,
    configuration::Configuration,
    enforcer::Enforcer,
    http::{Access, Api, Peer, Places},
    keys::Keys,
    measure::Neighbours,
    measurer::Measurer,
    notice::Notice,
    publish::Publisher,
    record::Records,
    services::Services,
    store::Store,
    switch::Switch,
};

/// How long requests in flight may take to end once the end has been asked for; systemd kills after three seconds.
const DRAIN: Duration = Duration::from_millis(1500);

/// Serves until `end` comes true.
pub(crate) async fn serve(config: Config, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let keys = Keys::open(&config.state).context("opening the keys")?;
    let front = TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "listening on {}: is another instance running?",
            config.listen
        )
    })?;
    let console = listen_on(&config.console_socket)
        .with_context(|| format!("listening on {}", config.console_socket.display()))?;

    let address = config.listen;
    let enforcer = Enforcer::new(config.enforcer_socket.clone(), config.deadline());
    let publisher = Arc::new(Publisher::new(
        Store::new(&config.state, &config.revisions),
        enforcer.clone(),
        Configuration::new(
            config.taken_configuration.clone(),
            config.committed_configuration.clone(),
        ),
        config.policy_file.clone(),
    ));
    let notice = Notice::new("configuration");
    let records = Records::new(config.state.join("queue"), config.ship_socket.clone());
    records.start().await;
    let boot = Boot::new(
        Arc::clone(&publisher),
        &config.state,
        notice.clone(),
        Arc::clone(&records),
    );
    let services = Services::new(&config);
    let switch = Switch::open(&config.state, services.gateway.clone(), enforcer.clone())
        .context("reading who is blocked")?;
    let switching = tokio::spawn(Arc::clone(&switch).keep());
    let api = Arc::new(Api {
        access: Access::new(keys, config.console_uids.clone()),
        places: Places::default(),
        deadline: config.deadline(),
        resolver: config.resolver,
        measurer: Measurer::start(Neighbours::new(
            config,
            services.clone(),
            Arc::clone(&publisher),
            notice,
        )),
        enforcer,
        publisher,
        services,
        switch,
        records,
        explaining: Mutex::default(),
    });
    sd_notify::notify(&[sd_notify::NotifyState::Ready])
        .context("telling systemd that the service is ready")?;
    tracing::info!("listening on {address}");
    let boot = tokio::spawn(boot.run());

    let (stop, stopped) = watch::channel(());
    let mut servers = JoinSet::new();
    servers.spawn(run(front, http::front(&api), stopped.clone()));
    servers.spawn(run(console, http::console(&api), stopped));
    tokio::select! {
        () = end => {}
        // None of them ends by itself.
        Some(ended) = servers.join_next() => ended.context("serving")?.context("serving")?,
    }
    tracing::info!("draining");
    // Best effort: systemd learns the same from our exit.
    sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
    boot.abort();
    switching.abort();
    drop(stop);
    if tokio::time::timeout(DRAIN, async {
        while servers.join_next().await.is_some() {}
    })
    .await
    .is_err()
    {
        tracing::warn!("requests were still running after {DRAIN:?} and are cut off");
    }
    Ok(())
}

async fn run<L>(listener: L, router: Router, mut stopped: watch::Receiver<()>) -> io::Result<()>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
    Peer: for<'a> axum::extract::connect_info::Connected<axum::serve::IncomingStream<'a, L>>,
{
    axum::serve(
        listener,
        router.into_make_service_with_connect_info::<Peer>(),
    )
    .with_graceful_shutdown(async move {
        // An error is what is waited for: the sender is gone.
        stopped.changed().await.ok();
    })
    .await
}

/// The directory's group may connect; who is answered is decided at each call.
fn listen_on(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}
