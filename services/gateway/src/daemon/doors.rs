//! Listening sockets that outlive this process: the service manager keeps each of them, and gives them to the next process,
//! so that an agent that connects in between waits a moment and is never refused.
//!
//! Whoever adopts a socket believes its address from the kernel alone, never the name that it was kept under.

#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrStorage, UnixAddr, getsockname, getsockopt, sendmsg, sockopt,
};

use crate::listen::{self, ListenError};

/// How many sockets the parent handed over; they follow the three standard ones.
pub const HANDED_OVER: &str = "CLAWGRESS_GATEWAY_SOCKETS";
const FIRST: RawFd = 3;
const MOST: RawFd = 1024;

/// Sockets of the process before, until they are asked for.
#[derive(Debug, Default)]
pub struct Inherited(Mutex<Vec<(SocketAddr, OwnedFd)>>);

impl Inherited {
    /// Takes what the parent handed over. To be called once, before anything else opens a descriptor.
    pub fn take() -> Self {
        let count = std::env::var(HANDED_OVER).ok();
        let count: RawFd = count.and_then(|count| count.parse().ok()).unwrap_or(0);
        let mut sockets = Vec::new();
        for fd in FIRST..FIRST + count.clamp(0, MOST) {
            // SAFETY: the parent, which set the variable, left these descriptors open for this process alone, and nothing
            // here has opened or owned one before.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            if let Some(address) = listening_at(&fd) {
                sockets.push((address, fd));
            } else {
                tracing::warn!("descriptor {} is no listening socket", fd.as_raw_fd());
            }
        }
        Self(Mutex::new(sockets))
    }

    /// One socket for this address: of the process before, or a new one, which the service manager keeps from now on.
    pub fn open(&self, address: SocketAddr) -> Result<OwnedFd, ListenError> {
        let mut sockets = self.sockets();
        if let Some(at) = sockets.iter().position(|(at, _)| *at == address) {
            return Ok(sockets.swap_remove(at).1);
        }
        drop(sockets);
        let fd = listen::open(address)?;
        keep(address, &fd);
        Ok(fd)
    }

    /// Closes what nobody has asked for.
    pub fn forget_rest(&self) {
        for (address, _) in self.sockets().drain(..) {
            forget(address);
        }
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<(SocketAddr, OwnedFd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listening_at(fd: &OwnedFd) -> Option<SocketAddr> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    if !getsockopt(fd, sockopt::AcceptConn).ok()? {
        return None;
    }
    let address: SockaddrStorage = getsockname(fd.as_raw_fd()).ok()?;
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(four), _) => Some(SocketAddr::V4((*four).into())),
        (_, Some(six)) => Some(SocketAddr::V6((*six).into())),
        _ => None,
    }
}

/// No colon may be in it.
fn name_of(address: SocketAddr) -> String {
    format!("door-{address}").replace(':', "_")
}

fn keep(address: SocketAddr, fd: &OwnedFd) {
    let text = format!("FDSTORE=1\nFDNAME={}", name_of(address));
    if let Err(error) = tell_manager(&text, Some(fd)) {
        tracing::warn!(
            "handing the socket of {address} to the service manager: {error}; a restart will refuse agents for a moment"
        );
    }
}

/// From now on nobody listens there.
pub fn forget(address: SocketAddr) {
    let text = format!("FDSTOREREMOVE=1\nFDNAME={}", name_of(address));
    if let Err(error) = tell_manager(&text, None) {
        tracing::warn!("taking the socket of {address} back from the service manager: {error}");
    }
}

/// One datagram. Without a manager there is nobody to tell.
fn tell_manager(text: &str, fd: Option<&OwnedFd>) -> io::Result<()> {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match place.as_encoded_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        path => UnixAddr::new(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    let raw: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
    let with = [ControlMessage::ScmRights(&raw)];
    let with = if raw.is_empty() { &[] } else { with.as_slice() };
    let bytes = [io::IoSlice::new(text.as_bytes())];
    sendmsg(
        socket.as_raw_fd(),
        &bytes,
        with,
        MsgFlags::MSG_NOSIGNAL,
        Some(&address),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_known_by_what_the_kernel_says() {
        let fd = listen::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listening_at(&fd).unwrap();
        assert!(address.ip().is_loopback() && address.port() != 0);
        let bare = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::empty(),
            None,
        );
        assert_eq!(listening_at(&bare.unwrap()), None);
        assert_eq!(name_of("[::1]:3128".parse().unwrap()), "door-[__1]_3128");
    }

    #[test]
    fn a_kept_socket_is_used_again_and_the_rest_is_closed() {
        let first = listen::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listening_at(&first).unwrap();
        let raw = first.as_raw_fd();
        let other = listen::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let inherited = Inherited(Mutex::new(vec![
            (address, first),
            (listening_at(&other).unwrap(), other),
        ]));
        assert_eq!(inherited.open(address).unwrap().as_raw_fd(), raw);
        inherited.forget_rest();
        assert!(inherited.sockets().is_empty());
    }
}
