//! The networks inside that a policy names itself, and that may be reached for that. Pure.

use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_config::access::{Access, Action};

use crate::Index;
use crate::address::is_inside;

/// Of every scope and of every rule that allows. What reaches outside (`0.0.0.0/0`) names nothing inside.
pub fn named_inside(index: &Index, access: &Access) -> Vec<Cidr> {
    let of_scopes = index
        .principals()
        .iter()
        .flat_map(|principal| principal.scope.ips.iter());
    let of_rules = access
        .rules
        .values()
        .filter(|rule| rule.enabled && rule.action == Action::Allow)
        .flat_map(|rule| rule.networks.iter());
    let mut named: Vec<Cidr> = of_scopes
        .chain(of_rules)
        .filter(|network| lies_inside(network))
        .copied()
        .collect();
    named.sort_unstable_by_key(|network| (network.address, network.length));
    named.dedup();
    named
}

fn lies_inside(network: &Cidr) -> bool {
    let last = match network.address {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(u32::from(network.length)).unwrap_or(0);
            IpAddr::V4((u32::from(address) | host).into())
        }
        IpAddr::V6(address) => {
            let host = u128::MAX
                .checked_shr(u32::from(network.length))
                .unwrap_or(0);
            IpAddr::V6((u128::from(address) | host).into())
        }
    };
    let first = network.network().address;
    is_inside(first) && is_inside(last) && network.length >= if first.is_ipv4() { 8 } else { 7 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_reaches_outside_names_nothing_inside() {
        let cidr = |address: &str, length| Cidr {
            address: address.parse().unwrap(),
            length,
        };
        for (network, inside) in [
            (cidr("10.0.0.0", 8), true),
            (cidr("192.168.7.0", 24), true),
            (cidr("169.254.169.254", 32), true),
            (cidr("fd00::", 8), true),
            (cidr("0.0.0.0", 0), false),
            (cidr("8.0.0.0", 6), false),
            (cidr("203.0.113.0", 24), false),
            (cidr("::", 0), false),
        ] {
            assert_eq!(lies_inside(&network), inside, "{network}");
        }
    }
}
