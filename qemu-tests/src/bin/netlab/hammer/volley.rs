//! One round of the attack: every kind of packet an agent could try, each with the marker in it. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use qemu_tests::frame::{
    ARP, GRE, ICMP, ICMPV6, IPV4, Ip, Mac, SCTP, TCP, UDP, arp_request, ethernet, icmpv4, icmpv6,
    ipv4_header, tcp, udp,
};

const PORTS: [u16; 10] = [21, 22, 25, 53, 80, 123, 443, 853, 3128, 8080];
const DNS: u16 = 53;

#[derive(clap::Args, Clone)]
pub(crate) struct Settings {
    #[arg(long)]
    pub(super) interface: String,
    /// Frames a second
    #[arg(long, default_value_t = 200)]
    pub(super) rate: u32,
    /// The agent's hardware address
    #[arg(long)]
    mac: Mac,
    /// The box's hardware address on this wire
    #[arg(long)]
    box_mac: Mac,
    #[arg(long)]
    address: Ipv4Addr,
    #[arg(long)]
    address6: Ipv6Addr,
    /// The box's addresses on this wire
    #[arg(long)]
    box_address: Ipv4Addr,
    #[arg(long)]
    box_address6: Ipv6Addr,
    /// Where the traffic wants to go
    #[arg(long)]
    target: Vec<Ipv4Addr>,
    #[arg(long)]
    target6: Vec<Ipv6Addr>,
    /// Source addresses that are not the agent's
    #[arg(long)]
    spoof: Vec<Ipv4Addr>,
    /// A word found in every frame; letters and digits, for it is used as a domain name too
    #[arg(long)]
    marker: String,
}

