//! The connection to the enforcer: revisions and standing come from there, pins and counts go there.
//!
//! One connection at a time. While there is none, whatever needs a pin fails at once; when it is lost, everybody who
//! waits for a pin is told so.

mod connection;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clawgress_link::pins::{Count, FromEnforcer, FromResolver, Pin};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

pub use connection::{Connection, ConnectionError};

use crate::engine::Engine;
use crate::rules::Rules;

/// An agent does not wait longer for a pin.
const PIN_PATIENCE: Duration = Duration::from_millis(500);
const SEND_PATIENCE: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);
const QUEUED: usize = 4096;
/// As many counts as surely fit into one message.
const COUNTS_IN_ONE: usize = 40;

#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("the enforcer is away, or has more to do than it can")]
    Away,
    #[error("the enforcer did not answer within {PIN_PATIENCE:?}")]
    Silent,
    #[error("the enforcer refused: {0}")]
    Refused(String),
}

type Told = Result<(), PinError>;

/// The engine's end.
#[derive(Debug)]
pub struct Link {
    outbox: mpsc::Sender<Pin>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Told>>>,
    next: AtomicU64,
}

/// The connection's end.
#[derive(Debug)]
pub struct Outbox(mpsc::Receiver<Pin>);

impl Link {
    pub fn new() -> (Self, Outbox) {
        let (outbox, pins) = mpsc::channel(QUEUED);
        let link = Self {
            outbox,
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
        };
        (link, Outbox(pins))
    }

    /// Returns once the addresses are pinned.
    pub async fn pin(&self, mut pin: Pin) -> Told {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        pin.id = id;
        let (tell, told) = oneshot::channel();
        self.waiting().insert(id, tell);
        let _place = Place { link: self, id };
        self.outbox.try_send(pin).map_err(|_| PinError::Away)?;
        match timeout(PIN_PATIENCE, told).await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => Err(PinError::Away),
            Err(_) => Err(PinError::Silent),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Told>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, id: u64, error: Option<String>) {
        if let Some(waiter) = self.waiting().remove(&id) {
            // It may have lost patience.
            let _ = waiter.send(error.map_or(Ok(()), |why| Err(PinError::Refused(why))));
        }
    }

    fn lost(&self) {
        self.waiting().clear();
    }
}

/// Takes the waiter away again, however the wait ends.
struct Place<'a> {
    link: &'a Link,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.link.waiting().remove(&self.id);
    }
}

/// Keeps a connection to the enforcer for as long as the process lives.
pub async fn keep(engine: Arc<Engine>, socket: PathBuf, mut outbox: Outbox) {
    let mut pause = FIRST_RETRY;
    loop {
        match Connection::to(&socket) {
            Ok(connection) => {
                tracing::info!("connected to the enforcer");
                let mut session = Session {
                    engine: &engine,
                    connection,
                    outbox: &mut outbox,
                    loading: None,
                    prepared: None,
                };
                let error = session.run().await;
                if session.was_useful() {
                    pause = FIRST_RETRY;
                }
                engine.enforcer_lost();
                engine.link().lost();
                tracing::warn!("lost the enforcer: {error}");
            }
            Err(error) => tracing::debug!("{error}"),
        }
        // Whoever put something there has been told that it is lost.
        while outbox.0.try_recv().is_ok() {}
        sleep(pause).await;
        pause = (pause * 2).min(LAST_RETRY);
    }
}

struct Session<'a> {
    engine: &'a Arc<Engine>,
    connection: Connection,
    outbox: &'a mut Outbox,
    /// The revision that is being compiled; a later order replaces it.
    loading: Option<Loading>,
    /// What is likely to be ordered next.
    prepared: Option<Loading>,
}

struct Loading {
    revision: u64,
    file: String,
    rules: JoinHandle<Result<Rules, String>>,
}

