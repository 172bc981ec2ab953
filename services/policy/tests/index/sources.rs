//! Whose address is whose, by example and against a naive model.

use std::net::IpAddr;

use clawgress_config::{Cidr, policy::Policy};
use clawgress_policy::{Index, IndexError, PrincipalKind};
use proptest::prelude::*;

use crate::made::{card, cidr, host, index, revision, scope};

fn hosts(hosts: &[(&str, &[&str])]) -> Policy {
    let mut policy = Policy::default();
    for (name, sources) in hosts {
        policy
            .hosts
            .insert((*name).to_owned(), host(sources, scope(&[])));
    }
    policy
}

fn whose<'i>(index: &'i Index, address: &str) -> Option<&'i str> {
    index
        .principal_of(address.parse().unwrap())
        .map(|principal| principal.name.as_str())
}

#[test]
fn strictly_who_is_no_host_is_nobody() {
    let mut strict = revision(hosts(&[("one", &["192.168.10.10/32"])]));
    strict.access.strict = true;
    let index = Index::of(&strict).unwrap();
    assert_eq!(whose(&index, "192.168.10.10"), Some("one"));
    assert_eq!(whose(&index, "192.168.10.11"), None);
    assert!(index.warnings().is_empty(), "{:?}", index.warnings());
}

#[test]
fn the_most_specific_source_wins_and_the_card_has_the_rest() {
    let index = index(hosts(&[
        ("one", &["192.168.10.10/32", "2001:db8:10::a/128"]),
        ("few", &["192.168.10.8/29"]),
    ]));
    assert_eq!(whose(&index, "192.168.10.10"), Some("one"));
    assert_eq!(whose(&index, "192.168.10.9"), Some("few"));
    assert_eq!(whose(&index, "192.168.10.15"), Some("few"));
    assert_eq!(whose(&index, "192.168.10.16"), Some("lan/eth1"));
    assert_eq!(whose(&index, "2001:db8:10::a"), Some("one"));
    assert_eq!(whose(&index, "2001:db8:10::b"), Some("lan/eth1"));
    for outside in [
        "192.168.11.1",
        "10.99.0.5",
        "2001:db8:11::1",
        "fe80::1",
        "::",
        "0.0.0.0",
    ] {
        assert_eq!(whose(&index, outside), None, "{outside}");
    }
    let ids: Vec<_> = index
        .principals()
        .iter()
        .map(|principal| (principal.id.0, principal.name.as_str()))
        .collect();
    assert_eq!(ids, [(1, "few"), (2, "lan/eth1"), (3, "one")]);
    let few = index.by_name("few").unwrap();
    assert_eq!(
        few.sources,
        ["192.168.10.8/31", "192.168.10.11/32", "192.168.10.12/30"].map(cidr)
    );
}

#[test]
fn an_ipv4_address_in_ipv6_clothing_is_that_address() {
    let index = index(hosts(&[("one", &["::ffff:192.168.10.10/128"])]));
    assert_eq!(whose(&index, "::ffff:192.168.10.10"), Some("one"));
    assert_eq!(whose(&index, "192.168.10.10"), Some("one"));
    assert_eq!(whose(&index, "::ffff:192.168.10.11"), Some("lan/eth1"));
    // The deprecated other clothing is none.
    assert_eq!(whose(&index, "::192.168.10.10"), None);
    assert_eq!(
        index.by_name("one").unwrap().sources,
        [cidr("192.168.10.10/32")]
    );
}

#[test]
fn a_host_goes_before_the_card_however_wide_it_is() {
    let index = index(hosts(&[("all", &["0.0.0.0/0"]), ("six", &["::/0"])]));
    assert_eq!(whose(&index, "192.168.10.10"), Some("all"));
    assert_eq!(whose(&index, "255.255.255.255"), Some("all"));
    assert_eq!(whose(&index, "2001:db8:10::1"), Some("six"));
    assert_eq!(
        index.disjoint_sources(),
        [
            (cidr("0.0.0.0/0"), index.by_name("all").unwrap().id),
            (cidr("::/0"), index.by_name("six").unwrap().id)
        ]
    );
    let card = index.by_name("lan/eth1").unwrap();
    assert_eq!(
        card.kind,
        PrincipalKind::Lan {
            card: "eth1".to_owned()
        }
    );
    assert_eq!(card.sources, []);
}

#[test]
fn unusual_sources_are_kept_and_told() {
    let index = index(hosts(&[
        ("far", &["172.16.0.0/12"]),
        ("near", &["192.168.10.0/31"]),
        ("half", &["192.168.10.0/32"]),
        ("other", &["192.168.10.1/32"]),
    ]));
    assert_eq!(whose(&index, "172.16.5.5"), Some("far"));
    let warnings = index.warnings().join("\n");
    assert!(
        warnings.contains("host far") && warnings.contains("172.16.0.0/12"),
        "{warnings}"
    );
    assert!(warnings.contains("host near"), "{warnings}");
    assert_eq!(index.warnings().len(), 2, "{warnings}");
}

