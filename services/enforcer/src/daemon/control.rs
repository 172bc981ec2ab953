//! The control socket: one request line in, one reply line out. Who may ask is decided by the user that the kernel says
//! is calling.
//!
//! What changes something goes to the keeper; the rest is answered from what is in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clawgress_link::control::{Reply, Report, Request, SOCKET, Status, Telemetry, Window};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::clock::since_boot;
use super::config::Config;
use super::keeper::Order;
use super::shared::Shared;
use super::socket;
use crate::apply::nft;
use crate::plan::Blocked;

/// For one line in, or one out.
const PATIENCE: Duration = Duration::from_secs(10);
/// The ids of all agents that may be blocked at once.
const LONGEST_REQUEST: u64 = 8 * 1024 * 1024;
/// Callers at once; the next ones wait.
const CALLERS: usize = 32;

#[derive(Clone)]
pub(super) struct Control {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<Status>,
}

/// Opens the socket.
pub(super) fn open(config: &Config) -> Result<UnixListener, String> {
    socket::open(SOCKET, config.group, |path| UnixListener::bind(path))
}

impl Control {
    pub(super) fn new(
        shared: Arc<Shared>,
        orders: mpsc::Sender<Order>,
        status: watch::Receiver<Status>,
    ) -> Self {
        Self {
            shared,
            orders,
            status,
        }
    }

    /// Answers for ever.
    pub(super) async fn serve(self, listener: UnixListener) {
        let callers = Arc::new(Semaphore::new(CALLERS));
        loop {
            let Ok(place) = Arc::clone(&callers).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let control = self.clone();
                    tokio::spawn(async move {
                        if let Err(error) = control.converse(stream).await {
                            tracing::warn!("answering on {SOCKET}: {error}");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::error!("accepting on {SOCKET}: {error}");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    }

    async fn converse(&self, mut stream: UnixStream) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let user = stream.peer_cred().map_err(|error| text(&error))?.uid();
        let config = &self.shared.config;
        let (may_ask, may_block) = (
            config.control_uids.contains(&user),
            config.block_uids.contains(&user),
        );
        let reply = if may_ask || may_block {
            match self.read(&mut stream).await {
                Ok(request @ Request::Block { .. }) if may_block => self.answer(request).await,
                Ok(request) if may_ask && !matches!(request, Request::Block { .. }) => {
                    self.answer(request).await
                }
                Ok(_) => Reply::Error {
                    error: format!("user {user} may ask something else, and not this"),
                },
                Err(error) => Reply::Error { error },
            }
        } else {
            Reply::Error {
                error: format!(
                    "user {user} may not ask the enforcer; its configuration names who may"
                ),
            }
        };
        let mut line = serde_json::to_vec(&reply).map_err(|error| text(&error))?;
        line.push(b'\n');
        timeout(PATIENCE, stream.write_all(&line))
            .await
            .map_err(|_| "the caller does not take the answer".to_owned())?
            .map_err(|error| text(&error))
    }

    async fn read(&self, stream: &mut UnixStream) -> Result<Request, String> {
        let mut line = Vec::new();
        let mut reader = BufReader::new(stream.take(LONGEST_REQUEST));
        timeout(PATIENCE, reader.read_until(b'\n', &mut line))
            .await
            .map_err(|_| "no request came".to_owned())?
            .map_err(|error| format!("reading the request: {error}"))?;
        serde_json::from_slice(&line)
            .map_err(|error| format!("the request makes no sense: {error}"))
    }

    async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Check { file } => match self.revision(&file) {
                Ok(file) => self.order(|answer| Order::Check(file, answer)).await,
                Err(error) => Reply::Error { error },
            },
            Request::Apply { file } => match self.revision(&file) {
                Ok(file) => self.order(|answer| Order::Apply(file, answer)).await,
                Err(error) => Reply::Error { error },
            },
            Request::Resume => match self.order(Order::Resume).await {
                // There was nothing to resume: the status says why.
                Reply::Report(report) if report.ok && !report.applied => self.status(),
                reply => reply,
            },
            Request::Block { agents, all } => {
                let blocked = Blocked {
                    all,
                    agents: agents.into_iter().collect(),
                };
                self.order(|answer| Order::Block(blocked, answer)).await
            }
            Request::Seal => self.order(Order::Seal).await,
            Request::Status => self.status(),
            Request::Telemetry { window } => Reply::Telemetry(Box::new(self.telemetry(window))),
            Request::Firewall => match nft::list(&self.shared.config.programs.nft).await {
                Ok(text) => Reply::Text { text },
                Err(error) => Reply::Error {
                    error: error.to_string(),
                },
            },
            Request::Zone { limit } => self.zone(limit),
        }
    }

    /// Only a file where revisions lie is read; no link leads out of there.
    fn revision(&self, file: &str) -> Result<PathBuf, String> {
        let below = &self.shared.config.revisions;
        let real = |path: &Path| {
            let found = std::fs::canonicalize(path);
            found.map_err(|error| format!("looking for the revision {}: {error}", path.display()))
        };
        let (path, below) = (real(Path::new(file))?, real(below)?);
        if path.parent() == Some(below.as_path()) {
            return Ok(path);
        }
        Err(format!(
            "{file} is not in {}, where revisions lie",
            below.display()
        ))
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<Report>) -> Order) -> Reply {
        let (answer, report) = oneshot::channel();
        let sent = self.orders.send(order(answer)).await;
        match (sent, report.await) {
            (Ok(()), Ok(report)) => Reply::Report(report),
            _ => Reply::Error {
                error: "the enforcer is ending".to_owned(),
            },
        }
    }

    fn status(&self) -> Reply {
        Reply::Status(Box::new(self.status.borrow().clone()))
    }

    fn telemetry(&self, window: Window) -> Telemetry {
        let mut telemetry = self.shared.rings().telemetry(since_boot(), window);
        for (principal, cap) in self.shared.cap_use().iter() {
            let of = telemetry.principals.entry(principal.clone()).or_default();
            of.caps.push(cap.clone());
        }
        telemetry
    }

    fn zone(&self, limit: usize) -> Reply {
        let Some(in_force) = self.shared.in_force() else {
            return Reply::Zone {
                names: Vec::new(),
                total: 0,
            };
        };
        let zones = &in_force.plan.zones;
        let passing = zones
            .zones
            .iter()
            .flat_map(|zone| zone.text.lines())
            .filter_map(|line| line.strip_suffix(" CNAME rpz-passthru."));
        Reply::Zone {
            names: passing.take(limit).map(str::to_owned).collect(),
            total: zones.names,
        }
    }
}
