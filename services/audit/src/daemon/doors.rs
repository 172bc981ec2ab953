//! Where events come in, and who may bring them under which name: on this box by the user, from other boxes by the
//! certificate's role and the address that the configuration gives the name.
//!
//! Who is refused is told in the trail, once for as long as it lasts.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clawgress_link::enrol::Place;
use clawgress_link::mtls::{self, Role, peer_role};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::alerts::Alerts;
use crate::api::{Api, Asking, Peeked, Peer, router};
use crate::config::Config;
use crate::ship::{self, ShipError};
use crate::store::Store;

/// Shippers at once; who comes beyond that waits in the kernel's queue.
const MOST_SHIPPERS: usize = 256;
/// Of these, from other boxes: they must not keep this box's own out.
const MOST_REMOTE: usize = 128;
const HANDSHAKE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
const ENROL_AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Doors {
    store: Arc<Store>,
    config: Arc<Config>,
    alerts: Alerts,
}

/// Takes connections for as long as it is polled, no more at a time than there are places.
async fn accept<S, A>(
    mut next: impl FnMut() -> A,
    places: usize,
    mut take: impl FnMut(S, OwnedSemaphorePermit),
) where
    A: Future<Output = io::Result<S>>,
{
    let places = Arc::new(Semaphore::new(places));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match next().await {
            Ok(stream) => take(stream, place),
            Err(error) => {
                // Out of descriptors: trying again at once would only burn the processor.
                tracing::warn!("accepting a shipper: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Doors {
    pub(super) fn new(store: Arc<Store>, config: Arc<Config>, alerts: Alerts) -> Self {
        Self {
            store,
            config,
            alerts,
        }
    }

    pub(super) async fn take_local(self, listener: UnixListener) {
        let next = async || listener.accept().await.map(|(stream, _)| stream);
        accept(next, MOST_SHIPPERS, |stream, place| {
            let doors = self.clone();
            tokio::spawn(async move {
                doors.local(stream).await;
                drop(place);
            });
        })
        .await;
    }

    async fn local(&self, stream: UnixStream) {
        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
        let Some(shipper) = uid.and_then(|uid| self.config.shipper(uid)) else {
            let who = uid.map_or_else(|| "nobody".to_owned(), |uid| format!("user {uid}"));
            tracing::warn!("{who} may not ship events; name it in shippers");
            let about = format!("{who} is no shipper");
            return self.alerts.begins(&who, "shipper-refused", about).await;
        };
        let allowed = |name: &str| name == shipper;
        self.receive(stream, shipper.to_owned(), allowed).await;
    }

    async fn receive<S>(&self, stream: S, who: String, allowed: impl Fn(&str) -> bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let over = || self.alerts.ends(&who, "shipper-accepted", who.clone());
        match ship::receive_telling(stream, &self.store, allowed, over).await {
            Ok(()) => {}
            Err(ShipError::Refused(words)) => {
                tracing::warn!("events of {who} are refused: {words}");
                let about = format!("{who}: {words}");
                self.alerts.begins(&who, "shipper-refused", about).await;
            }
            Err(error) => tracing::warn!("events of {who}: {error}"),
        }
    }

    pub(super) async fn take_remote(self, listener: TcpListener, api: Api) {
        let enrolment = Place {
            role: Role::Audit,
            directory: self.config.state.clone(),
            socket: self.config.enrol_socket.clone(),
        };
        let mut told = false;
        let credentials = loop {
            match enrolment.credentials().await {
                Ok(credentials) => break credentials,
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!("{error}; until then other gateways keep their events");
                    }
                    tokio::time::sleep(ENROL_AGAIN).await;
                }
            }
        };
        let acceptor = match mtls::server(&credentials, &Role::ALL) {
            Ok(acceptor) => acceptor,
            Err(error) => return tracing::error!("preparing TLS: {error}"),
        };
        let (asking, asked) = mpsc::channel(1);
        let answering = async {
            let service = router(api).into_make_service_with_connect_info::<Peer>();
            if let Err(error) = axum::serve(Asking::new(asked), service).await {
                tracing::error!("answering other boxes' questions: {error}");
            }
        };
        let accepting = accept(
            async || listener.accept().await,
            MOST_REMOTE,
            |(stream, peer), place| {
                let (doors, acceptor, asking) = (self.clone(), acceptor.clone(), asking.clone());
                tokio::spawn(async move {
                    doors.remote(stream, peer, &acceptor, &asking, place).await;
                });
            },
        );
        tokio::join!(enrolment.keep(&credentials), accepting, answering);
    }

    async fn remote(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        acceptor: &TlsAcceptor,
        asking: &mpsc::Sender<(Peeked<TlsStream<TcpStream>>, Role)>,
        place: OwnedSemaphorePermit,
    ) {
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
            // Anybody on the wire can bring this about, so it is no event.
            return tracing::warn!("{peer} did not prove that it is a service of ours");
        };
        let Some(role) = peer_role(stream.get_ref().1) else {
            return;
        };
        let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, Peeked::of(stream)).await else {
            return;
        };
        if role == Role::Policy && stream.is_question() {
            let stream = stream.holding(place);
            // Full or closed: the peer sees that nobody answers.
            let _ = asking.send((stream, role)).await;
            return;
        }
        let allowed = |name: &str| may_ship(&self.config, role, peer.ip(), name);
        let who = format!("{} at {}", role.word(), peer.ip().to_canonical());
        self.receive(stream, who, allowed).await;
    }
}

/// The role alone would let each gateway write as any other.
fn may_ship(config: &Config, role: Role, address: IpAddr, name: &str) -> bool {
    let of_role = name
        .strip_prefix(role.word())
        .is_some_and(|rest| rest.starts_with('-'));
    of_role && config.peers.get(name) == Some(&address.to_canonical())
}
