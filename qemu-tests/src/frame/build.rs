//! Builds frames from the outside in: Ethernet, IP, transport, each with its checksum.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{ARP, ICMPV6, IPV4, IPV6, Mac};

/// The two ends of an IP packet.
#[derive(Clone, Copy, Debug)]
pub enum Ip {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Ip {
    pub fn ethertype(&self) -> u16 {
        match self {
            Self::V4(..) => IPV4,
            Self::V6(..) => IPV6,
        }
    }

    /// A whole packet around a transport segment.
    pub fn packet(&self, protocol: u8, segment: &[u8]) -> Vec<u8> {
        match self {
            Self::V4(source, destination) => {
                let mut packet = ipv4_header(*source, *destination, protocol, segment.len(), 0);
                packet.extend_from_slice(segment);
                packet
            }
            Self::V6(source, destination) => {
                let mut packet = vec![0x60, 0, 0, 0];
                packet.extend_from_slice(&length16(segment.len()));
                // Neighbour discovery is only believed with the full hop limit.
                packet.extend_from_slice(&[protocol, 255]);
                packet.extend_from_slice(&source.octets());
                packet.extend_from_slice(&destination.octets());
                packet.extend_from_slice(segment);
                packet
            }
        }
    }

    pub(super) fn pseudo_header(&self, protocol: u8, length: usize) -> Vec<u8> {
        let mut header = Vec::with_capacity(40);
        match self {
            Self::V4(source, destination) => {
                header.extend_from_slice(&source.octets());
                header.extend_from_slice(&destination.octets());
                header.extend_from_slice(&[0, protocol]);
                header.extend_from_slice(&length16(length));
            }
            Self::V6(source, destination) => {
                header.extend_from_slice(&source.octets());
                header.extend_from_slice(&destination.octets());
                header.extend_from_slice(&[0, 0]);
                header.extend_from_slice(&length16(length));
                header.extend_from_slice(&[0, 0, 0, protocol]);
            }
        }
        header
    }
}

/// An IPv4 header; `fragment` is the flags and offset field as it stands in the packet.
pub fn ipv4_header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    payload: usize,
    fragment: u16,
) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&length16(payload + 20));
    header.extend_from_slice(&[0xc1, 0xa0]);
    header.extend_from_slice(&fragment.to_be_bytes());
    header.extend_from_slice(&[64, protocol, 0, 0]);
    header.extend_from_slice(&source.octets());
    header.extend_from_slice(&destination.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

pub fn ethernet(source: Mac, destination: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend_from_slice(&destination.0);
    frame.extend_from_slice(&source.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Who has `wanted`? Asked by broadcast.
pub fn arp_request(source: Mac, address: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
    body.extend_from_slice(&source.0);
    body.extend_from_slice(&address.octets());
    body.extend_from_slice(&[0; 6]);
    body.extend_from_slice(&wanted.octets());
    ethernet(source, Mac::BROADCAST, ARP, &body)
}

pub fn udp(ip: &Ip, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend_from_slice(&source.to_be_bytes());
    datagram.extend_from_slice(&destination.to_be_bytes());
    datagram.extend_from_slice(&length16(8 + payload.len()));
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(payload);
    let sum = match checksum(&[&ip.pseudo_header(super::UDP, datagram.len()), &datagram]) {
        // Zero means "no checksum" in UDP.
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// A TCP SYN that carries data.
pub fn tcp(ip: &Ip, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    const SYN: u8 = 2;
    let mut segment = Vec::with_capacity(20 + payload.len());
    segment.extend_from_slice(&source.to_be_bytes());
    segment.extend_from_slice(&destination.to_be_bytes());
    segment.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    segment.extend_from_slice(&[0x50, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend_from_slice(payload);
    let sum = checksum(&[&ip.pseudo_header(super::TCP, segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

pub fn icmpv4(kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0xc1, 0xa0, 0, 1];
    message.extend_from_slice(payload);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// `body` is what follows the checksum.
pub fn icmpv6(ip: &Ip, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(body);
    let sum = checksum(&[&ip.pseudo_header(ICMPV6, message.len()), &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The Internet checksum over parts of even length (the last may be odd).
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Frames here are far below 64 KiB.
fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}
