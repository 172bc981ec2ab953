//! Events sent on to a collector of others: each in the order of the store, from a place that is kept on disk. While a
//! collector is away nothing waits for it but this; when it is back it gets what it missed.
//!
//! A batch counts as delivered when the collector has said so; one that it took and did not confirm is sent once more,
//! and each event carries its origin, by which it can be known again.

pub mod address;
mod otlp;
mod syslog;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clawgress_link::durable;
use serde::Serialize;

use crate::alerts::Alerts;
use crate::query::{Query, page};
use crate::store::{Line, Place, Store};
pub use otlp::Otlp;
pub use syslog::Syslog;

const BATCH: usize = 1000;
/// Of the events' text; one event may be longer than what is left. On the wire a batch is a few times as long.
const BATCH_BYTES: usize = 1024 * 1024;
/// What comes within this time goes together.
const GATHER: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("reaching {to}: {why}")]
    Reach { to: String, why: String },
    #[error("sending events to {to}: {why}")]
    Send { to: String, why: String },
    #[error("reading {}: {why}; write a PEM file with the authorities of the collector", path.display())]
    Authority { path: PathBuf, why: String },
}

/// Where events go.
pub enum Sender {
    Syslog(Syslog),
    Otlp(Otlp),
}

impl Sender {
    fn name(&self) -> &'static str {
        match self {
            Self::Syslog(_) => "syslog",
            Self::Otlp(_) => "otlp",
        }
    }

    /// Returns when the collector has confirmed them all.
    async fn deliver(&self, lines: &[Line]) -> Result<(), ForwardError> {
        let delivering = async {
            match self {
                Self::Syslog(syslog) => syslog.deliver(lines).await,
                Self::Otlp(otlp) => otlp.deliver(lines).await,
            }
        };
        tokio::time::timeout(DEADLINE, delivering)
            .await
            .unwrap_or_else(|_| {
                Err(ForwardError::Send {
                    to: self.name().to_owned(),
                    why: format!("it has not confirmed within {DEADLINE:?}"),
                })
            })
    }
}

/// How forwarding goes, for whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<BTreeMap<&'static str, Progress>>>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    pub delivered: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Why nothing goes through at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outage: Option<String>,
}

impl Progress {
    /// Up to where the collector has everything; None: it has nothing yet.
    pub fn place(&self) -> Option<Place> {
        self.after.as_deref()?.parse().ok()
    }
}

impl Watch {
    pub fn tell(&self) -> BTreeMap<&'static str, Progress> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From this segment on, not every collector has everything; None: there is no collector.
    pub fn awaited(&self) -> Option<u64> {
        let forwarders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let segments = forwarders
            .values()
            .map(|progress| progress.place().map_or(0, |place| place.segment));
        segments.min()
    }

    pub(crate) fn forget(&self, name: &str) {
        let mut forwarders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forwarders.remove(name);
    }

    fn change(&self, name: &'static str, change: impl FnOnce(&mut Progress)) {
        let mut forwarders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(forwarders.entry(name).or_default());
    }
}

/// Counts with a collector that can't be sent to yet: what it has not got does not go by age.
pub(crate) fn await_collector(watch: &Watch, name: &'static str, state: &Path) {
    let at = place_in(&state.join(format!("{name}.cursor")));
    watch.change(name, |progress| {
        progress.after = at.map(|place| place.to_string());
        progress.outage = Some("its settings can't be used".to_owned());
    });
}

/// Forwards for as long as it is polled.
pub async fn keep(store: Arc<Store>, sender: Sender, state: &Path, watch: Watch, alerts: Alerts) {
    let name = sender.name();
    let cursor = state.join(format!("{name}.cursor"));
    let mut at = place_in(&cursor);
    let mut arrivals = store.watch();
    watch.change(name, |progress| {
        progress.after = at.map(|place| place.to_string());
        progress.outage = None;
    });
    let mut pause = FIRST_PAUSE;
    let mut outage = false;
    loop {
        arrivals.mark_unchanged();
        let lines = match read(&store, at).await {
            Ok(lines) => lines,
            Err(why) => {
                tracing::error!("reading events for {name}: {why}");
                tokio::time::sleep(LONGEST_PAUSE).await;
                continue;
            }
        };
        let Some(last) = lines.last().map(|line| line.place) else {
            if arrivals.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(GATHER).await;
            continue;
        };
        match sender.deliver(&lines).await {
            Ok(()) => {
                at = Some(last);
                watch.change(name, |progress| {
                    progress.delivered += lines.len() as u64;
                    progress.after = Some(last.to_string());
                    progress.outage = None;
                });
                if let Err(error) = durable::replace(&cursor, last.to_string().as_bytes()) {
                    tracing::error!(
                        "{error}; after a restart some events are sent to {name} once more"
                    );
                }
                pause = FIRST_PAUSE;
                alerts
                    .ends(name, "forwarding-resumed", name.to_owned())
                    .await;
                outage = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut outage, true) {
                    tracing::error!("{error}; events wait in the store and follow when it is back");
                }
                alerts
                    .begins(name, "forwarding-stopped", format!("{name}: {error}"))
                    .await;
                watch.change(name, |progress| progress.outage = Some(error.to_string()));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

async fn read(store: &Arc<Store>, after: Option<Place>) -> Result<Vec<Line>, String> {
    let store = Arc::clone(store);
    let query = Query {
        limit: BATCH,
        after: after.map(|place| place.to_string()),
        ..Query::default()
    };
    let read = tokio::task::spawn_blocking(move || page(&store, &query)).await;
    let page = read.map_err(|error| error.to_string())?;
    let mut lines = page.map_err(|error| error.to_string())?.lines;
    let mut bytes = 0;
    let fitting = lines.iter().take_while(|line| {
        bytes += line.json.len();
        bytes <= BATCH_BYTES
    });
    let fitting = fitting.count().max(1);
    lines.truncate(fitting);
    Ok(lines)
}

/// None: from the beginning on. A cursor that can't be read means that events go twice, not that some do not go.
fn place_in(path: &Path) -> Option<Place> {
    match durable::read(path, 64) {
        Ok(bytes) => String::from_utf8(bytes?).ok()?.trim().parse().ok(),
        Err(error) => {
            tracing::error!("{error}; all events are sent once more");
            None
        }
    }
}

#[cfg(test)]
mod tests;