impl Settings {
    pub(super) fn volley(&self, round: u16) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.transports(round, &mut frames);
        self.name_queries(round, &mut frames);
        self.other_protocols(&mut frames);
        self.spoofed(round, &mut frames);
        self.fragments(&mut frames);
        self.everyone_on_the_wire(&mut frames);
        self.neighbours(&mut frames);
        frames
    }

    fn marker(&self) -> &[u8] {
        self.marker.as_bytes()
    }

    /// To the box's hardware address, whatever the destination address.
    fn through_box(&self, ip: &Ip, protocol: u8, segment: &[u8]) -> Vec<u8> {
        ethernet(
            self.mac,
            self.box_mac,
            ip.ethertype(),
            &ip.packet(protocol, segment),
        )
    }

    /// Every destination outside, and the box itself.
    fn destinations(&self) -> Vec<Ip> {
        let v4 = self.target.iter().chain([&self.box_address]);
        let v6 = self.target6.iter().chain([&self.box_address6]);
        v4.map(|to| Ip::V4(self.address, *to))
            .chain(v6.map(|to| Ip::V6(self.address6, *to)))
            .collect()
    }

    fn transports(&self, round: u16, frames: &mut Vec<Vec<u8>>) {
        let source = 20_000 + round % 20_000;
        for ip in self.destinations() {
            // One port of the well-known a round, and one that walks through all.
            let port = PORTS[usize::from(round) % PORTS.len()];
            for port in [port, round.wrapping_mul(7919).max(1)] {
                let syn = tcp(&ip, source, port, self.marker());
                frames.push(self.through_box(&ip, TCP, &syn));
                let datagram = udp(&ip, source, port, self.marker());
                frames.push(self.through_box(&ip, UDP, &datagram));
            }
            frames.push(self.echo_request(&ip));
        }
    }

    fn echo_request(&self, ip: &Ip) -> Vec<u8> {
        match ip {
            Ip::V4(..) => self.through_box(ip, ICMP, &icmpv4(8, 0, self.marker())),
            Ip::V6(..) => {
                let mut body = vec![0xc1, 0xa0, 0, 1];
                body.extend_from_slice(self.marker());
                self.through_box(ip, ICMPV6, &icmpv6(ip, 128, 0, &body))
            }
        }
    }

    /// The marker is the name asked for: a resolver that asks further carries it outside.
    fn name_queries(&self, round: u16, frames: &mut Vec<Vec<u8>>) {
        let mut query = round.to_be_bytes().to_vec();
        query.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in [self.marker.as_str(), "example", "com"] {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, 1, 0, 1]);
        for ip in self.destinations() {
            let datagram = udp(&ip, 30_000 + round % 20_000, DNS, &query);
            frames.push(self.through_box(&ip, UDP, &datagram));
        }
    }

    /// Tunnels and protocols that a filter of TCP and UDP alone forgets.
    fn other_protocols(&self, frames: &mut Vec<Vec<u8>>) {
        const IP_IN_IP: u8 = 4;
        const IPV6_IN_IP: u8 = 41;
        const ESP: u8 = 50;
        for ip in self.destinations() {
            let inner = ip.packet(UDP, &udp(&ip, 1, DNS, self.marker()));
            let mut gre = vec![0, 0];
            gre.extend_from_slice(&ip.ethertype().to_be_bytes());
            gre.extend_from_slice(&inner);
            frames.push(self.through_box(&ip, GRE, &gre));
            let tunnel = match ip {
                Ip::V4(..) => IP_IN_IP,
                Ip::V6(..) => IPV6_IN_IP,
            };
            frames.push(self.through_box(&ip, tunnel, &inner));
            // The checksum of an SCTP chunk or the key of ESP is the receiver's business, not a router's.
            let mut body = vec![0x4e, 0x20, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0];
            body.extend_from_slice(self.marker());
            frames.push(self.through_box(&ip, SCTP, &body));
            frames.push(self.through_box(&ip, ESP, &body));
        }
    }

    /// A foreign source: past a filter by address, or to have the box answer to somebody outside.
    fn spoofed(&self, round: u16, frames: &mut Vec<Vec<u8>>) {
        for spoof in &self.spoof {
            for target in self.target.iter().chain([&self.box_address]) {
                let ip = Ip::V4(*spoof, *target);
                let datagram = udp(&ip, 40_000, DNS, self.marker());
                frames.push(self.through_box(&ip, UDP, &datagram));
                let syn = tcp(&ip, 40_000 + round % 20_000, 443, self.marker());
                frames.push(self.through_box(&ip, TCP, &syn));
                frames.push(self.through_box(&ip, ICMP, &icmpv4(8, 0, self.marker())));
            }
        }
    }

    /// Two pieces of a datagram, the second without ports, and a piece that never gets its first.
    fn fragments(&self, frames: &mut Vec<Vec<u8>>) {
        const MORE: u16 = 0x2000;
        for target in &self.target {
            let ip = Ip::V4(self.address, *target);
            let mut payload = self.marker.repeat(8).into_bytes();
            payload.resize(payload.len().next_multiple_of(8), b'.');
            let datagram = udp(&ip, 50_000, DNS, &payload);
            let first_length = datagram.len() / 16 * 8;
            let (first, second) = datagram.split_at(first_length);
            let pieces = [
                (first, MORE),
                (second, (first_length / 8) as u16),
                (second, 0x100),
            ];
            for (piece, fragment) in pieces {
                let mut packet = ipv4_header(self.address, *target, UDP, piece.len(), fragment);
                packet.extend_from_slice(piece);
                frames.push(ethernet(self.mac, self.box_mac, IPV4, &packet));
            }
        }
    }

    /// Broadcast and multicast, which a bridge or a relay would repeat.
    fn everyone_on_the_wire(&self, frames: &mut Vec<Vec<u8>>) {
        let groups: [(Ipv4Addr, u16); 3] = [
            (Ipv4Addr::BROADCAST, 67),
            (Ipv4Addr::new(224, 0, 0, 251), 5353),
            (Ipv4Addr::new(239, 255, 255, 250), 1900),
        ];
        for (group, port) in groups {
            let ip = Ip::V4(self.address, group);
            let packet = ip.packet(UDP, &udp(&ip, port, port, self.marker()));
            frames.push(ethernet(self.mac, Mac::BROADCAST, IPV4, &packet));
        }
        let group: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
        let ip = Ip::V6(self.address6, group);
        let packet = ip.packet(UDP, &udp(&ip, 5353, 5353, self.marker()));
        let mac = Mac([0x33, 0x33, 0, 0, 0, 0xfb]);
        frames.push(ethernet(self.mac, mac, ip.ethertype(), &packet));
        for target in &self.target {
            let ip = Ip::V4(self.address, *target);
            let packet = ip.packet(UDP, &udp(&ip, 1, DNS, self.marker()));
            frames.push(ethernet(self.mac, Mac::BROADCAST, IPV4, &packet));
            // The same behind a VLAN tag.
            let mut tagged = vec![0, 7];
            tagged.extend_from_slice(&IPV4.to_be_bytes());
            tagged.extend_from_slice(&packet);
            frames.push(ethernet(self.mac, self.box_mac, 0x8100, &tagged));
        }
    }

    /// Address resolution: honest questions, and an agent that claims to be the router outside.
    fn neighbours(&self, frames: &mut Vec<Vec<u8>>) {
        const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        frames.push(arp_request(self.mac, self.address, self.box_address));
        for target in &self.target {
            let mut claim = arp_request(self.mac, *target, self.box_address);
            // An answer to nobody's question. The marker rides behind the ARP body.
            claim[20..22].copy_from_slice(&[0, 2]);
            claim.extend_from_slice(self.marker());
            debug_assert_eq!(claim[12..14], ARP.to_be_bytes());
            frames.push(claim);
        }
        let solicitation = |to: Ipv6Addr, mac: Mac, kind: u8, body: &[u8]| {
            let ip = Ip::V6(self.address6, to);
            let message = icmpv6(&ip, kind, 0, body);
            ethernet(self.mac, mac, ip.ethertype(), &ip.packet(ICMPV6, &message))
        };
        let mut wanted = vec![0; 4];
        wanted.extend_from_slice(&self.box_address6.octets());
        wanted.extend_from_slice(&[1, 1]);
        wanted.extend_from_slice(&self.mac.0);
        frames.push(solicitation(self.box_address6, self.box_mac, 135, &wanted));
        let routers = Mac([0x33, 0x33, 0, 0, 0, 2]);
        frames.push(solicitation(ALL_ROUTERS, routers, 133, &[0; 4]));
        // "I am the router, for half an hour": a box that believes it sends its own traffic to the agent.
        let mut advertisement = vec![64, 0];
        advertisement.extend_from_slice(&1800_u16.to_be_bytes());
        advertisement.extend_from_slice(&[0; 8]);
        let nodes = Mac([0x33, 0x33, 0, 0, 0, 1]);
        frames.push(solicitation(ALL_NODES, nodes, 134, &advertisement));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qemu_tests::frame::Frame;

    fn settings() -> Settings {
        Settings {
            interface: "agent".to_owned(),
            rate: 1,
            mac: "02:a9:00:00:00:01".parse().expect("a MAC"),
            box_mac: "02:b0:00:00:00:01".parse().expect("a MAC"),
            address: Ipv4Addr::new(10, 66, 0, 7),
            address6: "fd66::7".parse().expect("v6"),
            box_address: Ipv4Addr::new(10, 66, 0, 1),
            box_address6: "fd66::1".parse().expect("v6"),
            target: vec![
                Ipv4Addr::new(198, 51, 100, 80),
                Ipv4Addr::new(192, 0, 2, 53),
            ],
            target6: vec!["2001:db8:1::80".parse().expect("v6")],
            spoof: vec![Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::LOCALHOST],
            marker: "cgmarker42".to_owned(),
        }
    }

    #[test]
    fn every_frame_comes_from_the_agents_card_and_all_but_address_resolution_carry_the_marker() {
        let settings = settings();
        for bytes in settings.volley(3) {
            let frame = Frame::parse(&bytes).expect("a frame");
            assert_eq!(frame.source_mac, settings.mac);
            let resolution = frame.ethertype == ARP || matches!(frame.icmp_type, Some(133..=135));
            assert!(
                resolution || frame.contains(b"cgmarker42"),
                "{}",
                frame.describe()
            );
        }
    }

    #[test]
    fn a_round_has_every_kind() {
        let frames: Vec<Frame> = settings()
            .volley(0)
            .iter()
            .filter_map(|bytes| Frame::parse(bytes))
            .collect();
        for protocol in [TCP, UDP, ICMP, ICMPV6, GRE, SCTP, 4, 41, 50] {
            assert!(
                frames.iter().any(|frame| frame.protocol == Some(protocol)),
                "no protocol {protocol}"
            );
        }
        for ethertype in [ARP, IPV4, 0x86dd, 0x8100] {
            assert!(frames.iter().any(|frame| frame.ethertype == ethertype));
        }
    }

    #[test]
    fn rounds_walk_through_the_ports() {
        let mut ports = std::collections::BTreeSet::new();
        for round in 0..200 {
            for bytes in settings().volley(round) {
                ports.extend(Frame::parse(&bytes).and_then(|frame| frame.destination_port));
            }
        }
        assert!(ports.len() > 200, "{} ports", ports.len());
        assert!(PORTS.iter().all(|port| ports.contains(port)));
    }
}
