//! Which addresses an allowed name may lead to. What an answer from outside names inside, or in disguise, is refused,
//! unless a network of the policy holds it; the resolver strips the same, and this is the second opinion.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_config::policy::Scope;
use clawgress_policy::Revision;

use crate::front::maps::host_network;

/// IPv4 networks inside. Documentation networks count as outside.
pub(super) const INSIDE4: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    // A cloud's metadata at an address that looks public.
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
];

/// IPv6 addresses that are not in here are inside, so that a range assigned tomorrow is closed today.
pub(super) const OUTSIDE6: &str = "2000::/3";
/// But these are: protocol assignments (Teredo among them) and 6to4.
pub(super) const INSIDE6: [&str; 2] = ["2001::/23", "2002::/16"];

/// Nobody's policy opens these: the box itself, every host at once, and IPv4 in disguise.
pub(super) const NEVER4: [&str; 3] = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"];
pub(super) const NEVER6: [&str; 6] = [
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/32",
    "2001::/32",
    "2002::/16",
    "ff00::/8",
];

/// Whether a network of the policy can except addresses inside. Not one that reaches over the edge of what is inside,
/// such as `0.0.0.0/0`: it is about the world.
fn excepts(network: &Cidr) -> bool {
    const LOCAL6: [&str; 3] = ["fc00::/7", "fe80::/10", "fec0::/10"];
    let mut inside = INSIDE4.iter().chain(&INSIDE6).chain(&LOCAL6);
    !inside.any(|block| {
        let Some((address, length)) = block.split_once('/') else {
            return false;
        };
        let (Ok(address), Ok(length)) = (address.parse(), length.parse::<u8>()) else {
            return false;
        };
        network.length < length && network.contains(address)
    })
}

/// Lines of the maps `networks` and `held`: of each network that some scope holds, all scopes that hold all of it.
/// The longest network around an address then knows everybody who may reach that address.
pub(super) fn exceptions(scopes: &[(String, &Scope)]) -> (Vec<String>, Vec<String>) {
    let networks: BTreeSet<Cidr> = scopes
        .iter()
        .flat_map(|(_, scope)| scope.allow.ips.iter().map(Cidr::network))
        .filter(excepts)
        .collect();
    let mut held = BTreeSet::new();
    for (list, scope) in scopes {
        for outer in scope.allow.ips.iter().filter(|outer| excepts(outer)) {
            let inner = networks
                .range(outer.network()..)
                .take_while(|inner| outer.contains(inner.address));
            for inner in inner.filter(|inner| inner.length >= outer.length) {
                held.insert(format!("{list}@{inner} 1\n"));
            }
        }
    }
    let networks = networks
        .iter()
        .map(|network| format!("{network} {network}\n"));
    (networks.collect(), held.into_iter().collect())
}

/// Lines of the map `own`.
pub(super) fn own(revision: &Revision, more: &[IpAddr]) -> Vec<String> {
    let network = &revision.network;
    let mut found = BTreeMap::new();
    for card in network.lan.iter().chain(&network.management) {
        for address in &card.addresses {
            found.insert(address.network().to_string(), "inside");
        }
    }
    let cards = network
        .wan
        .iter()
        .chain(&network.lan)
        .chain(&network.management);
    let written = cards.flat_map(|card| card.addresses.iter().map(|cidr| cidr.address));
    for address in written
        .chain(network.listen_addresses.iter().copied())
        .chain(more.iter().copied())
    {
        found.insert(host_network(address), "never");
    }
    found
        .into_iter()
        .map(|(network, word)| format!("{network} {word}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawgress_config::policy::Policy;

    #[test]
    fn a_network_that_is_the_world_excepts_nothing_inside() {
        let policy = r#"{"version": 2, "allow": {"ips": ["0.0.0.0/0", "192.0.0.0/8", "10.9.0.0/16", "203.0.113.0/24",
            "::/0", "fd00::/8"]}}"#;
        let policy = Policy::from_json(policy.as_bytes()).unwrap();
        let (networks, held) = exceptions(&[("0".to_owned(), &policy.global)]);
        let of = |lines: &[String]| lines.concat();
        assert_eq!(
            of(&networks),
            "10.9.0.0/16 10.9.0.0/16\n203.0.113.0/24 203.0.113.0/24\nfd00::/8 fd00::/8\n"
        );
        assert_eq!(
            of(&held),
            "0@10.9.0.0/16 1\n0@203.0.113.0/24 1\n0@fd00::/8 1\n"
        );
    }
}
