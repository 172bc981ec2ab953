//! The addresses that are the box's own or on its near side, as the kernel has them at this moment. What DHCP gave it is
//! in no revision.

use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_policy::Revision;
use nix::ifaddrs::getifaddrs;

/// Which of them, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Near {
    Own,
    OfAgents,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Cards(Vec<(String, Cidr)>);

impl Cards {
    /// Asks the kernel; what it does not tell is not known, and said so by nothing but the revision then.
    pub(crate) fn read() -> Self {
        let Ok(cards) = getifaddrs() else {
            return Self::default();
        };
        Self(
            cards
                .filter_map(|card| {
                    let address = card.address.as_ref()?;
                    let mask = card.netmask.as_ref();
                    let cidr = if let Some(four) = address.as_sockaddr_in() {
                        let mask =
                            mask.and_then(|mask| Some(u32::from(mask.as_sockaddr_in()?.ip())));
                        Cidr {
                            address: IpAddr::V4(four.ip()),
                            length: mask.map_or(32, u32::leading_ones) as u8,
                        }
                    } else {
                        let six = address.as_sockaddr_in6()?;
                        let mask =
                            mask.and_then(|mask| Some(u128::from(mask.as_sockaddr_in6()?.ip())));
                        Cidr {
                            address: IpAddr::V6(six.ip()),
                            length: mask.map_or(128, u128::leading_ones) as u8,
                        }
                    };
                    Some((card.interface_name, cidr))
                })
                .collect(),
        )
    }

    pub(super) fn near(&self, revision: &Revision, address: IpAddr) -> Option<Near> {
        let network = &revision.network;
        let near_cards = || network.lan.iter().chain(&network.management);
        let configured = || {
            let cards = near_cards().chain(&network.wan);
            cards.flat_map(|card| card.addresses.iter())
        };
        let own = address.is_loopback()
            || address.is_unspecified()
            || network.listen_addresses.contains(&address)
            || configured().any(|cidr| cidr.address == address)
            || self.0.iter().any(|(_, cidr)| cidr.address == address);
        if own {
            return Some(Near::Own);
        }
        let by_revision = near_cards()
            .flat_map(|card| card.addresses.iter())
            .any(|cidr| cidr.contains(address));
        let by_kernel = self.0.iter().any(|(card, cidr)| {
            cidr.contains(address) && near_cards().any(|near| near.name == *card)
        });
        (by_revision || by_kernel).then_some(Near::OfAgents)
    }
}
