//! What kind of address one is, for people: why it counts as inside, in a word. Pure.
//!
//! Decides nothing: `address` does, and a test holds the two together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::is_inside;

/// As it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Public,
    /// Where clouds tell a machine its secrets.
    Metadata,
    Loopback,
    Private,
    /// Of a provider's customers behind one address.
    Shared,
    LinkLocal,
    Multicast,
    /// An IPv4 address within an IPv6 one.
    Embedded,
    Reserved,
}

impl Class {
    pub fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Metadata => "metadata",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::LinkLocal => "link-local",
            Self::Multicast => "multicast",
            Self::Embedded => "embedded-ipv4",
            Self::Reserved => "reserved",
        }
    }

    pub fn of(address: IpAddr) -> Self {
        if !is_inside(address) {
            return Self::Public;
        }
        match address {
            IpAddr::V4(v4) => of4(v4),
            IpAddr::V6(v6) => of6(v6),
        }
    }
}

/// Of clouds and of what runs in them.
const METADATA4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

fn of4(address: Ipv4Addr) -> Class {
    let [first, second, ..] = address.octets();
    match (first, second) {
        _ if METADATA4.contains(&address) => Class::Metadata,
        (127, _) => Class::Loopback,
        (10, _) | (172, 16..=31) | (192, 168) => Class::Private,
        (100, 64..=127) => Class::Shared,
        (169, 254) => Class::LinkLocal,
        (224..=239, _) => Class::Multicast,
        _ => Class::Reserved,
    }
}

fn of6(address: Ipv6Addr) -> Class {
    let parts = address.segments();
    match parts {
        _ if address == METADATA6 => Class::Metadata,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Reserved,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, ..] | [0x2002, ..] | [0x2001, 0, ..] => {
            Class::Embedded
        }
        [0xfc00..=0xfdff, ..] => Class::Private,
        [0xfe80..=0xfebf, ..] => Class::LinkLocal,
        [0xff00..=0xffff, ..] => Class::Multicast,
        _ => Class::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_word_and_only_what_is_outside_is_public() {
        for (address, word) in [
            ("93.184.216.34", "public"),
            ("192.0.2.1", "public"),
            ("2606:4700::1", "public"),
            ("169.254.169.254", "metadata"),
            ("168.63.129.16", "metadata"),
            ("fd00:ec2::254", "metadata"),
            ("127.0.0.53", "loopback"),
            ("::1", "loopback"),
            ("10.0.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("fd00::1", "private"),
            ("100.64.0.1", "shared"),
            ("169.254.7.7", "link-local"),
            ("fe80::1", "link-local"),
            ("224.0.0.251", "multicast"),
            ("ff02::1", "multicast"),
            ("::ffff:10.0.0.1", "embedded-ipv4"),
            ("::ffff:93.184.216.34", "embedded-ipv4"),
            ("64:ff9b::a00:1", "embedded-ipv4"),
            ("2002:a00:1::1", "embedded-ipv4"),
            ("2001:0:1::1", "embedded-ipv4"),
            ("0.0.0.0", "reserved"),
            ("255.255.255.255", "reserved"),
            ("198.18.0.1", "reserved"),
            ("::", "reserved"),
            ("100::1", "reserved"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(Class::of(address).word(), word, "{address}");
            assert_eq!(Class::of(address) == Class::Public, !is_inside(address));
        }
    }
}
