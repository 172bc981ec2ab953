//! Packets that no honest machine sends: options, pieces, nonsense, other people's addresses; and ICMP errors, of which
//! only those of allowed flows may pass.

use std::net::{Ipv4Addr, Ipv6Addr};

use clawgress_policy::Reason;
use qemu_tests::agent::BOX_LAN_MAC;
use qemu_tests::frame::{
    Frame, ICMP, ICMPV6, IPV4, Ip, Mac, TCP, UDP, ethernet, icmpv4, ipv4_header, tcp, udp,
};
use qemu_tests::{Case, Result, case, require};

use crate::gateway::{NFT, need};
use crate::plan::{IP, Planned, carry, inject, pin};

const AGENT: Mac = Mac([2, 0xa9, 0, 0, 0, 7]);
const INTRUDER: Mac = Mac([2, 0xa9, 0, 0, 0, 0x66]);
const FROM: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 7);
const FROM6: Ipv6Addr = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 7);
const SITE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
const SITE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x99);
const MARKER: &[u8] = b"a payload that is told from all others";
const MORE: u16 = 0x2000;

const POLICY: &str = r#"{"version": 2,
    "allow": {"domains": ["everybody.example"]},
    "hosts": {"agent-1": {"sources": ["10.66.0.7/32", "fd66::7/128"],
        "allow": {"domains": ["pinned.example"],
            "ports": [443, {"port": 4433, "protocol": "udp"}]}}}}"#;

fn planned() -> Result<Planned> {
    let box_ = Planned::new()?;
    let pins = [pin(
        "agent-1",
        "pinned.example",
        &[&SITE.to_string(), &SITE6.to_string()],
    )];
    box_.enforce(POLICY, 7, carry(&pins))?;
    Ok(box_)
}

fn to_box(packet: &[u8], ethertype: u16) -> Vec<u8> {
    ethernet(AGENT, BOX_LAN_MAC, ethertype, packet)
}

/// The frames outside that carry the marker while these frames are sent by the agent.
fn came_out(case: &Case, box_: &Planned, frames: &[Vec<u8>]) -> Result<Vec<Frame>> {
    let gateway = &box_.gateway;
    // Whoever asks first for a neighbour's address loses the packet that asked.
    let _ = gateway.agent.host.dial("198.51.100.99:443");
    let out = gateway.outside_while(case, || inject(&gateway.agent.host, frames))?;
    Ok(out
        .into_iter()
        .filter(|frame| frame.contains(&MARKER[..16]) || frame.contains(&MARKER[16..]))
        .collect())
}

/// Pieces of one datagram, told from those of others by `number`.
fn pieces(
    number: u16,
    datagram: &[u8],
    cuts: &[(usize, usize, bool)],
    to: Ipv4Addr,
) -> Vec<Vec<u8>> {
    cuts.iter()
        .map(|(from, until, more)| {
            let piece = &datagram[*from..*until];
            let fragment = (*from / 8) as u16 | if *more { MORE } else { 0 };
            let mut packet = ipv4_header(FROM, to, UDP, piece.len(), fragment);
            change_word(&mut packet, 4, number, 10);
            packet.extend_from_slice(piece);
            to_box(&packet, IPV4)
        })
        .collect()
}

