//! The watching side: the last good bundle at once, every newer one as soon as it is published, and never an older one.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::{BundleError, LARGEST, Mark, Signed, open};
use crate::durable;
use crate::error::{ProbeError, within};
use crate::mtls::{self, Credentials, CredentialsError, Role};

const CONNECT: Duration = Duration::from_secs(3);
/// Longer than a publisher keeps an asker waiting.
const ANSWER: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where a kind of bundle comes from, and where the last good one is kept.
#[derive(Debug)]
pub struct Watcher<T> {
    kind: &'static str,
    publisher: (Role, SocketAddr),
    file: PathBuf,
    own: Arc<Credentials>,
    content: PhantomData<fn() -> T>,
}

/// What is known at each moment. Dropped, the watch ends.
#[derive(Debug)]
pub struct Watched<T> {
    pub current: watch::Receiver<Option<Arc<Signed<T>>>>,
    /// Whether the publisher answers.
    pub reachable: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where the watching task puts what it learns.
struct Outlet<T> {
    current: watch::Sender<Option<Arc<Signed<T>>>>,
    reachable: watch::Sender<bool>,
}

impl<T: DeserializeOwned + Send + Sync + 'static> Watcher<T> {
    pub fn new(
        kind: &'static str,
        publisher: (Role, SocketAddr),
        file: PathBuf,
        own: &Arc<Credentials>,
    ) -> Self {
        Self {
            kind,
            publisher,
            file,
            own: Arc::clone(own),
            content: PhantomData,
        }
    }

    /// What was kept, judged as if it had just arrived.
    pub fn last_good(&self) -> Result<Option<Signed<T>>, BundleError> {
        let of = self.file.display().to_string();
        durable::read(&self.file, LARGEST)?
            .map(|bytes| open(&of, self.kind, &self.own.stored().bundle_keys, &bytes))
            .transpose()
    }

    /// Begins with the last good one and watches from then on. A kept bundle that is not good any more is told and passed
    /// over: nothing is better than what nobody vouches for.
    pub fn start(self) -> Result<Watched<T>, CredentialsError> {
        let last = self.last_good().unwrap_or_else(|error| {
            tracing::error!("{error}; going on without it until a new one arrives");
            None
        });
        let connector = mtls::client(&self.own, &[self.publisher.0])?;
        let (current, current_told) = watch::channel(last.map(Arc::new));
        let (reachable, reachable_told) = watch::channel(false);
        let outlet = Outlet { current, reachable };
        let task = tokio::spawn(async move { self.follow(&connector, &outlet).await });
        Ok(Watched {
            current: current_told,
            reachable: reachable_told,
            task,
        })
    }

    async fn follow(self, connector: &TlsConnector, outlet: &Outlet<T>) {
        let this = Arc::new(self);
        let mut pause = FIRST_PAUSE;
        loop {
            let ended = match this.connect(connector).await {
                Ok(mut sender) => {
                    pause = FIRST_PAUSE;
                    this.ask(&mut sender, outlet).await
                }
                Err(error) => error,
            };
            if outlet.reachable.send_replace(false) || pause == FIRST_PAUSE {
                tracing::warn!("{ended}; what is known stays in force");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn doing(&self) -> String {
        let (role, address) = self.publisher;
        format!(
            "watching the {} bundle of {} at {address}",
            self.kind,
            role.word()
        )
    }

    async fn connect(
        &self,
        connector: &TlsConnector,
    ) -> Result<SendRequest<Empty<Bytes>>, ProbeError> {
        let doing = self.doing();
        let address = self.publisher.1;
        within(CONNECT, &doing, async {
            let stream = TcpStream::connect(address)
                .await
                .map_err(ProbeError::io(&doing))?;
            let name = ServerName::IpAddress(address.ip().into());
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(ProbeError::io(&doing))?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| ProbeError::answer(&doing, error))?;
            // Ends with the sender; why it ended is what the sender says.
            tokio::spawn(async move { connection.await.ok() });
            Ok(sender)
        })
        .await
    }

    /// Asks again and again over one connection, until it fails.
    async fn ask(
        self: &Arc<Self>,
        sender: &mut SendRequest<Empty<Bytes>>,
        outlet: &Outlet<T>,
    ) -> ProbeError {
        let doing = self.doing();
        loop {
            let known = outlet.current.borrow().as_ref().map(|bundle| bundle.mark);
            match within(ANSWER, &doing, self.ask_once(sender, known, &doing)).await {
                Ok(bytes) => {
                    outlet.reachable.send_replace(true);
                    if let Some(bytes) = bytes
                        && let Err(error) = self.take(bytes, known, outlet).await
                    {
                        return ProbeError::answer(&doing, error);
                    }
                }
                Err(error) => return error,
            }
        }
    }

    async fn ask_once(
        &self,
        sender: &mut SendRequest<Empty<Bytes>>,
        known: Option<Mark>,
        doing: &str,
    ) -> Result<Option<Bytes>, ProbeError> {
        let query = known.map_or_else(String::new, |mark| {
            format!("?epoch={}&number={}", mark.epoch, mark.number)
        });
        let request = Request::get(format!("/bundles/{}{query}", self.kind))
            .header("host", "clawgress")
            .body(Empty::new())
            .map_err(|error| ProbeError::answer(doing, error))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| ProbeError::answer(doing, error))?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(None),
            StatusCode::OK => {
                let body = Limited::new(response.into_body(), LARGEST as usize);
                let body = body
                    .collect()
                    .await
                    .map_err(|error| ProbeError::answer(doing, error))?;
                Ok(Some(body.to_bytes()))
            }
            other => Err(ProbeError::answer(doing, format!("it answered {other}"))),
        }
    }

    async fn take(
        self: &Arc<Self>,
        bytes: Bytes,
        known: Option<Mark>,
        outlet: &Outlet<T>,
    ) -> Result<(), BundleError> {
        let of = self.doing();
        let stopped = |error: tokio::task::JoinError| BundleError::Content {
            of: self.doing(),
            why: error.to_string(),
        };
        // A large one takes longer to read than traffic on this thread may wait.
        let (this, text) = (Arc::clone(self), bytes.clone());
        let bundle = tokio::task::spawn_blocking(move || {
            let bundle: Signed<T> = open(&of, this.kind, &this.own.stored().bundle_keys, &text)?;
            match known {
                Some(known) if bundle.mark <= known => Err(BundleError::Old {
                    of,
                    found: bundle.mark,
                    known,
                }),
                _ => Ok(bundle),
            }
        });
        let bundle = bundle.await.map_err(stopped)??;
        tracing::info!("{}: {} is in force", self.doing(), bundle.mark);
        // First in force, then on disk: a full or slow disk must not hold back a revocation.
        outlet.current.send_replace(Some(Arc::new(bundle)));
        let this = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || durable::replace(&this.file, &bytes));
        if let Err(error) = kept.await.map_err(stopped)? {
            tracing::error!(
                "{error}; after a restart an older bundle will be in force until the publisher answers"
            );
        }
        Ok(())
    }
}
