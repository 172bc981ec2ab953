//! The socket to clawgress-dns: packets of JSON, one message each. Opens it, admits the permitted user, reads and
//! writes messages whole.
//!
//! Decides nothing about what is said.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use clawgress_link::pins::{FromEnforcer, FromResolver, LONGEST_MESSAGE};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, recv, send,
    socket,
};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("listening on {}: {source}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("user {0} may not ask for pins; the configuration names who may")]
    Stranger(u32),
    #[error("the resolver closed the connection")]
    Closed,
    #[error("a message of {0} bytes; the longest is {LONGEST_MESSAGE}")]
    TooLong(usize),
    #[error("a message of the resolver makes no sense: {0}")]
    Nonsense(serde_json::Error),
    #[error("putting a message to the resolver into words: {0}")]
    Words(serde_json::Error),
    #[error("the resolver takes no more messages")]
    Stalled,
    #[error("talking to the resolver: {0}")]
    Io(#[from] io::Error),
}

/// Opens the socket, in place of what a dead process left there.
pub fn open(path: &Path) -> Result<UnixListener, ServerError> {
    let failed = |source: io::Error| ServerError::Listen {
        path: path.to_owned(),
        source,
    };
    let refused = |errno: Errno| failed(errno.into());
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(failed(error));
    }
    let descriptor = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .map_err(refused)?;
    let address = UnixAddr::new(path).map_err(refused)?;
    bind(descriptor.as_raw_fd(), &address).map_err(refused)?;
    listen(&descriptor, Backlog::new(8).map_err(refused)?).map_err(refused)?;
    UnixListener::from_std(descriptor.into()).map_err(failed)
}

/// The resolver's end.
#[derive(Debug)]
pub struct Client {
    /// Of packets, which to the runtime is all the same: whoever reads and writes here asks for whole ones.
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn admit(stream: UnixStream, permitted: &[u32]) -> Result<Self, ServerError> {
        let user = stream.peer_cred()?.uid();
        if !permitted.contains(&user) {
            return Err(ServerError::Stranger(user));
        }
        Ok(Self {
            stream,
            buffer: vec![0; LONGEST_MESSAGE],
        })
    }

    /// Waits for a message. Cancel safe.
    pub async fn receive(&mut self) -> Result<FromResolver, ServerError> {
        loop {
            self.stream.readable().await?;
            if let Some(message) = self.waiting()? {
                return Ok(message);
            }
        }
    }

    /// A message that has come already.
    pub fn waiting(&mut self) -> Result<Option<FromResolver>, ServerError> {
        let buffer = &mut self.buffer;
        let received = self.stream.try_io(Interest::READABLE, || {
            // MSG_TRUNC: the true length is told, also of what did not fit.
            Ok(recv(self.stream.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC)?)
        });
        let length = match received {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(0) => return Err(ServerError::Closed),
            Ok(length) => length,
        };
        let message = self.buffer.get(..length);
        let message = message.ok_or(ServerError::TooLong(length))?;
        serde_json::from_slice(message)
            .map(Some)
            .map_err(ServerError::Nonsense)
    }

    pub async fn send(&self, message: &FromEnforcer) -> Result<(), ServerError> {
        let bytes = serde_json::to_vec(message).map_err(ServerError::Words)?;
        if bytes.len() > LONGEST_MESSAGE {
            return Err(ServerError::TooLong(bytes.len()));
        }
        loop {
            self.stream.writable().await?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let flags = MsgFlags::MSG_NOSIGNAL;
                Ok(send(self.stream.as_raw_fd(), &bytes, flags)?)
            });
            match sent {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}
