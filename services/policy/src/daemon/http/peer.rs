//! Who is at the other end: somebody on the network, told by the front, or somebody on this box, told by the kernel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{extract::connect_info::Connected, http::HeaderMap, serve::IncomingStream};
use tokio::net::{TcpListener, UnixListener};

/// What the connection itself says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Network(SocketAddr),
    /// None: the kernel did not say; then it is nobody.
    Console(Option<u32>),
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self::Network(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred();
        Self::Console(credentials.ok().map(|credentials| credentials.uid()))
    }
}

impl Peer {
    /// Where a call comes from. Only the front reaches this service's port (beside root, the ruleset lets no other user
    /// of the box begin to speak to it), and it replaces what its caller says of himself.
    pub(crate) fn source(self, headers: &HeaderMap) -> IpAddr {
        let Self::Network(address) = self else {
            return Ipv4Addr::LOCALHOST.into();
        };
        let told = headers
            .get("x-forwarded-for")
            .and_then(|value| value.to_str().ok()?.trim().parse::<IpAddr>().ok());
        told.unwrap_or(address.ip()).to_canonical()
    }
}
