//! The conversation with clawgress-dns: pins, loads, counts. And the sweep that takes expired pins away.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clawgress_link::pins::{Count, FromEnforcer, FromResolver, LONGEST_MESSAGE, Pin, SOCKET};
use clawgress_policy::Reason;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::clock::since_boot;
use super::config::Config;
use super::shared::{Loaded, Shared, Standing};
use crate::apply::files;
use crate::kernel::Socket;
use crate::pins::pinner::in_use;
use crate::pins::server::{self, Client, ServerError};
use crate::plan::Blocked;
use crate::telemetry::ring::What;

const SWEEP: Duration = Duration::from_secs(15);
/// Pins that go into the kernel in one transaction.
const TOGETHER: usize = 64;
/// Nobody may keep the pins of others waiting.
const SEND_PATIENCE: Duration = Duration::from_secs(2);

/// Opens the socket for the resolver.
pub(super) fn open(config: &Config) -> Result<UnixListener, String> {
    let path = Path::new(SOCKET);
    let listener = server::open(path).map_err(|error| error.to_string())?;
    match config.group {
        Some(_) => files::admit(path, 0o660, config.group).map_err(|error| error.to_string())?,
        None => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .map_err(|error| format!("setting the mode of {SOCKET}: {error}"))?,
    }
    Ok(listener)
}

/// Talks to one resolver after the other, for ever. A new connection takes the place of the old.
pub(super) async fn serve(shared: Arc<Shared>, listener: UnixListener) {
    let mut waiting = None;
    loop {
        let stream = match waiting.take() {
            Some(stream) => stream,
            None => match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!("accepting on {SOCKET}: {error}");
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
            },
        };
        let client = match Client::admit(stream, &shared.config.resolver_uids) {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!("{error}");
                continue;
            }
        };
        tracing::info!("clawgress-dns is connected");
        let mut session = Session {
            shared: &shared,
            client,
            standing: shared.standing.subscribe(),
            told: None,
        };
        tokio::select! {
            error = session.run() => tracing::warn!("lost clawgress-dns: {error}"),
            newer = permitted(&listener, &shared.config.resolver_uids) => waiting = newer,
        }
    }
}

/// The next connection of somebody who may have one.
async fn permitted(listener: &UnixListener, users: &[u32]) -> Option<tokio::net::UnixStream> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let user = stream.peer_cred().ok().map(|peer| peer.uid());
                if user.is_some_and(|user| users.contains(&user)) {
                    return Some(stream);
                }
            }
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

struct Session<'s> {
    shared: &'s Shared,
    client: Client,
    standing: watch::Receiver<Standing>,
    told: Option<Standing>,
}

