//! An address with its prefix length, and what an operator may mean by one: an interface's own address or a
//! whole network. Pure arithmetic; the texts of refusals live here so that every path refuses alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

/// Why a value was refused and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {right}")]
pub struct Wrong {
    pub what: String,
    pub right: String,
}

impl Wrong {
    pub(crate) fn new(what: impl Into<String>, right: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            right: right.into(),
        }
    }
}

/// An address and a prefix length; host bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    pub address: IpAddr,
    pub length: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Serialize for Cidr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address as the top bits of a u128, so that both families share one arithmetic.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(length.min(128)))
        .unwrap_or(0)
}

fn from_bits(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from((bits >> 96) as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

/// The length that a dotted netmask stands for, if it is one.
fn dotted_length(text: &str) -> Option<u32> {
    let mask = u32::from(text.parse::<Ipv4Addr>().ok()?);
    (mask.leading_ones() + mask.trailing_zeros() == 32 || mask == u32::MAX)
        .then(|| mask.leading_ones())
}

impl Cidr {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let Some((address, length)) = text.split_once('/') else {
            return Err(match text.parse::<IpAddr>() {
                Ok(address) => Wrong::new(
                    format!("`{text}` has no prefix length"),
                    format!(
                        "write {address}/{} or the length that its subnet has",
                        if address.is_ipv4() { 24 } else { 64 }
                    ),
                ),
                Err(_) => Wrong::new(
                    format!("`{text}` is not an address with a prefix length"),
                    "write one like 192.0.2.1/24 or 2001:db8::1/64",
                ),
            });
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(Wrong::new(
                format!("`{address}` is not an IP address"),
                "write four numbers 0-255 joined by dots, or an IPv6 address",
            ));
        };
        if let Some(length) = dotted_length(length).filter(|_| address.is_ipv4()) {
            return Err(Wrong::new(
                format!("`{text}` has a netmask where a length belongs"),
                format!("write {address}/{length}"),
            ));
        }
        let digits = !length.is_empty()
            && length.len() <= 3
            && length.bytes().all(|b| b.is_ascii_digit())
            && (length == "0" || !length.starts_with('0'));
        match length.parse::<u8>() {
            Ok(number) if digits && number <= width(address) => Ok(Self {
                address,
                length: number,
            }),
            _ => Err(Wrong::new(
                format!("`/{length}` is not a prefix length"),
                format!("write a number from 0 to {}", width(address)),
            )),
        }
    }

    /// The network that this address is in, with host bits zero.
    #[must_use]
    pub fn network(&self) -> Self {
        Self {
            address: from_bits(bits(self.address) & mask(self.length), self.address),
            length: self.length,
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && (bits(self.address) ^ bits(address)) & mask(self.length) == 0
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && (bits(self.address) ^ bits(other.address)) & mask(self.length.min(other.length)) == 0
    }

    /// A whole network: host bits must be zero.
    pub(crate) fn parse_network(text: &str) -> Result<Self, Wrong> {
        let cidr = Self::parse(text).map_err(|wrong| match text.parse::<IpAddr>() {
            Ok(address) => Wrong::new(
                wrong.what,
                format!(
                    "write {address}/{} for this one address, or its network",
                    width(address)
                ),
            ),
            Err(_) => wrong,
        })?;
        let network = cidr.network();
        if network == cidr {
            return Ok(cidr);
        }
        Err(Wrong::new(
            format!("`{text}` has host bits set"),
            format!(
                "write {network} for the network, or {}/{} for the one host",
                cidr.address,
                width(cidr.address)
            ),
        ))
    }

    /// An address that a card can have: a host's, unicast, not the network itself nor its broadcast.
    pub(crate) fn parse_interface(text: &str) -> Result<Self, Wrong> {
        let cidr = Self::parse(text)?;
        refuse_special(cidr.address)?;
        if cidr.length == 0 {
            return Err(Wrong::new(
                format!("`{text}` would put the whole Internet on this card"),
                "write the length of its subnet, such as 24",
            ));
        }
        // Point-to-point links (/31, /127) and single hosts have no network or broadcast address (RFC 3021, 6164).
        if cidr.length + 1 >= width(cidr.address) {
            return Ok(cidr);
        }
        let host = bits(cidr.address) & !mask(cidr.length);
        let first = from_bits(
            bits(cidr.network().address) | 1 << (128 - u32::from(width(cidr.address))),
            cidr.address,
        );
        if host == 0 {
            return Err(Wrong::new(
                format!("`{text}` is a network, not an address in it"),
                format!(
                    "write an address of that network, such as {first}/{}",
                    cidr.length
                ),
            ));
        }
        if cidr.address.is_ipv4() && host == (!mask(cidr.length) >> 96) << 96 {
            return Err(Wrong::new(
                format!("`{text}` is the broadcast address of its network"),
                format!("write a host's address, such as {first}/{}", cidr.length),
            ));
        }
        Ok(cidr)
    }
}

/// Refuses addresses that no single other machine can have.
pub(crate) fn refuse_special(address: IpAddr) -> Result<(), Wrong> {
    let kind = match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => "not an address of a machine",
        IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] >= 240 => "a reserved address",
        IpAddr::V6(v6) if v6.is_unspecified() => "not an address of a machine",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4 address in IPv6 clothing",
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_loopback() => "a loopback address",
        _ => return Ok(()),
    };
    Err(Wrong::new(
        format!("`{address}` is {kind}"),
        "write a unicast address, such as 192.0.2.1 or 2001:db8::1",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fix(result: Result<Cidr, Wrong>) -> String {
        let wrong = result.expect_err("must be refused");
        format!("{}; {}", wrong.what, wrong.right)
    }

    #[test]
    fn interface_addresses() {
        for good in [
            "192.0.2.1/24",
            "10.0.0.0/31",
            "192.0.2.255/32",
            "2001:db8::1/64",
            "fe80::1/64",
        ] {
            assert_eq!(Cidr::parse_interface(good).expect(good).to_string(), good);
        }
        assert!(fix(Cidr::parse_interface("192.0.2.0/24")).contains("192.0.2.1/24"));
        assert!(fix(Cidr::parse_interface("192.0.2.255/24")).contains("broadcast"));
        assert!(fix(Cidr::parse_interface("2001:db8::/64")).contains("2001:db8::1/64"));
        assert!(fix(Cidr::parse_interface("192.0.2.1")).contains("192.0.2.1/24"));
        assert!(fix(Cidr::parse_interface("10.1.2.3/255.255.0.0")).contains("10.1.2.3/16"));
        assert!(fix(Cidr::parse_interface("127.0.0.1/8")).contains("loopback"));
        assert!(fix(Cidr::parse_interface("224.0.0.1/8")).contains("multicast"));
        assert!(fix(Cidr::parse_interface("192.0.2.1/33")).contains("0 to 32"));
        assert!(fix(Cidr::parse_interface("192.0.2.1/024")).contains("0 to 32"));
        assert!(fix(Cidr::parse_interface("192.0.2.1/0")).contains("whole Internet"));
        assert!(fix(Cidr::parse_interface("::ffff:1.2.3.4/120")).contains("clothing"));
    }

    #[test]
    fn networks_have_no_host_bits() {
        for good in ["0.0.0.0/0", "::/0", "10.0.0.0/8", "192.0.2.7/32"] {
            assert_eq!(Cidr::parse_network(good).expect(good).to_string(), good);
        }
        assert!(fix(Cidr::parse_network("10.1.2.3/8")).contains("10.0.0.0/8"));
        assert!(fix(Cidr::parse_network("10.1.2.3")).contains("10.1.2.3/32"));
    }

    #[test]
    fn containing_and_overlapping() {
        let net = Cidr::parse("192.0.2.1/24").unwrap();
        assert!(net.contains("192.0.2.200".parse().unwrap()));
        assert!(!net.contains("192.0.3.1".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
        assert!(net.overlaps(&Cidr::parse("192.0.0.0/16").unwrap()));
        assert!(!net.overlaps(&Cidr::parse("192.0.3.0/24").unwrap()));
        assert!(
            Cidr::parse("0.0.0.0/0")
                .unwrap()
                .contains("9.9.9.9".parse().unwrap())
        );
    }
}
