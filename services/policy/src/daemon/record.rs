//! The audit events of this service: each change that somebody makes by way of it is recorded before it is made, and
//! ended with what became of it. They are kept in a queue of its own and shipped to the audit service.
//!
//! What can't be recorded is not done, with one exception: a block always goes through.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::http::StatusCode;
use clawgress_audit::{
    event::{Begun, Decision, Micros, Outcome, Source},
    queue::{Durability, Queue, Settings, Ticket, WhenFull},
    ship,
};
use tokio::{net::UnixStream, sync::OnceCell, time::timeout};

use crate::daemon::http::{Actor, Refusal};

/// As this service calls itself to the audit service.
const NAME: &str = "policy";
/// Tens of thousands of changes.
const MOST_BYTES: u64 = 8 * 1024 * 1024;
/// What a block waits for its record: a disk that hangs must not keep anybody open.
const BLOCK_WAITS: Duration = Duration::from_millis(500);
/// What is said of an outcome has little room in the queue.
const LONGEST: usize = 300;

/// A change, as it is told before it is made.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) actor: Actor,
    /// The address that asked; none: somebody on this box.
    pub(crate) source: Option<String>,
    /// A few words that stay the same, as in `agent key create`.
    pub(crate) action: &'static str,
    pub(crate) agent: Option<String>,
    /// Of what, with which values; never a secret.
    pub(crate) detail: String,
}

pub(crate) struct Records {
    directory: PathBuf,
    ship_socket: PathBuf,
    queue: OnceCell<Queue>,
}

/// A change that is recorded and not made yet. Dropped, it ends as interrupted.
#[must_use = "a change that is not ended is recorded as interrupted"]
pub(crate) struct Recorded {
    ticket: Option<Ticket>,
}

impl Records {
    pub(crate) fn new(directory: PathBuf, ship_socket: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            directory,
            ship_socket,
            queue: OnceCell::new(),
        })
    }

    /// Opens the queue, so that what an earlier process left in it is shipped. What fails is tried again at each change.
    pub(crate) async fn start(&self) {
        if let Err(why) = self.queue().await {
            tracing::error!("{why}; until then nothing can be changed");
        }
    }

    async fn queue(&self) -> Result<&Queue, String> {
        self.queue
            .get_or_try_init(|| async {
                let directory = self.directory.clone();
                let settings = Settings {
                    durability: Durability::Strict,
                    when_full: WhenFull::Refuse,
                    max_bytes: MOST_BYTES,
                    share_per_agent: MOST_BYTES,
                };
                let opening =
                    tokio::task::spawn_blocking(move || Queue::open(&directory, settings));
                let queue = opening
                    .await
                    .map_err(|stopped| format!("opening the audit queue was stopped: {stopped}"))?
                    .map_err(|error| {
                        let place = self.directory.display();
                        format!("opening the audit queue below {place}: {error}")
                    })?;
                let (reader, socket) = (queue.reader(), self.ship_socket.clone());
                tokio::spawn(async move {
                    let connect = || UnixStream::connect(socket.clone());
                    ship::keep_shipping(connect, reader, NAME).await;
                });
                Ok(queue)
            })
            .await
    }

    /// On disk when it returns; an error says why nothing may be changed.
    pub(crate) async fn begin(&self, change: &Change) -> Result<Recorded, Refusal> {
        let refused = |why: String| {
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not recorded",
                format!("{why}; what can't be recorded is not done, and nothing was changed"),
            )
        };
        let queue = self.queue().await.map_err(refused)?;
        let ticket = queue.begin_durably(&change.begun()).await;
        Ok(Recorded {
            ticket: Some(ticket.map_err(|error| refused(error.to_string()))?),
        })
    }

    /// For the one thing that is done even if nobody can write it down.
    pub(crate) async fn begin_if_possible(&self, change: &Change) -> Recorded {
        let begun = timeout(BLOCK_WAITS, self.begin(change)).await;
        let begun = begun.unwrap_or_else(|_| {
            Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not recorded",
                "the disk under the audit queue does not answer".to_owned(),
            ))
        });
        begun.unwrap_or_else(|refusal| {
            tracing::error!(
                actor = %change.actor,
                agent = change.agent,
                "audit: {} goes through unrecorded: {}",
                change.action,
                refusal.reason()
            );
            Recorded { ticket: None }
        })
    }

    /// Records a change, makes it in a task of its own, so that a caller who hangs up leaves nothing half told, and
    /// records what became of it. `told` says it in words.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        change: Change,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
        told: impl FnOnce(&T) -> String + Send + 'static,
    ) -> Result<T, Refusal> {
        let recorded = self.begin(&change).await?;
        recorded.carry_out(change, work, told).await
    }
}

impl Recorded {
    pub(crate) async fn carry_out<T: Send + 'static>(
        self,
        change: Change,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
        told: impl FnOnce(&T) -> String + Send + 'static,
    ) -> Result<T, Refusal> {
        let task = tokio::spawn(async move {
            let outcome = work.await;
            match &outcome {
                Ok(done) => {
                    let words = told(done);
                    tracing::info!(actor = %change.actor, agent = change.agent, "audit: {}: {}", change.action, one_line(&words));
                    self.done(&words);
                }
                Err(refusal) => {
                    tracing::info!(actor = %change.actor, agent = change.agent, "audit: {} refused: {}", change.action, one_line(refusal.reason()));
                    self.refused(refusal);
                }
            }
            outcome
        });
        task.await.unwrap_or_else(|stopped| {
            Err(Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "stopped",
                format!("the work on it was stopped: {stopped}"),
            ))
        })
    }

    pub(crate) fn done(self, words: &str) {
        self.end(Decision::Allow, StatusCode::OK, words);
    }

    pub(crate) fn refused(self, refusal: &Refusal) {
        self.end(Decision::Deny, refusal.status(), refusal.reason());
    }

    /// Of what nobody asked for by a call.
    pub(crate) fn failed(self, words: &str) {
        self.end(Decision::Deny, StatusCode::CONFLICT, words);
    }

    fn end(mut self, decision: Decision, status: StatusCode, words: &str) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        ticket.end(&Outcome {
            decision,
            reason: Some(one_line(words).into()),
            status: Some(status.as_u16()),
            ..Outcome::default()
        });
    }
}

impl Change {
    fn begun(&self) -> Begun<'_> {
        Begun {
            timestamp: Micros::now(),
            source: Source::Admin,
            agent_id: self.agent.as_deref().map(Into::into),
            // Who asked, not what was changed.
            credential: Some(self.actor.to_string().into()),
            client_address: self.source.as_deref().map(Into::into),
            http_method: Some(self.action.into()),
            path: Some(one_line(&self.detail).into()),
            ..Begun::default()
        }
    }
}

/// What callers write must not begin a line of a journal.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .take(LONGEST)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}
