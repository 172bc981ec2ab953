//! The control socket: the kill switch, and what is open now. One JSON line each way; who asks is known by user id.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::listeners::Serving;
use crate::judge::{Blocked, Judge};
use crate::metrics::Now;

const LONGEST: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(5);
/// A list of flows is cut after so many; their number is told.
const MOST_LISTED: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask", deny_unknown_fields)]
pub enum Request {
    Block {
        agent: String,
    },
    Unblock {
        agent: String,
    },
    BlockAll,
    UnblockAll,
    Flows {
        agent: Option<String>,
    },
    Status,
    Health,
    /// Counts and gauges, as Prometheus reads them.
    Metrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Reply {
    Blocked(Blocked),
    Flows {
        flows: Vec<OpenFlow>,
        total: usize,
    },
    Status {
        revision: Option<u64>,
        connections: usize,
        flows: usize,
        blocked: Blocked,
        events_waiting: u64,
    },
    Health {
        healthy: bool,
        /// What is amiss, each in words.
        faults: Vec<String>,
    },
    Metrics {
        text: String,
    },
    Error {
        error: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFlow {
    pub request_id: String,
    pub agent_id: String,
    pub source: String,
    pub destination: String,
    pub tunnel: bool,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("listening on the control socket {}: {source}", path.display())]
pub struct ControlError {
    path: PathBuf,
    source: io::Error,
}

pub struct Control {
    judge: Arc<Judge>,
    serving: Serving,
    /// Where who is blocked is kept.
    file: PathBuf,
    uids: Vec<u32>,
    /// One change at a time, or one would undo another.
    changing: Mutex<()>,
}

impl Control {
    pub fn new(judge: Arc<Judge>, serving: Serving, file: PathBuf, uids: Vec<u32>) -> Arc<Self> {
        Arc::new(Self {
            judge,
            serving,
            file,
            uids,
            changing: Mutex::new(()),
        })
    }

    pub fn listen(self: &Arc<Self>, path: &Path) -> Result<(), ControlError> {
        let failed = |source| ControlError {
            path: path.to_owned(),
            source,
        };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Who may speak here is in the directory's group; whom we hear is decided by the user, at each question.
        if let Some(directory) = path.parent() {
            let group = fs::metadata(directory).map_err(failed)?.gid();
            // A directory with the set-group-id bit has done it, and the unit's sandbox lets nobody change an owner.
            if fs::metadata(path).map_err(failed)?.gid() != group {
                std::os::unix::fs::chown(path, None, Some(group)).map_err(failed)?;
            }
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
        let control = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let control = Arc::clone(&control);
                        tokio::spawn(async move { timeout(PATIENCE, control.serve(stream)).await });
                    }
                    Err(error) => {
                        tracing::warn!("accepting on the control socket: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(())
    }

    async fn serve(&self, stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        let (reads, mut writes) = stream.into_split();
        let mut line = Vec::new();
        BufReader::new(reads.take(LONGEST))
            .read_until(b'\n', &mut line)
            .await?;
        let reply = if uid != 0 && !self.uids.contains(&uid) {
            error(format!("user {uid} may not ask here"))
        } else {
            match serde_json::from_slice(&line) {
                Ok(request) => self.answer(request).await,
                Err(why) => error(format!("the line is no request: {why}")),
            }
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        writes.write_all(&text).await
    }

    pub async fn answer(&self, request: Request) -> Reply {
        match request {
            Request::Block { agent } => self.change(|blocked| blocked.agents.extend([agent])).await,
            Request::Unblock { agent } => {
                self.change(|blocked| blocked.agents.retain(|other| *other != agent))
                    .await
            }
            Request::BlockAll => self.change(|blocked| blocked.all = true).await,
            Request::UnblockAll => self.change(|blocked| blocked.all = false).await,
            Request::Flows { agent } => self.flows(agent.as_deref()),
            Request::Health => self.health(),
            Request::Metrics => Reply::Metrics {
                text: self.judge.metrics().text(&self.now()),
            },
            Request::Status => {
                let serving = self.serving.load();
                Reply::Status {
                    revision: self
                        .judge
                        .snapshot()
                        .map(|snapshot| snapshot.policy.revision),
                    connections: serving.as_ref().map_or(0, |gateway| gateway.connections()),
                    flows: serving.as_ref().map_or(0, |gateway| gateway.flows().len()),
                    blocked: (*self.judge.blocked()).clone(),
                    events_waiting: self.judge.queue().status().waiting,
                }
            }
        }
    }

    /// In force at once, and on disk when it is answered. If it can't be kept, a block holds all the same until the next
    /// start, and whoever asked is told; nothing is unblocked that way.
    async fn change(&self, change: impl FnOnce(&mut Blocked)) -> Reply {
        let _one = self.changing.lock().await;
        let old = self.judge.blocked();
        let mut blocked = (*old).clone();
        change(&mut blocked);
        let loosens = old.all && !blocked.all || !old.agents.is_subset(&blocked.agents);
        if !loosens {
            self.judge.block(blocked.clone());
        }
        if let Err(why) = blocked.write(&self.file) {
            return error(why.to_string());
        }
        if loosens {
            self.judge.block(blocked.clone());
        }
        Reply::Blocked(blocked)
    }

    fn now(&self) -> Now {
        let serving = self.serving.load();
        let flows = serving.as_ref().map(|gateway| gateway.flows());
        let flows = flows.unwrap_or_default();
        let snapshot = self.judge.snapshot();
        let queue = self.judge.queue().status();
        Now {
            connections: serving.as_ref().map_or(0, |gateway| gateway.connections()),
            tunnels: flows.iter().filter(|flow| flow.subject.tunnel).count(),
            flows: flows.len(),
            events_waiting: queue.waiting,
            events_bytes: queue.bytes,
            events_dropped: queue.dropped,
            revision: snapshot.as_ref().map(|snapshot| snapshot.policy.revision),
            credentials: snapshot.as_ref().map(|snapshot| snapshot.credentials),
            ready: snapshot.is_some() && serving.is_some() && queue.broken.is_none(),
            clock_trusted: self.judge.believes_clock(),
        }
    }

    fn health(&self) -> Reply {
        let snapshot = self.judge.snapshot();
        let mut faults = Vec::new();
        if snapshot.is_none() {
            faults.push("no revision or no credentials yet: every request is denied".to_owned());
        }
        if snapshot.is_some() && self.serving.load().is_none() {
            faults.push("no door is open yet".to_owned());
        }
        let queue = self.judge.queue().status();
        faults.extend(queue.broken.map(|why| format!("the audit queue: {why}")));
        Reply::Health {
            healthy: faults.is_empty(),
            faults,
        }
    }

    fn flows(&self, agent: Option<&str>) -> Reply {
        let serving = self.serving.load();
        let all = serving
            .as_ref()
            .map(|gateway| gateway.flows())
            .unwrap_or_default();
        let wanted: Vec<_> = all
            .iter()
            .filter(|flow| agent.is_none_or(|agent| *flow.subject.identity.agent_id == *agent))
            .collect();
        let flows = wanted.iter().take(MOST_LISTED).map(|flow| {
            let (bytes_out, bytes_in) = flow.bytes();
            let subject = &flow.subject;
            OpenFlow {
                request_id: subject.id.to_string(),
                agent_id: subject.identity.agent_id.to_string(),
                source: subject.source.to_string(),
                destination: format!("{}:{}", subject.host, subject.port),
                tunnel: subject.tunnel,
                bytes_out,
                bytes_in,
            }
        });
        Reply::Flows {
            flows: flows.collect(),
            total: wanted.len(),
        }
    }
}

fn error(error: String) -> Reply {
    Reply::Error { error }
}
