//! The box's own addresses as the kernel has them now: no request may lead back to the box, whatever DHCP has given it
//! since the revision was compiled.

use std::io;
use std::net::IpAddr;

use clawgress_config::Cidr;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};

/// Each address with the card that has it and the network that it lies in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Own(Vec<(Box<str>, Cidr)>);

impl Own {
    pub fn of(addresses: impl IntoIterator<Item = (String, Cidr)>) -> Self {
        let mut all: Vec<(Box<str>, Cidr)> = addresses
            .into_iter()
            .map(|(card, cidr)| (card.into(), cidr))
            .collect();
        all.sort_by(|one, other| {
            (&one.0, one.1.address, one.1.length).cmp(&(&other.0, other.1.address, other.1.length))
        });
        Self(all)
    }

    /// Asks the kernel.
    pub fn read() -> io::Result<Self> {
        let cards = getifaddrs()?;
        Ok(Self::of(cards.filter_map(|card| {
            let cidr = network_of(&card)?;
            Some((card.interface_name, cidr))
        })))
    }

    /// An address of the box itself, or one in a network of a card on its near side.
    pub(super) fn holds(&self, address: IpAddr, is_near: impl Fn(&str) -> bool) -> bool {
        self.0
            .iter()
            .any(|(card, cidr)| cidr.address == address || cidr.contains(address) && is_near(card))
    }
}

fn network_of(card: &InterfaceAddress) -> Option<Cidr> {
    let address = card.address.as_ref()?;
    let mask = card.netmask.as_ref();
    if let Some(four) = address.as_sockaddr_in() {
        let mask = mask.and_then(|mask| Some(u32::from(mask.as_sockaddr_in()?.ip())));
        let length = mask.map_or(32, u32::leading_ones);
        return Some(Cidr {
            address: IpAddr::V4(four.ip()),
            length: length as u8,
        });
    }
    let six = address.as_sockaddr_in6()?;
    let mask = mask.and_then(|mask| Some(u128::from(mask.as_sockaddr_in6()?.ip())));
    Some(Cidr {
        address: IpAddr::V6(six.ip()),
        length: mask.map_or(128, u128::leading_ones) as u8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_card_has_its_network_and_any_other_one_its_address() {
        let cidr = |address: &str, length| Cidr {
            address: address.parse().unwrap(),
            length,
        };
        let own = Own::of([
            ("eth0".to_owned(), cidr("203.0.113.7", 24)),
            ("eth1".to_owned(), cidr("10.9.0.1", 24)),
            ("eth1".to_owned(), cidr("2001:db8:9::1", 64)),
        ]);
        for (address, held) in [
            ("203.0.113.7", true),
            ("203.0.113.8", false),
            ("10.9.0.1", true),
            ("10.9.0.77", true),
            ("10.9.1.77", false),
            ("2001:db8:9::abcd", true),
            ("2001:db8:8::abcd", false),
        ] {
            let found = own.holds(address.parse().unwrap(), |card| card == "eth1");
            assert_eq!(found, held, "{address}");
        }
    }

    #[test]
    fn the_kernel_tells_loopback() {
        let loopback = "127.0.0.1".parse().unwrap();
        assert!(Own::read().unwrap().holds(loopback, |_| false));
    }
}
