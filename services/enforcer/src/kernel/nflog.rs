//! Packets that the ruleset logged, as the kernel hands them over: read far enough to say who wanted to reach what.
//!
//! The packet is an agent's and hostile; only its first 128 bytes come here, and every one of them is read with a
//! bound. Decides nothing.

use std::net::IpAddr;
use std::time::Duration;

use nix::errno::Errno;

use super::netlink::{self, ACK, Datagram, Opening, Received, Subsystem, attribute};
use super::socket::{KernelError, Socket};

const PACKET: u8 = 0;
const CONFIG: u8 = 1;

const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_TIMEOUT: u16 = 4;
const CONFIG_THRESHOLD: u16 = 5;
const COMMAND_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;

const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// As in the ruleset's `snaplen`.
const COPIED: u32 = 128;

/// What a logged packet says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// As the rule wrote it.
    pub prefix: String,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// As in the IP header, or after the extension headers of IPv6.
    pub protocol: u8,
    /// None for a fragment and for what has no ports.
    pub ports: Option<(u16, u16)>,
}

#[derive(Debug)]
pub struct Reader {
    socket: Socket,
}

impl Reader {
    /// Binds the group; nobody else can have it then.
    pub fn bind(group: u16) -> Result<Self, KernelError> {
        let mut socket = Socket::open()?;
        let settings: [(u16, Vec<u8>); 4] = [
            (CONFIG_COMMAND, vec![COMMAND_BIND]),
            (CONFIG_MODE, mode()),
            // In hundredths of a second: an event is told soon, and a flood comes in few datagrams.
            (CONFIG_TIMEOUT, 10_u32.to_be_bytes().to_vec()),
            (CONFIG_THRESHOLD, 32_u32.to_be_bytes().to_vec()),
        ];
        for (kind, value) in settings {
            let sequence = socket.next_sequence();
            let opening = Opening::of(Subsystem::Log, CONFIG)
                .flags(ACK)
                .resource(group)
                .sequence(sequence);
            let mut datagram = Datagram::new();
            datagram.message(opening, |message| message.attribute(kind, &value));
            let doing = format!("reading the log group {group} of the kernel");
            socket.acknowledged(&datagram, sequence, sequence, &doing)?;
        }
        Ok(Self { socket })
    }

    /// Waits for the next packets, at most so long. The second value is true if the kernel had to drop some.
    pub fn next(&mut self, within: Duration) -> Result<(Vec<Logged>, bool), KernelError> {
        match self
            .socket
            .heard(within, "reading logged packets of the kernel")
        {
            Ok(bytes) => Ok((packets(bytes), false)),
            Err(error) if error.errno() == Some(Errno::ENOBUFS) => Ok((Vec::new(), true)),
            Err(error) => Err(error),
        }
    }
}

fn mode() -> Vec<u8> {
    let mut mode = COPIED.to_be_bytes().to_vec();
    mode.extend_from_slice(&[COPY_PACKET, 0]);
    mode
}

fn packets(datagram: &[u8]) -> Vec<Logged> {
    let kind_of_packet = (Subsystem::Log as u16) << 8 | u16::from(PACKET);
    netlink::messages(datagram)
        .filter_map(|received| match received {
            Received::Message {
                kind, attributes, ..
            } if kind == kind_of_packet => parse(attributes),
            _ => None,
        })
        .collect()
}

fn parse(message: &[u8]) -> Option<Logged> {
    let prefix = attribute(message, PREFIX).and_then(netlink::text)?;
    let payload = attribute(message, PAYLOAD)?;
    let header = ip(payload)?;
    Some(Logged {
        prefix: prefix.to_owned(),
        source: header.source,
        destination: header.destination,
        protocol: header.protocol,
        ports: header
            .transport
            .and_then(|bytes| ports(header.protocol, bytes)),
    })
}

struct Header<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// None for a fragment that is not the first.
    transport: Option<&'a [u8]>,
}

