//! All workers together: started, told to drain, ended.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::flows::{Cut, Flow};
use crate::judge::{Judge, Proved};
use crate::listen::{self, Door};
use crate::tls::Showing;
use crate::worker::{Doors, Limits, Worker};

/// So long flows are judged again before the ones that move bytes have their turn.
const JUDGED_AT_ONCE: Duration = Duration::from_millis(2);
const TICK: Duration = Duration::from_secs(1);
/// A tunnel of which one side has ended has so long for the other.
const HALF_CLOSED_SECONDS: u32 = 120;

/// The sockets of one worker.
#[derive(Debug, Default)]
pub struct Sockets {
    pub plain: Vec<OwnedFd>,
    pub tls: Vec<OwnedFd>,
    pub front: Option<OwnedFd>,
}

pub struct Gateway {
    pub judge: Arc<Judge>,
    workers: Vec<Arc<Worker>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stage: watch::Sender<Stage>,
}

/// Ascends only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// Nobody is accepted any more.
    Draining,
    Ended,
}

impl Gateway {
    /// A worker for each set of sockets; they serve when it returns.
    pub fn start(
        judge: Arc<Judge>,
        limits: Limits,
        named: SocketAddr,
        showing: &Arc<Showing>,
        doors: &Arc<Doors>,
        sockets: Vec<Sockets>,
    ) -> io::Result<Self> {
        let stage = watch::Sender::new(Stage::Serving);
        let mut gateway = Self {
            judge,
            workers: Vec::new(),
            threads: Mutex::default(),
            stage,
        };
        for (number, sockets) in sockets.into_iter().enumerate() {
            let worker = Worker::new(
                Arc::clone(&gateway.judge),
                limits,
                named,
                Arc::clone(doors),
                Arc::clone(showing),
            );
            gateway.workers.push(Arc::clone(&worker));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let stage = gateway.stage.subscribe();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    if let Err(error) = runtime.block_on(run(worker, sockets, stage)) {
                        tracing::error!("a worker ended: {error}");
                    }
                })?;
            gateway
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(thread);
        }
        Ok(gateway)
    }

    pub fn flows(&self) -> Vec<Arc<Flow>> {
        self.workers
            .iter()
            .flat_map(|worker| worker.flows.all())
            .collect()
    }

    pub fn connections(&self) -> usize {
        self.workers.iter().map(|worker| worker.open()).sum()
    }

    /// Accepts nobody any more; connections end with the request that they are at.
    pub fn stop_accepting(&self) {
        self.stage.send_replace(Stage::Draining);
        for worker in &self.workers {
            worker.drain();
        }
    }

    /// Returns when nobody waits to be heard any more, at most after so long.
    pub async fn heard_all(&self, patience: Duration) {
        let deadline = tokio::time::Instant::now() + patience;
        while self.workers.iter().any(|worker| worker.awaits_anybody())
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Accepts nobody any more and waits until all is over, at most so long; then cuts what is left.
    pub async fn drain(&self, patience: Duration) {
        self.stop_accepting();
        let deadline = tokio::time::Instant::now() + patience;
        while self.connections() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for worker in &self.workers {
            worker.flows.cut_all(Cut::Drained);
        }
        // The cut flows still write down how they ended.
        let soon = tokio::time::Instant::now() + Duration::from_secs(1);
        while self.workers.iter().any(|worker| !worker.flows.is_empty())
            && tokio::time::Instant::now() < soon
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.stage.send_replace(Stage::Ended);
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A worker that panicked has said so.
            let _ = thread.join();
        }
    }
}

async fn run(
    worker: Arc<Worker>,
    sockets: Sockets,
    mut stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    let mut accepting = tokio::task::JoinSet::new();
    for (fds, door) in [(sockets.plain, Door::Plain), (sockets.tls, Door::Tls)] {
        for fd in fds {
            let listener = TcpListener::from_std(StdTcpListener::from(fd))?;
            accepting.spawn(listen::accept(Arc::clone(&worker), listener, door));
        }
    }
    if let Some(fd) = sockets.front {
        let listener = UnixListener::from_std(StdUnixListener::from(fd))?;
        accepting.spawn(listen::accept_front(Arc::clone(&worker), listener));
    }
    tokio::spawn(keep_time(Arc::clone(&worker)));
    tokio::spawn(judge_again(Arc::clone(&worker)));
    // Errors only when the gateway is gone, and then all is over.
    let _ = stage.wait_for(|stage| *stage >= Stage::Draining).await;
    accepting.shutdown().await;
    worker.accepts_none();
    let _ = stage.wait_for(|stage| *stage == Stage::Ended).await;
    Ok(())
}

async fn keep_time(worker: Arc<Worker>) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        worker.flows.clock.tick();
        worker.pool.forget_old();
        let idle = worker.judge.snapshot().map_or(u32::MAX, |snapshot| {
            snapshot.policy.settings.idle_timeout_seconds
        });
        worker.flows.cut_idle(idle, HALF_CLOSED_SECONDS);
        for flow in worker.flows.all() {
            let (out, back) = flow.bytes();
            if let Err(reason) = worker.judge.settle(&flow.subject, out + back) {
                flow.cut(Cut::Denied(reason));
            }
        }
    }
}

/// A change reaches open flows here: each is judged as if it began now.
async fn judge_again(worker: Arc<Worker>) {
    let mut changes = worker.judge.changes();
    while changes.changed().await.is_ok() {
        worker.pool.forget_all();
        let mut proved = Proved::default();
        let mut since = Instant::now();
        for flow in worker.flows.all() {
            if let Err(reason) = worker.judge.judge_beside(&flow.subject, &mut proved) {
                flow.cut(Cut::Denied(reason));
            } else if worker.judge.is_miscounted(&flow.subject) {
                tokio::spawn(count_again(Arc::clone(&worker), flow));
            }
            if since.elapsed() >= JUDGED_AT_ONCE {
                tokio::task::yield_now().await;
                since = Instant::now();
            }
        }
    }
}

/// A limit that came with a revision counts for what is open already, or that ends.
async fn count_again(worker: Arc<Worker>, flow: Arc<Flow>) {
    if let Err(reason) = worker.judge.count(&flow.subject).await {
        flow.cut(Cut::Denied(reason));
    }
}
