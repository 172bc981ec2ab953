//! Which addresses an answer from outside may never name, whoever asks: those inside, those of this box, those that
//! wrap one of them. Pure.
//!
//! IPv6 is an allowlist (global unicast less its special parts), so that a range assigned tomorrow is closed today.
//! The documentation ranges count as outside: nothing is ever behind them but a laboratory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clawgress_config::Cidr;

/// Address and prefix length.
type Block4 = (Ipv4Addr, u32);
type Block6 = (Ipv6Addr, u32);

const INSIDE4: [Block4; 13] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // A cloud's wire server: metadata at an address that looks public.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    // The relays of 6to4.
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

const GLOBAL6: Block6 = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Inside global unicast, and yet no plain address of a machine outside.
const INSIDE6: [Block6; 2] = [
    // Protocol assignments: Teredo, benchmarks, ORCHID, anycast of protocols.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // 6to4: an IPv4 address in disguise.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// True if no answer from outside may lead there.
pub fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => INSIDE4.iter().any(|block| in4(v4, *block)),
        IpAddr::V6(v6) => !in6(v6, GLOBAL6) || INSIDE6.iter().any(|block| in6(v6, *block)),
    }
}

/// The networks at whose ends inside begins or ends: between two of them all addresses are inside, or none is.
pub fn inside_blocks(v6: bool) -> Vec<Cidr> {
    if v6 {
        cidrs([GLOBAL6].iter().chain(&INSIDE6))
    } else {
        cidrs(INSIDE4.iter())
    }
}

/// No policy opens these: this box itself, every host at once, and IPv4 in disguise.
const NEVER4: [Block4; 3] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];
const NEVER6: [Block6; 6] = [
    (Ipv6Addr::UNSPECIFIED, 96),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// Blocks outside global unicast that somebody may have in mind.
const LOCAL6: [Block6; 4] = [
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// True if no answer from outside may lead there, whatever the policy holds.
pub fn is_never_meant(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => NEVER4.iter().any(|block| in4(v4, *block)),
        IpAddr::V6(v6) => NEVER6.iter().any(|block| in6(v6, *block)),
    }
}

/// Beside what is never meant, where no server of the operator's is, whatever its name says: on a link alone, and where
/// clouds keep a machine's secrets.
const SERVES_NOBODY4: [Block4; 4] = [
    (Ipv4Addr::new(100, 100, 100, 200), 32),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
];
const SERVES_NOBODY6: [Block6; 2] = [
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// Where a name that the operator gave may not lead, though it may lead inside.
pub fn serving_nobody(v6: bool) -> Vec<Cidr> {
    if v6 {
        cidrs(NEVER6.iter().chain(&SERVES_NOBODY6))
    } else {
        cidrs(NEVER4.iter().chain(&SERVES_NOBODY4))
    }
}

fn cidrs<'b, A: Copy + Into<IpAddr> + 'b>(blocks: impl Iterator<Item = &'b (A, u32)>) -> Vec<Cidr> {
    blocks
        .map(|(address, length)| Cidr {
            address: (*address).into(),
            length: *length as u8,
        })
        .collect()
}

/// True if the network is more than a block of inside addresses and has one in it: who writes `0.0.0.0/0` means the
/// world, and not that names from outside may lead inside.
pub fn reaches_inside(network: &Cidr) -> bool {
    let length = u32::from(network.length);
    match network.address {
        IpAddr::V4(v4) => INSIDE4
            .iter()
            .any(|(block, of)| length < *of && in4(*block, (v4, length))),
        IpAddr::V6(v6) => INSIDE6
            .iter()
            .chain(&LOCAL6)
            .any(|(block, of)| length < *of && in6(*block, (v6, length))),
    }
}

fn in4(address: Ipv4Addr, (network, length): Block4) -> bool {
    let differ = u32::from(address) ^ u32::from(network);
    differ.leading_zeros() >= length
}

fn in6(address: Ipv6Addr, (network, length): Block6) -> bool {
    let differ = u128::from(address) ^ u128::from(network);
    differ.leading_zeros() >= length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(text: &str) -> bool {
        is_inside(text.parse().unwrap_or_else(|_| panic!("{text}")))
    }

    #[test]
    fn every_disguise_of_an_inside_address_is_known() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.170",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.251",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::10.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:93.184.216.34",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2002:a00:1::1",
            "2002:5db8:d822::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::fb",
        ] {
            assert!(inside(address), "{address} passes");
        }
    }

    #[test]
    fn the_world_and_the_laboratory_are_outside() {
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.0.2.1",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.100.7",
            "203.0.113.9",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db8::1",
            "2003::1",
            "2606:4700:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(!inside(address), "{address} is refused");
        }
    }

    fn network(text: &str) -> Cidr {
        let (address, length) = text.split_once('/').unwrap();
        Cidr {
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
        }
    }

    #[test]
    fn a_network_that_is_about_the_world_opens_nothing_inside() {
        for wide in [
            "0.0.0.0/0",
            "8.0.0.0/5",
            "192.0.0.0/8",
            "::/0",
            "2000::/3",
            "e000::/3",
        ] {
            assert!(reaches_inside(&network(wide)), "{wide}");
        }
        for meant in [
            "10.0.0.0/8",
            "10.9.0.0/16",
            "192.168.7.7/32",
            "203.0.113.0/24",
            "fd00::/8",
            "fc00::/7",
            "2001:db8::/32",
        ] {
            assert!(!reaches_inside(&network(meant)), "{meant}");
        }
    }

    #[test]
    fn a_server_may_be_inside_and_not_where_no_server_is() {
        let serves = |text: &str| {
            let address: IpAddr = text.parse().unwrap();
            let nobody = serving_nobody(address.is_ipv6());
            !nobody.iter().any(|block| block.contains(address))
        };
        for address in [
            "10.0.0.7",
            "192.168.1.1",
            "198.51.100.1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(serves(address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "224.0.0.1",
            "::1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fd00:ec2::254",
        ] {
            assert!(!serves(address), "{address}");
        }
    }

    #[test]
    fn the_box_itself_and_ipv4_in_disguise_are_never_meant() {
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "2001::1",
            "2002:a00:1::1",
            "ff02::1",
        ] {
            assert!(is_never_meant(address.parse().unwrap()), "{address}");
        }
        for address in [
            "10.0.0.1",
            "169.254.1.1",
            "198.51.100.1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(!is_never_meant(address.parse().unwrap()), "{address}");
        }
    }
}
