//! The quota service: answers renewals on its socket, and writes down what was used.
//!
//! Who may ask is decided by the user that the kernel says is calling. The state on disk is at most one interval behind.

mod config;

use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use clawgress_quota::lease::{LEASE_MS, Leases};
use clawgress_quota::wire::{LONGEST_LINE, Renewal, Reply};
use clawgress_quota::{Snapshot, read_used, write_used};
use sd_notify::NotifyState;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub(crate) use config::Config;

/// For one line in, or one out.
const PATIENCE: Duration = Duration::from_secs(5);
/// Callers at once; the next ones wait.
const CALLERS: usize = 64;
const LONGEST_NAME: usize = 63;

struct Service {
    config: Config,
    leases: Mutex<Leases>,
    began: Instant,
}

pub(crate) async fn serve(config: Config, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let leases = Leases::remembering(read_used(&config.state)?);
    let listener = open(&config.socket)
        .with_context(|| format!("listening on {}", config.socket.display()))?;
    let interval = Duration::from_millis(config.save_every_ms);
    let service = Arc::new(Service {
        config,
        leases: Mutex::new(leases),
        began: Instant::now(),
    });
    let answering = tokio::spawn(Arc::clone(&service).answer(listener));
    sd_notify::notify(&[NotifyState::Ready])
        .context("telling systemd that the service is ready")?;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {
                if let Err(error) = service.save().await {
                    tracing::error!("{error:#}");
                }
            }
            () = &mut stop => break,
        }
    }
    // Best effort: systemd learns the same from our exit.
    sd_notify::notify(&[NotifyState::Stopping]).ok();
    answering.abort();
    service.save().await
}

/// Opens the socket, in place of what a dead process left there.
fn open(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

impl Service {
    fn leases(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn save(&self) -> anyhow::Result<()> {
        let used = self.leases().used().clone();
        let path = self.config.state.clone();
        tokio::task::spawn_blocking(move || write_used(used, &path))
            .await
            .context("writing what was used")??;
        Ok(())
    }

    async fn answer(self: Arc<Self>, listener: UnixListener) {
        let callers = Arc::new(Semaphore::new(CALLERS));
        loop {
            let Ok(place) = Arc::clone(&callers).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let service = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = service.converse(stream).await {
                            tracing::warn!("answering a gateway: {error:#}");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::error!("accepting gateways: {error}");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    }

    async fn converse(&self, mut stream: UnixStream) -> anyhow::Result<()> {
        let user = stream.peer_cred().context("asking who calls")?.uid();
        // Read in any case: who is turned away before he has spoken hears a broken pipe and no reason.
        let asked = read(&mut stream).await;
        let known = user == 0 || self.config.gateway_uids.contains(&user);
        let reply = match asked {
            _ if !known => Reply::Error {
                error: format!("user {user} is no gateway; gateway_uids names who is"),
            },
            Ok(renewal) => self.renew(renewal),
            Err(error) => Reply::Error {
                error: format!("{error:#}"),
            },
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        timeout(PATIENCE, stream.write_all(&line))
            .await
            .context("the gateway does not take the answer")??;
        Ok(())
    }

    fn renew(&self, renewal: Renewal) -> Reply {
        let Renewal {
            gateway,
            holds,
            used,
            fresh,
        } = renewal;
        if gateway.is_empty() || gateway.len() > LONGEST_NAME {
            return Reply::Error {
                error: format!("a gateway's name has 1 to {LONGEST_NAME} characters"),
            };
        }
        let now = self.began.elapsed().as_millis() as u64;
        let mut leases = self.leases();
        let remembered = fresh.then(|| leases.remembered(&gateway));
        // Nothing that a gateway has forgotten may take the place of what is known here.
        let used = if fresh { Snapshot::default() } else { used };
        match leases.renew(&gateway, holds, &used, now) {
            Ok(lease) => Reply::Lease {
                share: lease.share,
                lease_ms: LEASE_MS,
                others: lease.others,
                remembered,
            },
            Err(error) => Reply::Error {
                error: error.to_string(),
            },
        }
    }
}

async fn read(stream: &mut UnixStream) -> anyhow::Result<Renewal> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(LONGEST_LINE));
    timeout(PATIENCE, reader.read_until(b'\n', &mut line))
        .await
        .context("no renewal came")?
        .context("reading the renewal")?;
    serde_json::from_slice(&line).context("the renewal makes no sense")
}
