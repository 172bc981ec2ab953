//! Ends TCP connections of this box, exactly one at a time: both of its ends see a reset, whichever process has it.
//!
//! Only connections that were accepted on a given local port can be named.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;

use super::netlink::{ACK, DUMP, Datagram, REQUEST, be16};
use super::sets::address_of;
use super::socket::{KernelError, Socket};

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const TCP: u8 = 6;
const INET: u8 = 2;
const INET6: u8 = 10;
/// All but LISTEN and TIME_WAIT: nobody speaks in those.
const STATES: u32 = !(1 << 10 | 1 << 6);

/// Where the parts of an `inet_diag_msg` are: family, state, timer, retransmits, then the socket's id.
const ID: usize = 4;
/// Local port, remote port, local address, remote address, interface, cookie.
const ID_LENGTH: usize = 48;

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// So many connections.
    Count(usize),
    /// This kernel can't.
    Unsupported,
}

/// Ends every connection accepted on `port` whose other end is one of these.
pub fn end(
    socket: &mut Socket,
    port: u16,
    peers: &HashSet<SocketAddr, impl BuildHasher>,
) -> Result<Ended, KernelError> {
    let mut count = 0;
    for family in [INET, INET6] {
        for id in connections(socket, family, port, |peer| peers.contains(peer))? {
            match destroy(socket, family, &id) {
                Ok(()) => count += 1,
                // Gone by itself.
                Err(error) if error.is_missing() => {}
                Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                    return Ok(Ended::Unsupported);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Ended::Count(count))
}

/// The other ends of all connections accepted on `port`.
pub fn peers(socket: &mut Socket, port: u16) -> Result<HashSet<SocketAddr>, KernelError> {
    let mut all = HashSet::new();
    for family in [INET, INET6] {
        let found = connections(socket, family, port, |_| true)?;
        all.extend(found.iter().filter_map(|id| Some(ends(family, id)?.1)));
    }
    Ok(all)
}

/// The ids, as the kernel wants them back.
fn connections(
    socket: &mut Socket,
    family: u8,
    port: u16,
    wanted: impl Fn(&SocketAddr) -> bool,
) -> Result<Vec<Vec<u8>>, KernelError> {
    let mut found = Vec::new();
    socket.dump_whole(
        "listing the connections of this box",
        |sequence| {
            let mut datagram = Datagram::new();
            let body = request(family, &[0; ID_LENGTH]);
            datagram.foreign(BY_FAMILY, REQUEST | DUMP, sequence, &body);
            datagram
        },
        |message| match message {
            None => found.clear(),
            Some(body) => {
                let id = body.get(ID..ID + ID_LENGTH).unwrap_or_default();
                if let Some((local_port, peer)) = ends(family, id)
                    && local_port == port
                    && wanted(&peer)
                {
                    found.push(id.to_vec());
                }
            }
        },
    )?;
    Ok(found)
}

fn destroy(socket: &mut Socket, family: u8, id: &[u8]) -> Result<(), KernelError> {
    let sequence = socket.next_sequence();
    let mut datagram = Datagram::new();
    datagram.foreign(DESTROY, REQUEST | ACK, sequence, &request(family, id));
    socket.acknowledged(&datagram, sequence, sequence, "ending a connection")
}

/// An `inet_diag_req_v2`.
fn request(family: u8, id: &[u8]) -> Vec<u8> {
    let mut body = vec![family, TCP, 0, 0];
    body.extend_from_slice(&STATES.to_ne_bytes());
    body.extend_from_slice(id);
    body
}

/// Local port and other end. An IPv4 connection of an IPv6 socket counts as what it is.
fn ends(family: u8, id: &[u8]) -> Option<(u16, SocketAddr)> {
    let local_port = be16(id.get(..2)?)?;
    let remote_port = be16(id.get(2..4)?)?;
    let remote = id.get(20..36)?;
    let address = if family == INET {
        address_of(remote.get(..4)?)?
    } else {
        match address_of(remote)? {
            IpAddr::V6(v6) => v6.to_canonical(),
            v4 @ IpAddr::V4(_) => v4,
        }
    };
    Some((local_port, SocketAddr::new(address, remote_port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn ends_are_read_from_an_id() {
        let mut id = vec![0x28, 0xcb, 0x9c, 0x40];
        id.extend([10, 0, 0, 1]);
        id.extend([0; 12]);
        id.extend([192, 168, 10, 10]);
        id.extend([0; 24]);
        assert_eq!(id.len(), ID_LENGTH);
        let peer = "192.168.10.10:40000".parse().unwrap();
        assert_eq!(ends(INET, &id), Some((10_443, peer)));
        assert_eq!(ends(INET, &id[..20]), None);
    }

    #[test]
    fn connections_of_others_are_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut kept = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_held, _) = listener.accept().unwrap();
        kept.set_read_timeout(Some(std::time::Duration::from_millis(50)))
            .unwrap();
        let mut socket = Socket::to_sockets().unwrap();
        let nobody = HashSet::from(["192.0.2.1:1".parse().unwrap()]);
        assert_eq!(end(&mut socket, port, &nobody).unwrap(), Ended::Count(0));
        let error = kept.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}
