//! The write-ahead queue: what happened is in here before it has any effect outside, and stays until the store has it.
//!
//! A request is begun before its connection is made and ended when it is over; one that was begun and whose process
//! died becomes an event marked `interrupted`. When `begin` or `whole` has returned, the record survives the death of
//! this process; with [`Durability::Strict`] it survives that of the machine, otherwise it does after a tenth of a second.
//!
//! Denials of nobody in particular may be folded, see `folds`; anything else is an event of its own.
//!
//! Backpressure: a queue never holds more than `max_bytes`, room for the end of every begun request included, and no
//! agent more than its share. What is over that is refused, or counted and told as one event when there is room again.
//!
//! A directory holds lanes, one for each process that has it open, so that an old gateway may drain beside a new one.

mod append;
mod files;
mod folds;
mod house;
mod lanes;
mod read;
pub mod record;
mod recover;

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use clawgress_config::access::{Durability, WhenFull};
use tokio::sync::watch;

use crate::checksum::crc32c;
use crate::disk::{Disk, DiskError};
use crate::event::{self, Begun, Decision, EventError, LONGEST, Outcome};
use append::{Content, Inner};

pub use lanes::{Lane, lanes};
pub use read::{Beside, Queued, Reader};

/// How long an append may wait for its sync.
const INTERVAL: Duration = Duration::from_millis(50);
/// Until what a full disk has held up is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// An outcome's text is at most this long; room for it is set aside when a request begins.
const OUTCOME_ROOM: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub durability: Durability,
    pub when_full: WhenFull,
    pub max_bytes: u64,
    /// At least two files' worth, whatever is written here.
    pub share_per_agent: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            when_full: WhenFull::default(),
            max_bytes: 256 * 1024 * 1024,
            share_per_agent: 64 * 1024 * 1024,
        }
    }
}

impl Settings {
    /// Of one file; space is set aside by the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        (self.max_bytes / 16).clamp(256 * 1024, 16 * 1024 * 1024)
    }
}

/// Why nothing was recorded, and so nothing may be let through.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the audit queue is full ({0} bytes wait to be shipped); is clawgress-audit running?")]
    Full(u64),
    #[error("no space for the audit queue: {0}")]
    Space(DiskError),
    #[error("the share of '{0}' in the audit queue is used up")]
    Share(String),
    #[error(
        "the audit queue is out of order and takes nothing until its service starts again: {0}"
    )]
    Broken(String),
    #[error(transparent)]
    Event(#[from] EventError),
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(
        "the audit queue {place} holds files of two queues, {one} and {other}; move one of them away"
    )]
    Mixed {
        place: String,
        one: String,
        other: String,
    },
    #[error("starting the thread that syncs the audit queue: {0}")]
    Thread(std::io::Error),
}

/// A lane of the queue, open for appending. Dropped, all of it is synced.
pub struct Queue {
    shared: Arc<Shared>,
    house: Option<JoinHandle<()>>,
}

struct Shared {
    settings: Settings,
    disk: Box<dyn Disk>,
    inner: Mutex<Inner>,
    /// Up to which position everything is on disk; closed when the queue is broken.
    durable: watch::Sender<u64>,
    /// Appended to since the last sync began.
    dirty: AtomicBool,
    stop: AtomicBool,
    keeper: Mutex<Option<std::thread::Thread>>,
}

