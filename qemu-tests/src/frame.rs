//! Owns the building and the reading of Ethernet frames: enough of IPv4, IPv6, TCP, UDP and ICMP for the lab.
//! Pure; reading never trusts a length in the frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod build;
mod mac;

pub use build::{Ip, arp_request, ethernet, icmpv4, icmpv6, ipv4_header, tcp, udp};
pub use mac::Mac;

pub const ARP: u16 = 0x0806;
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const GRE: u8 = 47;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

/// What one frame says, as far as it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub source_mac: Mac,
    pub destination_mac: Mac,
    pub ethertype: u16,
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
    pub protocol: Option<u8>,
    /// Ports of TCP and UDP, or type and code of ICMP.
    pub source_port: Option<u16>,
    pub destination_port: Option<u16>,
    pub icmp_type: Option<u8>,
    pub bytes: Vec<u8>,
}

impl Frame {
    /// `None` if it is too short to be an Ethernet frame.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut frame = Self {
            destination_mac: Mac(array(bytes, 0)?),
            source_mac: Mac(array(bytes, 6)?),
            ethertype: u16::from_be_bytes(array(bytes, 12)?),
            source: None,
            destination: None,
            protocol: None,
            source_port: None,
            destination_port: None,
            icmp_type: None,
            bytes: bytes.to_vec(),
        };
        // Half a header still tells what it tells.
        let _ = match frame.ethertype {
            IPV4 => frame.read_ipv4(bytes.get(14..)?),
            IPV6 => frame.read_ipv6(bytes.get(14..)?),
            _ => Some(()),
        };
        Some(frame)
    }

    fn read_ipv4(&mut self, packet: &[u8]) -> Option<()> {
        self.source = Some(Ipv4Addr::from(array::<4>(packet, 12)?).into());
        self.destination = Some(Ipv4Addr::from(array::<4>(packet, 16)?).into());
        self.protocol = Some(packet[9]);
        let header = usize::from(packet[0] & 15) * 4;
        let fragment_offset = u16::from_be_bytes(array(packet, 6)?) & 0x1fff;
        if fragment_offset == 0 {
            self.read_transport(packet.get(header..)?)?;
        }
        Some(())
    }

    fn read_ipv6(&mut self, packet: &[u8]) -> Option<()> {
        self.source = Some(Ipv6Addr::from(array::<16>(packet, 8)?).into());
        self.destination = Some(Ipv6Addr::from(array::<16>(packet, 24)?).into());
        let mut next = packet[6];
        let mut rest = packet.get(40..)?;
        // Hop-by-hop, routing, fragment and destination options come before the transport header.
        while matches!(next, 0 | 43 | 44 | 60) {
            let length = if next == 44 {
                8
            } else {
                8 + usize::from(*rest.get(1)?) * 8
            };
            next = *rest.first()?;
            rest = rest.get(length..)?;
        }
        self.protocol = Some(next);
        self.read_transport(rest)
    }

    fn read_transport(&mut self, segment: &[u8]) -> Option<()> {
        match self.protocol? {
            TCP | UDP => {
                self.source_port = Some(u16::from_be_bytes(array(segment, 0)?));
                self.destination_port = Some(u16::from_be_bytes(array(segment, 2)?));
            }
            ICMP | ICMPV6 => self.icmp_type = Some(*segment.first()?),
            _ => {}
        }
        Some(())
    }

    /// Does the frame carry these bytes anywhere?
    pub fn contains(&self, marker: &[u8]) -> bool {
        self.bytes
            .windows(marker.len())
            .any(|window| window == marker)
    }

    /// One line for a person.
    pub fn describe(&self) -> String {
        let address = |address: Option<IpAddr>, port: Option<u16>| match (address, port) {
            (Some(address), Some(port)) => format!("{address} port {port}"),
            (Some(address), None) => address.to_string(),
            _ => "-".to_owned(),
        };
        format!(
            "{} > {} type {:04x} {} > {} protocol {:?} icmp {:?}, {} bytes",
            self.source_mac,
            self.destination_mac,
            self.ethertype,
            address(self.source, self.source_port),
            address(self.destination, self.destination_port),
            self.protocol,
            self.icmp_type,
            self.bytes.len()
        )
    }
}

fn array<const LENGTH: usize>(bytes: &[u8], at: usize) -> Option<[u8; LENGTH]> {
    bytes.get(at..at + LENGTH)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const BOX: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn what_is_built_is_read_back() {
        let ip = Ip::V4(
            "10.0.0.7".parse().expect("v4"),
            "1.2.3.4".parse().expect("v4"),
        );
        let bytes = ethernet(
            AGENT,
            BOX,
            IPV4,
            &ip.packet(UDP, &udp(&ip, 5000, 53, b"marker")),
        );
        let frame = Frame::parse(&bytes).expect("a frame");
        assert_eq!(frame.source_mac, AGENT);
        assert_eq!(frame.source, Some("10.0.0.7".parse().expect("v4")));
        assert_eq!(
            (frame.protocol, frame.destination_port),
            (Some(UDP), Some(53))
        );
        assert!(frame.contains(b"marker"));
        assert!(!frame.contains(b"other marker"));
    }

    #[test]
    fn ipv6_behind_extension_headers_is_read() {
        let ip = Ip::V6(
            "2001:db8::1".parse().expect("v6"),
            "2001:db8::2".parse().expect("v6"),
        );
        let mut payload = vec![TCP, 0, 1, 4, 0, 0, 0, 0];
        payload.extend(tcp(&ip, 1, 443, b""));
        let frame = Frame::parse(&ethernet(AGENT, BOX, IPV6, &ip.packet(60, &payload)));
        let frame = frame.expect("a frame");
        assert_eq!(
            (frame.protocol, frame.destination_port),
            (Some(TCP), Some(443))
        );
    }

    #[test]
    fn checksums_are_right() {
        // An all-ones complement sum over a packet with its checksum is zero.
        let ip = Ip::V4(
            "10.0.0.7".parse().expect("v4"),
            "1.2.3.4".parse().expect("v4"),
        );
        let packet = ip.packet(ICMP, &icmpv4(8, 0, b"odd"));
        assert_eq!(build::checksum(&[&packet[..20]]), 0);
        assert_eq!(build::checksum(&[&packet[20..]]), 0);
        let datagram = udp(&ip, 1, 2, b"payload");
        let pseudo = ip.pseudo_header(UDP, datagram.len());
        assert_eq!(build::checksum(&[&pseudo, &datagram]), 0);
    }

    #[test]
    fn junk_is_no_panic() {
        for length in 0..60 {
            for fill in [0_u8, 0x45, 0xff] {
                let mut bytes = vec![fill; length];
                for ethertype in [IPV4, IPV6] {
                    if length >= 14 {
                        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
                    }
                    assert_eq!(Frame::parse(&bytes).is_some(), length >= 14);
                }
            }
        }
    }
}