/// Changes one word and lets the checksum follow by the difference (RFC 1624).
fn change_word(bytes: &mut [u8], at: usize, to: u16, checksum_at: usize) {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let sum = u32::from(!word(checksum_at)) + u32::from(!word(at)) + u32::from(to);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[at..at + 2].copy_from_slice(&to.to_be_bytes());
    bytes[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn a_datagram_in_pieces_gets_the_verdict_of_a_whole_one() {
    case("net-plan-fragments", |case| {
        need(&[NFT, IP])?;
        let box_ = planned()?;
        let datagram =
            |to: Ipv4Addr, port: u16| udp(&Ip::V4(FROM, to), 5000, port, &MARKER.repeat(3));
        let whole = datagram(SITE, 4433);
        let end = whole.len();
        let number = std::cell::Cell::new(100);
        let next = || {
            number.set(number.get() + 1);
            number.get()
        };
        let in_order: Vec<(usize, usize, bool)> =
            vec![(0, 24, true), (24, 72, true), (72, end, false)];
        let backwards: Vec<(usize, usize, bool)> = in_order.iter().rev().copied().collect();
        for (what, cuts) in [("in order", &in_order), ("backwards", &backwards)] {
            case.check(&format!("allowed, {what}"), || {
                let out = came_out(case, &box_, &pieces(next(), &whole, cuts, SITE))?;
                require!(!out.is_empty(), "nothing came out");
                Ok(())
            });
            for (why, to, port) in [
                ("another address", Ipv4Addr::new(198, 51, 100, 98), 4433),
                ("another port", SITE, 4434),
                ("TCP's port", SITE, 443),
            ] {
                case.check(&format!("{why}, {what}"), || {
                    let out =
                        came_out(case, &box_, &pieces(next(), &datagram(to, port), cuts, to))?;
                    require!(out.is_empty(), "a piece got out: {}", out[0].describe());
                    Ok(())
                });
            }
        }
        for (what, cuts) in [
            (
                "overlapping pieces",
                vec![(0, 48, true), (24, 72, true), (72, end, false)],
            ),
            // The second one would overwrite the ports of the first.
            (
                "a piece over the header",
                vec![
                    (0, 24, true),
                    (0, 24, true),
                    (8, 32, true),
                    (32, end, false),
                ],
            ),
            ("no first piece", vec![(24, 72, true), (72, end, false)]),
            ("no last piece", vec![(0, 24, true), (24, 72, true)]),
        ] {
            case.check(what, || {
                let out = came_out(case, &box_, &pieces(next(), &whole, &cuts, SITE))?;
                require!(out.is_empty(), "a piece got out: {}", out[0].describe());
                Ok(())
            });
        }
        Ok(())
    });
}

fn with_options(options: &[u8], to: Ipv4Addr) -> Vec<u8> {
    let segment = udp(&Ip::V4(FROM, to), 5001, 4433, MARKER);
    let mut header = ipv4_header(FROM, to, UDP, segment.len() + options.len(), 0);
    header[0] = 0x45 + (options.len() / 4) as u8;
    header[10..12].copy_from_slice(&[0, 0]);
    header.extend_from_slice(options);
    let sum = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend_from_slice(&segment);
    header
}

fn behind_header(kind: u8) -> Vec<u8> {
    let ip = Ip::V6(FROM6, SITE6);
    // Routing headers of type 0 with no segments left; others: eight bytes of padding.
    let mut payload = vec![
        UDP,
        0,
        u8::from(kind != 43),
        if kind == 43 { 0 } else { 4 },
        0,
        0,
        0,
        0,
    ];
    payload.extend(udp(&ip, 5002, 4433, MARKER));
    ip.packet(kind, &payload)
}

#[test]
fn nonsense_ends_at_the_first_chain() {
    case("net-plan-nonsense", |case| {
        need(&[NFT, IP])?;
        let box_ = planned()?;
        case.step("the same packets without nonsense pass", || {
            for (ip, ethertype) in [(Ip::V4(FROM, SITE), IPV4), (Ip::V6(FROM6, SITE6), 0x86dd)] {
                let _ = box_.gateway.agent.host.dial(&format!("[{SITE6}]:443"));
                let packet = ip.packet(UDP, &udp(&ip, 5003, 4433, MARKER));
                let out = came_out(case, &box_, &[to_box(&packet, ethertype)])?;
                require!(!out.is_empty(), "{ip:?} did not");
            }
            Ok(())
        })?;
        let lsrr = [131, 7, 4, 198, 51, 100, 98, 0];
        let record = [7, 7, 4, 0, 0, 0, 0, 0];
        let flags = |flags: u8| {
            let ip = Ip::V4(FROM, SITE);
            let mut segment = tcp(&ip, 5004, 443, MARKER);
            let offset_and_flags = u16::from_be_bytes([segment[12], flags]);
            change_word(&mut segment, 12, offset_and_flags, 16);
            to_box(&ip.packet(TCP, &segment), IPV4)
        };
        for (what, frame) in [
            (
                "a loose source route",
                to_box(&with_options(&lsrr, SITE), IPV4),
            ),
            ("record route", to_box(&with_options(&record, SITE), IPV4)),
            ("an IPv6 routing header", to_box(&behind_header(43), 0x86dd)),
            (
                "IPv6 destination options",
                to_box(&behind_header(60), 0x86dd),
            ),
            ("IPv6 hop-by-hop options", to_box(&behind_header(0), 0x86dd)),
            ("no TCP flags", flags(0)),
            ("SYN and FIN", flags(3)),
            ("SYN and RST", flags(6)),
            ("FIN alone", flags(1)),
            ("everything at once", flags(0x3f)),
        ] {
            case.check(what, || {
                let before = box_.packets("dropped_malformed")?;
                let out = came_out(case, &box_, &[frame])?;
                require!(out.is_empty(), "it got out: {}", out[0].describe());
                require!(
                    box_.packets("dropped_malformed")? > before,
                    "it ended elsewhere"
                );
                Ok(())
            });
        }
        case.check(
            "a segment of no known connection is reset, not forwarded",
            || {
                let out = came_out(case, &box_, &[flags(0x18)])?;
                require!(out.is_empty(), "it got out: {}", out[0].describe());
                Ok(())
            },
        );
        for (what, to) in [
            ("0.0.0.1", Ipv4Addr::new(0, 0, 0, 1)),
            ("127.0.0.1", Ipv4Addr::LOCALHOST),
            ("240.0.0.1", Ipv4Addr::new(240, 0, 0, 1)),
        ] {
            case.check(&format!("to {what}"), || {
                let ip = Ip::V4(FROM, to);
                let out = came_out(
                    case,
                    &box_,
                    &[to_box(&ip.packet(UDP, &udp(&ip, 5005, 4433, MARKER)), IPV4)],
                )?;
                require!(out.is_empty(), "it got out: {}", out[0].describe());
                Ok(())
            });
        }
        Ok(())
    });
}

#[test]
fn an_address_belongs_to_the_machine_that_uses_it() {
    case("net-plan-spoofed", |case| {
        need(&[NFT, IP])?;
        let box_ = planned()?;
        case.step("the agent uses its address", || {
            box_.gateway.agent.host.dial("198.51.100.99:443").map(drop)
        })?;
        let intruder = box_.neighbour("intruder", INTRUDER, &["10.66.0.66/24"])?;
        let spoofed = |source: Ipv4Addr, to: Ipv4Addr| {
            let ip = Ip::V4(source, to);
            ethernet(
                INTRUDER,
                BOX_LAN_MAC,
                IPV4,
                &ip.packet(UDP, &udp(&ip, 5006, 4433, MARKER)),
            )
        };
        let denied = || -> Result<u64> {
            Ok(box_.denied("", Reason::SpoofedSource)? + box_.denied("", Reason::UnknownSource)?)
        };
        for (what, source) in [
            ("the address of another host", FROM),
            ("an address outside", Ipv4Addr::new(198, 51, 100, 7)),
            ("the box's own address", Ipv4Addr::new(10, 66, 0, 1)),
            ("loopback", Ipv4Addr::LOCALHOST),
            ("another private network", Ipv4Addr::new(192, 168, 7, 7)),
        ] {
            case.check(what, || {
                let before = denied()?;
                let gateway = &box_.gateway;
                let out =
                    gateway.outside_while(case, || inject(&intruder, &[spoofed(source, SITE)]))?;
                require!(
                    !out.iter().any(|frame| frame.contains(MARKER)),
                    "it got out"
                );
                require!(
                    source == Ipv4Addr::LOCALHOST
                        || source == Ipv4Addr::new(10, 66, 0, 1)
                        || denied()? > before,
                    "it was not counted"
                );
                Ok(())
            });
        }
        case.check("the owner goes on", || {
            box_.gateway.agent.host.dial("198.51.100.99:443").map(drop)
        });
        for (what, ip, kind) in [
            (
                "a host that takes a free address stays the host",
                Ip::V4(Ipv4Addr::new(10, 66, 0, 77), SITE),
                IPV4,
            ),
            (
                "also in the other family",
                Ip::V6("fd66::77".parse().unwrap_or(FROM6), SITE6),
                0x86dd,
            ),
        ] {
            case.check(what, || {
                let before = box_.denied("", Reason::SpoofedSource)?;
                let frame = to_box(&ip.packet(UDP, &udp(&ip, 5008, 4433, MARKER)), kind);
                let out = came_out(case, &box_, &[frame])?;
                require!(out.is_empty(), "it got out: {}", out[0].describe());
                require!(
                    box_.denied("", Reason::SpoofedSource)? > before,
                    "denied for another reason"
                );
                Ok(())
            });
        }
        case.check("the binding outlives plans", || {
            let pins = [pin("agent-1", "pinned.example", &[&SITE.to_string()])];
            for generation in [8, 9] {
                box_.forget();
                box_.enforce(POLICY, generation, carry(&pins))?;
            }
            let before = denied()?;
            inject(&intruder, &[spoofed(FROM, SITE)])?;
            require!(denied()? > before, "it was not");
            Ok(())
        });
        Ok(())
    });
}

#[test]
fn of_icmp_only_errors_of_allowed_flows_pass() {
    case("net-plan-icmp", |case| {
        need(&[NFT, IP])?;
        let box_ = planned()?;
        let ip = Ip::V4(FROM, SITE);
        // Opens the flow that errors are about.
        let flow = ip.packet(UDP, &udp(&ip, 5007, 4433, b"open"));
        inject(&box_.gateway.agent.host, &[to_box(&flow, IPV4)])?;
        let echo = to_box(&ip.packet(ICMP, &icmpv4(8, 0, MARKER)), IPV4);
        let ip6 = Ip::V6(FROM6, SITE6);
        let echo6 = {
            let mut body = vec![0, 1, 0, 1];
            body.extend_from_slice(MARKER);
            to_box(
                &ip6.packet(ICMPV6, &qemu_tests::frame::icmpv6(&ip6, 128, 0, &body)),
                0x86dd,
            )
        };
        for (what, frame) in [
            ("an echo request", echo),
            ("an echo request over IPv6", echo6),
        ] {
            case.check(what, || {
                let before = box_.denied("agent-1", Reason::Protocol)?;
                let out = came_out(case, &box_, &[frame])?;
                require!(out.is_empty(), "it got out: {}", out[0].describe());
                require!(
                    box_.denied("agent-1", Reason::Protocol)? > before,
                    "denied for another reason"
                );
                Ok(())
            });
        }
        // An error quotes the packet it is about: one that the site sent to the agent.
        let about = |port: u16| {
            let back = Ip::V4(SITE, FROM);
            back.packet(UDP, &udp(&back, port, 5007, MARKER))
        };
        let error = |kind: u8, code: u8, quoted: &[u8]| {
            to_box(&ip.packet(ICMP, &icmpv4(kind, code, quoted)), IPV4)
        };
        case.check("fragmentation needed, of an allowed flow, passes", || {
            let out = came_out(case, &box_, &[error(3, 4, &about(4433))])?;
            require!(!out.is_empty(), "it did not");
            Ok(())
        });
        for (what, frame) in [
            ("an error about no flow", error(3, 4, &about(9999))),
            ("a redirect", error(5, 1, &about(4433))),
            ("source quench", error(4, 0, &about(4433))),
            ("a parameter problem", error(12, 0, &about(4433))),
            ("an error with a kilobyte of luggage", {
                let mut quoted = about(4433);
                quoted.extend(MARKER.repeat(30));
                error(3, 4, &quoted)
            }),
        ] {
            case.check(what, || {
                let out = came_out(case, &box_, &[frame])?;
                require!(out.is_empty(), "it got out: {}", out[0].describe());
                Ok(())
            });
        }
        Ok(())
    });
}