#[test]
fn a_card_without_an_address_is_told() {
    let mut revision = revision(Policy::default());
    revision.network.lan.push(card("eth3", &["fe80::1/64"]));
    let index = Index::of(&revision).unwrap();
    assert_eq!(whose(&index, "fe80::2"), None);
    assert!(index.warnings().join("\n").contains("eth3"));
}

#[test]
fn equal_sources_of_two_are_refused() {
    let equal = hosts(&[("a", &["10.0.0.0/8"]), ("b", &["::ffff:10.0.0.0/104"])]);
    let error = Index::of(&revision(equal)).err().unwrap();
    assert!(matches!(error, IndexError::EqualSources { .. }));
    assert!(
        error
            .to_string()
            .contains("a and b both have the source 10.0.0.0/8"),
        "{error}"
    );
    let mut two = revision(Policy::default());
    two.network.lan.push(card("eth3", &["192.168.10.2/24"]));
    assert!(matches!(
        Index::of(&two),
        Err(IndexError::EqualSources { .. })
    ));
    let named = revision(hosts(&[("lan/eth1", &["10.0.0.0/8"])]));
    assert!(matches!(
        Index::of(&named),
        Err(IndexError::EqualNames { .. })
    ));
}

/// Networks in a corner of an address space small enough that they often lie in each other, at the edge of the space.
fn networks(ipv6: bool) -> impl Strategy<Value = Cidr> {
    (any::<u8>(), 0u8..=8).prop_map(move |(low, bits)| {
        let address: IpAddr = if ipv6 {
            std::net::Ipv6Addr::from(u128::MAX << 8 | u128::from(low)).into()
        } else {
            std::net::Ipv4Addr::from(u32::MAX << 8 | u32::from(low)).into()
        };
        let width = if ipv6 { 128 } else { 32 };
        Cidr {
            address,
            length: width - bits,
        }
        .network()
    })
}

fn any_network() -> impl Strategy<Value = Cidr> {
    prop_oneof![networks(false), networks(true)]
}

proptest! {
    #[test]
    fn owners_and_networks_are_those_of_a_naive_model(
        lists in prop::collection::vec(prop::collection::btree_set(any_network(), 1..4), 0..8),
        cards in prop::collection::btree_set(any_network(), 0..4),
    ) {
        let mut policy = Policy::default();
        let mut taken = std::collections::BTreeSet::new();
        for (number, list) in lists.into_iter().enumerate() {
            let sources = list.into_iter().filter(|network| taken.insert(*network)).collect();
            let host = clawgress_config::policy::Host { sources, ..Default::default() };
            policy.hosts.insert(format!("h{number}"), host);
        }
        let mut revision = revision(policy);
        revision.network.lan = cards
            .iter()
            .enumerate()
            .map(|(number, network)| card(&format!("eth{number}"), &[&network.to_string()]))
            .collect();
        let index = Index::of(&revision).unwrap();

        let naive = |address: IpAddr| {
            let of_hosts = revision.policy.hosts.iter().flat_map(|(name, host)| {
                host.sources.iter().map(move |source| (name.clone(), *source))
            });
            let of_cards = revision.network.lan.iter().flat_map(|card| {
                card.addresses.iter().map(move |network| (format!("lan/{}", card.name), *network))
            });
            let longest = |claims: &mut dyn Iterator<Item = (String, Cidr)>| {
                claims
                    .filter(|(_, network)| network.contains(address))
                    .max_by_key(|(_, network)| network.length)
                    .map(|(name, _)| name)
            };
            longest(&mut of_hosts.into_iter()).or_else(|| longest(&mut of_cards.into_iter()))
        };
        let disjoint = index.disjoint_sources();
        for low in 0..=255u8 {
            for address in [
                IpAddr::from(std::net::Ipv4Addr::from(u32::MAX << 8 | u32::from(low))),
                IpAddr::from(std::net::Ipv6Addr::from(u128::MAX << 8 | u128::from(low))),
            ] {
                let expected = naive(address);
                let found = index.principal_of(address);
                prop_assert_eq!(found.map(|principal| principal.name.clone()), expected, "{}", address);
                let holding: Vec<_> =
                    disjoint.iter().filter(|(network, _)| network.contains(address)).collect();
                prop_assert!(holding.len() <= 1, "{:?}", holding);
                prop_assert_eq!(holding.first().map(|(_, id)| *id), found.map(|principal| principal.id));
                if let Some(principal) = found {
                    prop_assert!(principal.sources.iter().any(|source| source.contains(address)));
                }
            }
        }
        let mut sorted = disjoint.clone();
        sorted.sort();
        prop_assert_eq!(&sorted, &disjoint);
        // As few as can be: no two neighbours of one owner make up one network.
        for pair in disjoint.windows(2) {
            let [(first, owner), (second, other)] = pair else { continue };
            let joined = Cidr { address: first.address, length: first.length.saturating_sub(1) };
            prop_assert!(
                owner != other
                    || first.length != second.length
                    || first.length == 0
                    || !joined.contains(second.address)
                    || joined.network() != joined,
                "{} and {}", first, second
            );
        }
    }
}
