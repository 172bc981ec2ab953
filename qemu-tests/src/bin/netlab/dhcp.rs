//! A DHCP server of one lease: the same address for whoever asks. Answers by broadcast.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::Context;
use nix::sys::socket::{setsockopt, sockopt};

const MAGIC: [u8; 4] = [99, 130, 83, 99];
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACKNOWLEDGE: u8 = 5;

pub(crate) struct Server {
    socket: UdpSocket,
    offer: Lease,
}

#[derive(Clone, Copy)]
struct Lease {
    server: Ipv4Addr,
    address: Ipv4Addr,
}

impl Server {
    pub(crate) fn open(
        interface: &str,
        server: Ipv4Addr,
        address: Ipv4Addr,
    ) -> anyhow::Result<Self> {
        let doing = || format!("opening the DHCP server's port on {interface}");
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).with_context(doing)?;
        socket.set_broadcast(true).with_context(doing)?;
        setsockopt(&socket, sockopt::BindToDevice, &interface.into()).with_context(doing)?;
        Ok(Self {
            socket,
            offer: Lease { server, address },
        })
    }

    pub(crate) fn serve_in_thread(self) {
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, _)) = self.socket.recv_from(&mut buffer) {
                if let Some(reply) = answer(&buffer[..length], self.offer) {
                    // A lost reply is asked for again by the client.
                    let _ = self.socket.send_to(&reply, (Ipv4Addr::BROADCAST, 68));
                }
            }
        });
    }
}

/// The reply to a request, if it deserves one.
fn answer(request: &[u8], lease: Lease) -> Option<Vec<u8>> {
    if request.len() < 240 || request[0] != 1 || request[236..240] != MAGIC {
        return None;
    }
    let kind = match *option(&request[240..], 53)?.first()? {
        DISCOVER => OFFER,
        REQUEST => ACKNOWLEDGE,
        _ => return None,
    };
    let mut reply = request[..240].to_vec();
    reply[0] = 2;
    reply[16..20].copy_from_slice(&lease.address.octets());
    reply[20..24].copy_from_slice(&lease.server.octets());
    // Server name and boot file may not be sent back as they came.
    reply[44..236].fill(0);
    let server = lease.server.octets();
    let mut add = |code: u8, value: &[u8]| {
        reply.extend_from_slice(&[code, value.len() as u8]);
        reply.extend_from_slice(value);
    };
    add(53, &[kind]);
    add(54, &server);
    add(51, &3600_u32.to_be_bytes());
    add(1, &[255, 255, 255, 0]);
    for code in [3, 6, 42] {
        add(code, &server);
    }
    reply.push(255);
    Some(reply)
}

/// The value of one option.
fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match *options.first()? {
            0 => options = &options[1..],
            255 => return None,
            code => {
                let length = usize::from(*options.get(1)?);
                let value = options.get(2..2 + length)?;
                if code == wanted {
                    return Some(value);
                }
                options = &options[2 + length..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Lease = Lease {
        server: Ipv4Addr::new(203, 0, 113, 1),
        address: Ipv4Addr::new(203, 0, 113, 10),
    };

    fn request(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes[0] = 1;
        bytes[4..8].copy_from_slice(b"xid!");
        bytes[236..240].copy_from_slice(&MAGIC);
        bytes.extend_from_slice(&[0, 61, 1, 9, 53, 1, kind, 255]);
        bytes
    }

    #[test]
    fn discover_is_offered_and_request_acknowledged() {
        for (kind, expected) in [(DISCOVER, OFFER), (REQUEST, ACKNOWLEDGE)] {
            let reply = answer(&request(kind), LEASE).expect("a reply");
            assert_eq!(&reply[4..8], b"xid!");
            assert_eq!(reply[16..20], LEASE.address.octets());
            assert_eq!(option(&reply[240..], 53), Some(&[expected][..]));
            assert_eq!(option(&reply[240..], 3), Some(&LEASE.server.octets()[..]));
        }
    }

    #[test]
    fn releases_and_junk_get_no_answer() {
        assert!(answer(&request(7), LEASE).is_none());
        let whole = request(DISCOVER);
        for length in 0..whole.len() - 1 {
            assert!(answer(&whole[..length], LEASE).is_none(), "{length} bytes");
        }
    }
}