/// A request that has begun. Dropped without `end`, it ends as interrupted.
#[must_use = "a request that is not ended is recorded as interrupted"]
pub struct Ticket {
    shared: Arc<Shared>,
    /// None: counted, not recorded.
    number: Option<u64>,
    position: u64,
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Queue {
    /// Takes a free lane below `directory`, or makes one, and puts it in order after whatever happened to it.
    pub fn open(directory: &Path, settings: Settings) -> Result<Self, OpenError> {
        let disk = lanes::take(directory)?;
        Self::start(Box::new(disk), settings)
    }

    fn start(disk: Box<dyn Disk>, settings: Settings) -> Result<Self, OpenError> {
        let shared = Shared::recover(disk, settings)?;
        let keeper = Arc::clone(&shared);
        let house = std::thread::Builder::new()
            .name("audit-queue".to_owned())
            .spawn(move || keeper.keep_house())
            .map_err(OpenError::Thread)?;
        *lock(&shared.keeper) = Some(house.thread().clone());
        Ok(Self {
            shared,
            house: Some(house),
        })
    }

    /// Records that a request begins. Appended when it returns; with strict durability on disk, too, which blocks:
    /// in a runtime call [`Queue::begin_durably`].
    pub fn begin(&self, begun: &Begun<'_>) -> Result<Ticket, Refused> {
        let ticket = self.shared.begin(begun)?;
        if self.shared.settings.durability == Durability::Strict && ticket.number.is_some() {
            self.shared.block_until(ticket.position)?;
        }
        Ok(ticket)
    }

    /// As `begin`; one sync serves all who wait for it.
    pub async fn begin_durably(&self, begun: &Begun<'_>) -> Result<Ticket, Refused> {
        let ticket = self.shared.begin(begun)?;
        if self.shared.settings.durability == Durability::Strict && ticket.number.is_some() {
            self.shared.wait_until(ticket.position).await?;
        }
        Ok(ticket)
    }

    pub fn end(&self, ticket: Ticket, outcome: &Outcome<'_>) {
        ticket.end(outcome);
    }

    /// Records what began and ended at once: a denial, a query, a change.
    pub fn whole(&self, begun: &Begun<'_>, outcome: &Outcome<'_>) -> Result<(), Refused> {
        self.shared.whole(begun, outcome).map(|_| ())
    }

    /// As `whole`, and with strict durability on disk when it returns.
    pub async fn whole_durably(
        &self,
        begun: &Begun<'_>,
        outcome: &Outcome<'_>,
    ) -> Result<(), Refused> {
        match self.shared.whole(begun, outcome)? {
            Some(position) if self.shared.settings.durability == Durability::Strict => {
                self.shared.wait_until(position).await
            }
            _ => Ok(()),
        }
    }

    /// Everything appended so far is on disk when it returns.
    pub async fn flush(&self) -> Result<(), Refused> {
        let position = self.shared.lock().position;
        self.shared.wait_until(position).await
    }

    pub fn status(&self) -> Status {
        self.shared.lock().status()
    }

    /// What has been appended and is on disk, for shipping.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Status {
    /// Events that the store has not acknowledged.
    pub waiting: u64,
    pub begun: u64,
    pub bytes: u64,
    pub dropped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

impl Queue {
    fn stop_house(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(house) = self.house.take() {
            house.thread().unpark();
            // A panic in there has been told already.
            let _ = house.join();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.stop_house();
    }
}

impl Ticket {
    pub fn end(mut self, outcome: &Outcome<'_>) {
        if let Some(number) = self.number.take() {
            self.shared.end(number, outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(number) = self.number.take() {
            self.shared.end(number, &interrupted());
        }
    }
}

/// Begun was only what had been allowed, folds aside.
fn interrupted() -> Outcome<'static> {
    Outcome {
        decision: Decision::Allow,
        interrupted: true,
        ..Outcome::default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    fn begin(self: &Arc<Self>, begun: &Begun<'_>) -> Result<Ticket, Refused> {
        let ticket = |number, position| Ticket {
            shared: Arc::clone(self),
            number,
            position,
        };
        with_content(begun, None, |content| {
            let mut inner = self.lock();
            match inner.begin(self, content) {
                Ok((number, position)) => Ok(ticket(Some(number), position)),
                Err(refused) => {
                    self.dropped(&mut inner, content, refused)?;
                    Ok(ticket(None, 0))
                }
            }
        })
    }

    /// None: counted, not recorded.
    fn whole(&self, begun: &Begun<'_>, outcome: &Outcome<'_>) -> Result<Option<u64>, Refused> {
        // Where a fold finds no room, neither does the event; its refusal says why.
        if let Ok(Some(position)) = self.fold(begun, outcome) {
            return Ok(Some(position));
        }
        with_content(begun, Some(outcome), |content| {
            let mut inner = self.lock();
            match inner.whole(self, content) {
                Ok(position) => Ok(Some(position)),
                Err(refused) => self.dropped(&mut inner, content, refused).map(|()| None),
            }
        })
    }

    fn end(&self, number: u64, outcome: &Outcome<'_>) {
        let mut text = Vec::with_capacity(OUTCOME_ROOM);
        if event::closing_text(outcome, &mut text).is_err() || text.len() > OUTCOME_ROOM {
            // What is counted stays; what is told in words is what was too long.
            let short = Outcome {
                dlp_matches: Vec::new().into(),
                reason: None,
                quota_applied: None,
                destination_geo: None,
                destination_address: None,
                ..outcome.clone()
            };
            text.clear();
            let _ = event::closing_text(&short, &mut text);
        }
        self.lock().end(self, number, &text);
    }

    /// By `when_full`: the refusal, or one more that is counted.
    fn dropped(
        &self,
        inner: &mut Inner,
        content: &Content<'_>,
        refused: Refused,
    ) -> Result<(), Refused> {
        let full = matches!(
            refused,
            Refused::Full(_) | Refused::Share(_) | Refused::Space(_)
        );
        if !full || self.settings.when_full == WhenFull::Refuse {
            return Err(refused);
        }
        inner.count_dropped(content.owner());
        self.touched();
        Ok(())
    }

    /// Something waits for the keeper.
    fn touched(&self) {
        if !self.dirty.swap(true, Ordering::AcqRel)
            && let Some(keeper) = &*lock(&self.keeper)
        {
            keeper.unpark();
        }
    }

    fn block_until(&self, position: u64) -> Result<(), Refused> {
        while *self.durable.borrow() < position {
            if let Some(broken) = &self.lock().broken {
                return Err(Refused::Broken(broken.clone()));
            }
            // The keeper's sync takes longer than this; a strict caller in a runtime waits without polling.
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    async fn wait_until(&self, position: u64) -> Result<(), Refused> {
        let mut durable = self.durable.subscribe();
        loop {
            if *durable.borrow_and_update() >= position {
                return Ok(());
            }
            if let Some(broken) = &self.lock().broken {
                return Err(Refused::Broken(broken.clone()));
            }
            // The sender lives as long as `self`.
            let _ = durable.changed().await;
        }
    }
}

/// Encodes before the lock is taken. None as outcome leaves the brace open.
fn with_content<T>(
    begun: &Begun<'_>,
    outcome: Option<&Outcome<'_>>,
    take: impl FnOnce(&mut Content<'_>) -> Result<T, Refused>,
) -> Result<T, Refused> {
    with_content_of(owner_of(begun), begun, outcome, take)
}

fn with_content_of<T>(
    owner: &str,
    begun: &Begun<'_>,
    outcome: Option<&Outcome<'_>>,
    take: impl FnOnce(&mut Content<'_>) -> Result<T, Refused>,
) -> Result<T, Refused> {
    SCRATCH.with_borrow_mut(|bytes| {
        bytes.clear();
        bytes.resize(record::HEADER, 0);
        bytes.extend_from_slice(owner.as_bytes());
        event::open_text(begun, bytes)?;
        if let Some(outcome) = outcome {
            event::closing_text(outcome, bytes)?;
        }
        let length = bytes.len() - record::HEADER - owner.len();
        if length + OUTCOME_ROOM > LONGEST {
            return Err(EventError::TooLong(length).into());
        }
        let sum = crc32c(0, bytes.get(record::HEADER..).unwrap_or_default());
        take(&mut Content {
            bytes,
            owner: owner.len() as u8,
            sum,
        })
    })
}

/// Whose share it is. All without identity have one together.
fn owner_of<'a>(begun: &'a Begun<'_>) -> &'a str {
    let agent = begun.agent_id.as_deref().unwrap_or_default();
    let mut end = agent.len().min(255);
    while !agent.is_char_boundary(end) {
        end -= 1;
    }
    agent.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod hold_tests;
#[cfg(test)]
mod tests;