impl Session<'_> {
    async fn run(&mut self) -> ServerError {
        self.standing.mark_changed();
        loop {
            let done = tokio::select! {
                changed = self.standing.changed() => match changed {
                    Ok(()) => self.tell().await,
                    Err(_) => Err(ServerError::Closed),
                },
                message = self.client.receive() => match message {
                    Ok(message) => self.take(message).await,
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    async fn tell(&mut self) -> Result<(), ServerError> {
        let now = self.standing.borrow_and_update().clone();
        let told = self.told.take();
        let prepared = told.as_ref().and_then(|told| told.prepare.as_ref());
        if now.prepare.as_ref() != prepared {
            let next = now.prepare.as_ref();
            let next = next.map(|(revision, file)| (*revision, file.display().to_string()));
            self.send(&FromEnforcer::Prepare { next }).await?;
        }
        if told.as_ref().is_none_or(|told| told.order != now.order) {
            let message = match &now.load {
                Some((revision, file)) => FromEnforcer::Load {
                    revision: *revision,
                    file: file.display().to_string(),
                },
                None => FromEnforcer::Unload,
            };
            self.send(&message).await?;
        }
        let same = |told: &Standing| {
            told.over_cap == now.over_cap && told.clock_trusted == now.clock_trusted
        };
        if !told.as_ref().is_some_and(same) {
            self.send(&state(&now)).await?;
        }
        if told.as_ref().is_none_or(|told| told.blocked != now.blocked) {
            for message in blocked(&now.blocked) {
                self.send(&message).await?;
            }
        }
        self.told = Some(now);
        Ok(())
    }

    async fn take(&mut self, first: FromResolver) -> Result<(), ServerError> {
        let mut pins = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                FromResolver::Pin(pin) => pins.push(pin),
                FromResolver::Loaded { revision, error } => {
                    // The keeper reads these while it waits for one; a report of its own accord may be lost.
                    let _ = self.shared.loaded.try_send(Loaded { revision, error });
                }
                FromResolver::Counted { counts } => count(self.shared, &counts),
            }
            if pins.len() >= TOGETHER {
                break;
            }
            next = self.client.waiting()?;
        }
        self.pin(&pins).await
    }

    async fn pin(&self, pins: &[Pin]) -> Result<(), ServerError> {
        if pins.is_empty() {
            return Ok(());
        }
        let mut pinner = self.shared.pinner.lock().await;
        let outcomes = tokio::task::block_in_place(|| pinner.pin(pins, since_boot()));
        drop(pinner);
        for (pin, outcome) in pins.iter().zip(outcomes) {
            let error = outcome.err().map(|error| error.to_string());
            if let Some(error) = &error {
                tracing::debug!("not pinned for {}: {error}", pin.principal);
            }
            self.send(&FromEnforcer::Pinned { id: pin.id, error })
                .await?;
        }
        Ok(())
    }

    async fn send(&self, message: &FromEnforcer) -> Result<(), ServerError> {
        timeout(SEND_PATIENCE, self.client.send(message))
            .await
            .map_err(|_| ServerError::Stalled)?
    }
}

/// Ids are short: so many surely fit into one message.
const BLOCKED_IN_ONE: usize = 200;

fn blocked(blocked: &Blocked) -> Vec<FromEnforcer> {
    let ids: Vec<String> = blocked.agents.iter().cloned().collect();
    let mut parts: Vec<&[String]> = ids.chunks(BLOCKED_IN_ONE).collect();
    if parts.is_empty() {
        parts.push(&[]);
    }
    let message = |(at, principals): (usize, &[String])| FromEnforcer::Blocked {
        first: at == 0,
        all: blocked.all,
        principals: principals.to_vec(),
    };
    parts.into_iter().enumerate().map(message).collect()
}

/// As many used-up caps as fit into a message: the kernel holds all of them shut in any case.
fn state(standing: &Standing) -> FromEnforcer {
    let mut room = LONGEST_MESSAGE - 1024;
    let fitting = standing.over_cap.iter().take_while(|(who, pattern)| {
        let needed = 2 * (who.len() + pattern.len()) + 16;
        room = room.saturating_sub(needed);
        room > 0
    });
    FromEnforcer::State {
        over_cap: fitting.cloned().collect(),
        clock_trusted: standing.clock_trusted,
    }
}

fn count(shared: &Shared, counts: &[Count]) {
    let now = since_boot();
    let mut rings = shared.rings();
    for count in counts {
        let denied = count.denied.iter().filter_map(|(reason, many)| {
            let reason = Reason::of_word(reason)?;
            Some((What::Denied(reason.word()), *many))
        });
        let asked = [
            (What::Queries, count.queries),
            (What::CacheHits, count.cache_hits),
        ];
        for (what, many) in asked.into_iter().chain(denied) {
            rings.add(now, &count.principal, None, &what, many);
            rings.add(now, &count.principal, Some(&count.domain), &what, many);
            if matches!(what, What::Denied(_)) {
                rings.deny(now, &count.domain, many);
            }
        }
    }
}

/// Takes expired pins away every now and then, but for those that flows use.
pub(super) async fn sweep(shared: Arc<Shared>) {
    loop {
        sleep(SWEEP).await;
        if let Err(error) = sweep_once(&shared).await {
            tracing::error!("taking expired pins away: {error}");
        }
    }
}

async fn sweep_once(shared: &Shared) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (expired, judge) = {
        let pinner = shared.pinner.lock().await;
        (pinner.expired(since_boot()), pinner.judge().cloned())
    };
    if expired.is_empty() {
        return Ok(());
    }
    let (expired, used) = match judge {
        None => (expired, std::collections::HashSet::new()),
        Some(judge) => tokio::task::spawn_blocking(move || {
            let mut socket = Socket::open()?;
            in_use(&mut socket, &expired, &judge.index).map(|used| (expired, used))
        })
        .await
        .map_err(|error| text(&error))?
        .map_err(|error| text(&error))?,
    };
    let mut pinner = shared.pinner.lock().await;
    tokio::task::block_in_place(|| pinner.sweep(since_boot(), &expired, &used))
        .map(drop)
        .map_err(|error| text(&error))
}
