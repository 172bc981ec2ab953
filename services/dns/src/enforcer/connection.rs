//! One SOCK_SEQPACKET connection: a message is a packet, a packet is a JSON document.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use clawgress_link::pins::{FromEnforcer, FromResolver, LONGEST_MESSAGE};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("connecting to the enforcer at {}: {source}", path.display())]
    Connect { path: PathBuf, source: Errno },
    #[error("watching the enforcer's socket: {0}")]
    Watch(std::io::Error),
    #[error("the enforcer closed the connection")]
    Closed,
    #[error("it takes no more messages")]
    Stalled,
    #[error("sending to the enforcer: {0}")]
    Send(std::io::Error),
    #[error("receiving from the enforcer: {0}")]
    Receive(std::io::Error),
    #[error("a message of the enforcer is longer than {LONGEST_MESSAGE} bytes")]
    TooLong,
    #[error("a message of the enforcer makes no sense: {0}")]
    Nonsense(serde_json::Error),
    #[error("putting a message to the enforcer into words: {0}")]
    Words(serde_json::Error),
}

#[derive(Debug)]
pub struct Connection {
    /// Of packets, which to the runtime is all the same: whoever reads and writes here asks for whole ones.
    socket: UnixStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub fn to(path: &Path) -> Result<Self, ConnectionError> {
        let connecting = |source| ConnectionError::Connect {
            path: path.to_owned(),
            source,
        };
        let socket = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
        .map_err(connecting)?;
        let address = UnixAddr::new(path).map_err(connecting)?;
        connect(socket.as_raw_fd(), &address).map_err(connecting)?;
        let socket = UnixStream::from_std(socket.into()).map_err(ConnectionError::Watch)?;
        Ok(Self {
            socket,
            buffer: vec![0; LONGEST_MESSAGE],
        })
    }

    /// Cancel safe.
    pub async fn receive(&mut self) -> Result<FromEnforcer, ConnectionError> {
        let length = loop {
            self.socket
                .readable()
                .await
                .map_err(ConnectionError::Receive)?;
            let buffer = &mut self.buffer;
            let received = self.socket.try_io(Interest::READABLE, || {
                // MSG_TRUNC: the true length is told, also of what did not fit.
                Ok(recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC)?)
            });
            match received {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(ConnectionError::Receive(error)),
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(length) => break length,
            }
        };
        let message = self.buffer.get(..length).ok_or(ConnectionError::TooLong)?;
        serde_json::from_slice(message).map_err(ConnectionError::Nonsense)
    }

    pub async fn send(&self, message: &FromResolver) -> Result<(), ConnectionError> {
        let bytes = serde_json::to_vec(message).map_err(ConnectionError::Words)?;
        loop {
            self.socket
                .writable()
                .await
                .map_err(ConnectionError::Send)?;
            let sent = self.socket.try_io(Interest::WRITABLE, || {
                Ok(send(
                    self.socket.as_raw_fd(),
                    &bytes,
                    MsgFlags::MSG_NOSIGNAL,
                )?)
            });
            match sent {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(ConnectionError::Send(error)),
                Ok(_) => return Ok(()),
            }
        }
    }
}
