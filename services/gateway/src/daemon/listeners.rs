//! Listens where the revision in force says: on the addresses for agents, on the proxy's ports. When a revision moves them,
//! a new set of workers begins there and the old one drains.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::doors::{self, Inherited};
use crate::config::Config;
use crate::gateway::{Gateway, Sockets};
use crate::judge::{Compiled, Judge};
use crate::listen;
use crate::tls::{self, Showing};
use crate::worker::Doors;

/// So long whoever waits at a kept socket is better served by waiting for something to judge by than by a denial.
const UNREADY: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const AGAIN: Duration = Duration::from_secs(1);
/// A gateway that was disabled has so long to answer what it is at; tunnels are cut by the new revision itself.
const DISABLED: Duration = Duration::from_millis(500);

/// Where agents may come, and what a set of workers was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    plain: BTreeSet<SocketAddr>,
    tls: BTreeSet<SocketAddr>,
    connect_seconds: u32,
}

/// The workers that serve now.
pub type Serving = Arc<ArcSwapOption<Gateway>>;

/// Runs until the watch ends. A door that can't be opened is tried again each second, and the old ones stay meanwhile.
pub async fn keep(
    config: Config,
    judge: Arc<Judge>,
    mut revision: watch::Receiver<Option<Arc<Compiled>>>,
    serving: Serving,
    inherited: Inherited,
) {
    let showing = Arc::new(Showing::default());
    let places = Arc::new(Doors::default());
    let mut current: Option<Wanted> = None;
    let began = tokio::time::Instant::now();
    while !judge.is_ready() && began.elapsed() < UNREADY {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    loop {
        let compiled = revision.borrow_and_update().clone();
        let mut done = true;
        if let Some(compiled) = compiled {
            let wanted = wanted(&compiled);
            if current.as_ref() != Some(&wanted) {
                let opened = sockets(&config, &wanted, &inherited);
                match opened
                    .and_then(|sockets| start(&config, &judge, &showing, &places, &wanted, sockets))
                {
                    Ok(gateway) => {
                        inherited.forget_rest();
                        let gone = current
                            .iter()
                            .flat_map(Wanted::all)
                            .filter(|at| !wanted.all().any(|now| now == *at));
                        gone.for_each(doors::forget);
                        let drain = if compiled.enabled {
                            Duration::from_secs(compiled.settings.drain_seconds.into())
                        } else {
                            DISABLED
                        };
                        if let Some(old) = serving.swap(Some(Arc::new(gateway))) {
                            tokio::spawn(async move { old.drain(drain).await });
                        }
                        current = Some(wanted);
                    }
                    Err(error) => {
                        tracing::error!("{error:#}");
                        done = false;
                    }
                }
            }
        }
        let changed =
            tokio::time::timeout(if done { Duration::MAX } else { AGAIN }, revision.changed());
        if let Ok(Err(_)) = changed.await {
            return;
        }
    }
}

impl Wanted {
    fn all(&self) -> impl Iterator<Item = SocketAddr> {
        self.plain.iter().chain(&self.tls).copied()
    }
}

fn wanted(compiled: &Compiled) -> Wanted {
    let network = &compiled.network;
    let addresses: BTreeSet<IpAddr> = if !compiled.enabled {
        BTreeSet::new()
    } else if network.listen_addresses.is_empty() {
        network
            .lan
            .iter()
            .flat_map(|card| card.addresses.iter().map(|cidr| cidr.address))
            .collect()
    } else {
        network.listen_addresses.iter().copied().collect()
    };
    let at = |port: u16| {
        addresses
            .iter()
            .map(|address| SocketAddr::new(*address, port))
            .collect()
    };
    Wanted {
        plain: at(compiled.settings.port),
        tls: compiled.settings.tls_port.map(at).unwrap_or_default(),
        connect_seconds: compiled.settings.connect_timeout_seconds,
    }
}

fn start(
    config: &Config,
    judge: &Arc<Judge>,
    showing: &Arc<Showing>,
    places: &Arc<Doors>,
    wanted: &Wanted,
    sockets: Vec<Sockets>,
) -> anyhow::Result<Gateway> {
    if !wanted.tls.is_empty() {
        showing.replace(tls::config(&config.certificate, &config.key)?);
    }
    let limits = config.limits(wanted.connect_seconds);
    Ok(Gateway::start(
        Arc::clone(judge),
        limits,
        config.named,
        showing,
        places,
        sockets,
    )?)
}

fn sockets(
    config: &Config,
    wanted: &Wanted,
    inherited: &Inherited,
) -> anyhow::Result<Vec<Sockets>> {
    let open = |addresses: &BTreeSet<SocketAddr>| -> Result<Vec<OwnedFd>, listen::ListenError> {
        addresses
            .iter()
            .map(|address| inherited.open(*address))
            .collect()
    };
    let mut sockets = Vec::new();
    for _ in 0..config.workers() {
        sockets.push(Sockets {
            plain: open(&wanted.plain)?,
            tls: open(&wanted.tls)?,
            front: None,
        });
    }
    if let (Some(path), Some(first)) = (&config.front_socket, sockets.first_mut()) {
        first.front = Some(listen::open_front(path)?);
    }
    Ok(sockets)
}