fn ip(packet: &[u8]) -> Option<Header<'_>> {
    match packet.first()? >> 4 {
        4 => ipv4(packet),
        6 => ipv6(packet),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<Header<'_>> {
    let length = usize::from(packet.first()? & 0x0f) * 4;
    let octets = |from: usize| <[u8; 4]>::try_from(packet.get(from..from + 4)?).ok();
    let fragment = netlink::be16(packet.get(6..8)?)? & 0x1fff;
    Some(Header {
        source: octets(12)?.into(),
        destination: octets(16)?.into(),
        protocol: *packet.get(9)?,
        transport: (fragment == 0).then(|| packet.get(length.max(20)..).unwrap_or_default()),
    })
}

fn ipv6(packet: &[u8]) -> Option<Header<'_>> {
    let octets = |from: usize| <[u8; 16]>::try_from(packet.get(from..from + 16)?).ok();
    let (source, destination) = (octets(8)?.into(), octets(24)?.into());
    let mut protocol = *packet.get(6)?;
    let mut rest = packet.get(40..)?;
    let mut transport = true;
    // Hop-by-hop, routing, fragment, destination options; no honest packet has more than one of each.
    for _ in 0..8 {
        let length = match protocol {
            0 | 43 | 60 => rest.get(1).map(|units| (usize::from(*units) + 1) * 8),
            44 => {
                let offset = rest.get(2..4).and_then(netlink::be16).unwrap_or(u16::MAX);
                transport &= offset & 0xfff8 == 0;
                Some(8)
            }
            _ => break,
        };
        let (Some(length), Some(next)) = (length, rest.first()) else {
            transport = false;
            break;
        };
        protocol = *next;
        rest = rest.get(length..).unwrap_or_default();
    }
    Some(Header {
        source,
        destination,
        protocol,
        transport: transport.then_some(rest),
    })
}

/// Of TCP, UDP, DCCP, SCTP and UDP-Lite: all begin with both ports.
fn ports(protocol: u8, transport: &[u8]) -> Option<(u16, u16)> {
    matches!(protocol, 6 | 17 | 33 | 132 | 136).then_some(())?;
    Some((
        netlink::be16(transport.get(..2)?)?,
        netlink::be16(transport.get(2..4)?)?,
    ))
}

/// How people call a protocol.
pub fn protocol_word(protocol: u8) -> String {
    match protocol {
        1 => "icmp".to_owned(),
        2 => "igmp".to_owned(),
        4 => "ipip".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        41 => "ipv6-in-ip".to_owned(),
        47 => "gre".to_owned(),
        50 => "esp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("ip-{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logged(payload: &[u8]) -> Option<Logged> {
        let mut datagram = Datagram::new();
        datagram.message(Opening::of(Subsystem::Log, PACKET), |message| {
            message.text(PREFIX, "3:not-allowlisted");
            message.attribute(PAYLOAD, payload);
        });
        packets(datagram.bytes()).pop()
    }

    fn v4(protocol: u8, fragment: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 192, 168, 10, 10, 192, 0, 2, 1]);
        packet.extend([0x9c, 0x40, 0x01, 0xbb]);
        packet
    }

    #[test]
    fn a_tcp_packet_says_who_and_where() {
        let packet = logged(&v4(6, 0x4000)).unwrap();
        assert_eq!(packet.prefix, "3:not-allowlisted");
        assert_eq!(packet.source.to_string(), "192.168.10.10");
        assert_eq!(packet.ports, Some((40_000, 443)));
        assert_eq!(logged(&v4(6, 8)).unwrap().ports, None, "a later fragment");
        assert_eq!(logged(&v4(1, 0)).unwrap().ports, None, "no ports in ICMP");
    }

    #[test]
    fn extension_headers_are_walked() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, 60, 64];
        packet.extend([0x20; 16]);
        packet.extend([0x26; 16]);
        packet.extend([44, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend([17, 0, 0, 1, 0, 0, 0, 1]);
        packet.extend([0, 53, 1, 187]);
        let seen = logged(&packet).unwrap();
        assert_eq!((seen.protocol, seen.ports), (17, Some((53, 443))));
    }

    proptest! {
        #[test]
        fn any_packet_is_survived(mut packet in proptest::collection::vec(any::<u8>(), 0..160), six in any::<bool>()) {
            if let Some(first) = packet.first_mut() {
                *first = *first & 0x0f | if six { 0x60 } else { 0x40 };
            }
            let _ = logged(&packet);
            let _ = super::packets(&packet);
        }
    }
}
