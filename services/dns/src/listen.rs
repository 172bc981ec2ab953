//! The doors: sockets for agents and for the TLS front, over UDP and TCP. What comes in goes to the engine.

mod stream;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use tokio::net::{TcpListener, UdpSocket};

pub use stream::{Limits as StreamLimits, Streams};

use crate::engine::{Asker, Engine};

/// Room for bursts; the kernel's own bound may be lower.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Who is behind a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Agents,
    Front,
}

impl Door {
    fn asker(self, source: IpAddr) -> Asker {
        match self {
            Self::Agents => Asker::Agent(source.to_canonical()),
            Self::Front => Asker::Front,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("listening on {address} ({doing}): {source}; is another resolver running?")]
pub struct ListenError {
    address: SocketAddr,
    doing: &'static str,
    source: std::io::Error,
}

/// An address with both of its sockets, bound and not served yet.
#[derive(Debug)]
pub struct Bound {
    udp: UdpSocket,
    tcp: TcpListener,
    door: Door,
}

impl Bound {
    pub fn at(address: SocketAddr, door: Door) -> Result<Self, ListenError> {
        let failed = |doing: &'static str| {
            move |source: std::io::Error| ListenError {
                address,
                doing,
                source,
            }
        };
        let udp = open(address, SockType::Datagram).map_err(failed("UDP"))?;
        let tcp = open(address, SockType::Stream).map_err(failed("TCP"))?;
        Ok(Self {
            udp: UdpSocket::from_std(udp.into()).map_err(failed("UDP"))?,
            tcp: TcpListener::from_std(tcp.into()).map_err(failed("TCP"))?,
            door,
        })
    }

    /// Where it is bound, for tests that let the kernel choose.
    pub fn udp_address(&self) -> std::io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    pub fn tcp_address(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until the runtime ends.
    pub fn serve(self, engine: &Arc<Engine>, streams: &Arc<Streams>) {
        let Self { udp, tcp, door } = self;
        tokio::spawn(udp::serve(Arc::new(udp), Arc::clone(engine), door));
        tokio::spawn(stream::serve(
            tcp,
            Arc::clone(engine),
            Arc::clone(streams),
            door,
        ));
    }
}

fn open(address: SocketAddr, kind: SockType) -> std::io::Result<std::os::fd::OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, kind, flags, None)?;
    if address.is_ipv6() {
        // The other family has a socket of its own.
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if kind == SockType::Datagram {
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        // Answers leave from the address that the question came to, of which a card may have several.
        if address.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
    } else {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    if kind == SockType::Stream {
        listen(&socket, Backlog::new(256)?)?;
    }
    Ok(socket)
}
