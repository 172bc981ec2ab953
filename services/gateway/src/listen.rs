//! Sockets that agents connect to: each worker has its own for the same port, and the kernel divides connections among them.
//!
//! Accepted sockets inherit what is set here, so that no connection pays for it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen,
    setsockopt, socket, sockopt,
};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::timeout;

use crate::session::{self, Connection};
use crate::stream::Stream;
use crate::tls;
use crate::wire::proxy_v2;
use crate::worker::Worker;

/// Connections that the kernel has made and nobody has accepted yet.
const BACKLOG: i32 = 4096;

#[derive(Debug, thiserror::Error)]
#[error("listening on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

#[derive(Debug, thiserror::Error)]
#[error("listening for the front door on {}: {source}", path.display())]
pub struct FrontError {
    path: PathBuf,
    source: io::Error,
}

/// What agents speak at a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Plain,
    Tls,
}

/// One socket of a group for the same address.
pub fn open(address: SocketAddr) -> Result<OwnedFd, ListenError> {
    let made = || -> io::Result<OwnedFd> {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::ReusePort, &true)?;
        setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        setsockopt(&fd, sockopt::KeepAlive, &true)?;
        if address.is_ipv6() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&fd, Backlog::new(BACKLOG)?)?;
        Ok(fd)
    };
    made().map_err(|source| ListenError { address, source })
}

/// The front door's socket; whoever may open its directory may use it.
pub fn open_front(path: &Path) -> Result<OwnedFd, FrontError> {
    let failed = |source| FrontError {
        path: path.to_owned(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener.into())
}

/// Accepts until the task is ended.
pub async fn accept(worker: Arc<Worker>, listener: TcpListener, door: Door) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let Some(place) = worker.enter(source.ip()) else {
                    // Full: closed at once, which costs nothing, and the agent may come again.
                    continue;
                };
                let worker = Arc::clone(&worker);
                match door {
                    Door::Plain => {
                        let stream = Stream::Tcp(stream);
                        let connection = Connection::new(stream, source.ip(), place);
                        tokio::spawn(session::serve(worker, connection));
                    }
                    Door::Tls => {
                        tokio::spawn(tls::serve(worker, stream, source.ip(), place));
                    }
                }
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Of the front door, which says for each connection whose it is.
pub async fn accept_front(worker: Arc<Worker>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(introduce(Arc::clone(&worker), stream));
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn introduce(worker: Arc<Worker>, mut stream: UnixStream) {
    let read = timeout(worker.limits.head, async {
        let mut fixed = [0; proxy_v2::FIXED];
        stream.read_exact(&mut fixed).await?;
        let length = proxy_v2::length(&fixed).map_err(io::Error::other)?;
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        proxy_v2::source(&fixed, &rest).map_err(io::Error::other)
    });
    let source = match read.await {
        Ok(Ok(source)) => source.ip().to_canonical(),
        Ok(Err(error)) => {
            tracing::warn!("reading whose connection the front door hands over: {error}");
            return;
        }
        Err(_) => return,
    };
    if let Some(place) = worker.enter(source) {
        session::serve(worker, Connection::new(Stream::Unix(stream), source, place)).await;
    }
}

/// Out of descriptors or memory: the kernel keeps who waits until there are some again.
async fn pause(error: &io::Error) {
    tracing::warn!("accepting a connection: {error}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