impl Loading {
    fn begin(revision: u64, file: String) -> Self {
        let path = PathBuf::from(&file);
        let rules = tokio::task::spawn_blocking(move || {
            Rules::read(&path, revision).map_err(|error| error.to_string())
        });
        Self {
            revision,
            file,
            rules,
        }
    }
}

impl Session<'_> {
    /// Returns why it ended.
    async fn run(&mut self) -> ConnectionError {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                message = self.connection.receive() => match message {
                    Ok(message) => self.obey(message).await,
                    Err(error) => Err(error),
                },
                Some(pin) = self.outbox.0.recv() => self.send(&FromResolver::Pin(pin)).await,
                (revision, rules) = compiled(&mut self.loading) => self.loaded(revision, rules).await,
                _ = second.tick() => self.send_counts().await,
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    /// Something was loaded over it.
    fn was_useful(&self) -> bool {
        self.engine.is_ready()
    }

    async fn obey(&mut self, message: FromEnforcer) -> Result<(), ConnectionError> {
        match message {
            FromEnforcer::Load { revision, file } => {
                tracing::info!("loading revision {revision}");
                let prepared = self.prepared.take();
                let new = prepared
                    .filter(|prepared| prepared.revision == revision && prepared.file == file)
                    .unwrap_or_else(|| Loading::begin(revision, file));
                if let Some(earlier) = self.loading.replace(new) {
                    let error = format!("revision {revision} came before it was compiled");
                    self.send_loaded(earlier.revision, Some(error)).await?;
                }
            }
            FromEnforcer::Prepare { next } => {
                self.prepared = next.map(|(revision, file)| Loading::begin(revision, file));
            }
            FromEnforcer::Unload => {
                tracing::info!("no policy any more");
                self.loading = None;
                self.engine.unload();
            }
            FromEnforcer::Pinned { id, error } => self.engine.link().told(id, error),
            FromEnforcer::State {
                over_cap,
                clock_trusted,
            } => self.engine.set_standing(over_cap, clock_trusted),
            FromEnforcer::Blocked {
                first,
                all,
                principals,
            } => self.engine.set_blocked(first, all, principals),
        }
        Ok(())
    }

    async fn loaded(
        &mut self,
        revision: u64,
        rules: Result<Rules, String>,
    ) -> Result<(), ConnectionError> {
        let error = match rules {
            Ok(rules) => {
                for warning in rules.warnings() {
                    tracing::warn!("revision {revision}: {warning}");
                }
                self.engine.load(rules);
                tracing::info!("revision {revision} is loaded");
                None
            }
            Err(error) => {
                tracing::error!("revision {revision} is not loaded: {error}");
                Some(error)
            }
        };
        self.send_loaded(revision, error).await
    }

    async fn send_loaded(
        &self,
        revision: u64,
        error: Option<String>,
    ) -> Result<(), ConnectionError> {
        self.send(&FromResolver::Loaded { revision, error }).await
    }

    async fn send_counts(&self) -> Result<(), ConnectionError> {
        let counts = self.engine.take_counts();
        for some in counts.chunks(COUNTS_IN_ONE) {
            let counts: Vec<Count> = some.to_vec();
            self.send(&FromResolver::Counted { counts }).await?;
        }
        Ok(())
    }

    async fn send(&self, message: &FromResolver) -> Result<(), ConnectionError> {
        match timeout(SEND_PATIENCE, self.connection.send(message)).await {
            Ok(sent) => sent,
            Err(_) => Err(ConnectionError::Stalled),
        }
    }
}

/// The revision that was asked for last, once it is compiled; never, if none is being compiled. Cancel safe.
async fn compiled(loading: &mut Option<Loading>) -> (u64, Result<Rules, String>) {
    let Some(Loading {
        revision, rules, ..
    }) = loading
    else {
        return std::future::pending().await;
    };
    let revision = *revision;
    let rules = rules.await.unwrap_or_else(|error| Err(error.to_string()));
    *loading = None;
    (revision, rules)
}
