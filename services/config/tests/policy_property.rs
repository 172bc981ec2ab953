//! A property: every policy survives tree, text and policy.json; and no bytes make a reader panic.

use std::collections::{BTreeMap, BTreeSet};

use clawgress_config::policy::{
    Allow, Cap, Day, DomainPattern, Host, Limits, Mtls, Period, Policy, PortRule, Protocol, Proxy,
    ProxyMode, Scope, TimeOfDay, TimeWindow,
};
use clawgress_config::{Cidr, Tree, curly, load, set_lines, validate};
use proptest::prelude::*;

fn pattern() -> impl Strategy<Value = DomainPattern> {
    // Few names, so that allowed, labelled and capped ones meet.
    prop_oneof![
        prop::sample::select(vec![
            "a.example",
            "*.a.example",
            "b.example",
            "*.net",
            "bücher.example",
            "_x.b.example"
        ])
        .prop_map(str::to_owned),
        "[a-z][a-z0-9]{0,8}\\.(com|org)",
    ]
    .prop_map(|name| DomainPattern::parse(&name).unwrap())
}

fn network() -> impl Strategy<Value = Cidr> {
    let v4 = (any::<u32>(), 0_u8..=32).prop_map(|(bits, length)| Cidr {
        address: std::net::Ipv4Addr::from(bits).into(),
        length,
    });
    let v6 = (any::<u128>(), 0_u8..=128).prop_map(|(bits, length)| Cidr {
        address: std::net::Ipv6Addr::from(bits | 1 << 127).into(),
        length,
    });
    prop_oneof![v4, v6].prop_map(|cidr| cidr.network())
}

fn source() -> impl Strategy<Value = Cidr> {
    network().prop_filter("sources are unicast", |cidr| {
        cidr.length == 0 || !(cidr.address.is_loopback() || cidr.address.is_multicast())
    })
}

fn window() -> impl Strategy<Value = TimeWindow> {
    (
        prop::collection::btree_set(prop::sample::select(Day::ALL.to_vec()), 1..=7),
        0_u16..1440,
        0_u16..=1440,
    )
        .prop_filter("a window has a length", |(_, start, end)| start != end)
        .prop_map(|(days, start, end)| TimeWindow {
            days,
            start: TimeOfDay(start),
            end: TimeOfDay(end),
        })
}

fn proxy() -> impl Strategy<Value = Proxy> {
    let file = "/config/[a-z]{1,8}/[a-z.-]{1,8}[a-z]";
    let mtls = (file, file, file).prop_map(|(ca, certificate, key)| Mtls {
        ca,
        certificate,
        key,
    });
    (
        prop::option::of(Just(ProxyMode::SniAllowlist)),
        prop::collection::btree_set(pattern(), 0..4),
        prop::option::of(prop_oneof![
            "[a-z]{1,9}\\.example:[1-9][0-9]{0,3}",
            Just("[2001:db8::7]:3128".to_owned())
        ]),
        prop::option::of(mtls),
    )
        .prop_map(|(mode, domains, backend, mtls)| Proxy {
            mode,
            domains,
            backend,
            mtls,
        })
}

fn scope() -> impl Strategy<Value = Scope> {
    let port = (1_u16.., any::<bool>()).prop_map(|(port, udp)| PortRule {
        port,
        protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
    });
    // Few numbers, so that one port has both protocols.
    let port = prop_oneof![
        port,
        (prop::sample::select(vec![53, 443]), any::<bool>()).prop_map(|(port, udp)| PortRule {
            port,
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
        })
    ];
    (
        prop::collection::btree_set(pattern(), 0..6),
        prop::collection::btree_set(network(), 0..4),
        prop::collection::btree_set(port, 0..5),
        prop::option::of(proxy()),
        prop::option::of(window()),
        prop::collection::vec((any::<prop::sample::Index>(), window()), 0..4),
        prop::option::of(1_u32..=1_000_000_000),
    )
        .prop_map(
            |(domains, ips, ports, proxy, time_window, windows, egress_kbps)| {
                let listed: BTreeSet<_> = domains
                    .iter()
                    .chain(proxy.iter().flat_map(|proxy| &proxy.domains))
                    .cloned()
                    .collect();
                let listed: Vec<_> = listed.into_iter().collect();
                // Windows are for listed domains only.
                let domain_time_windows = windows
                    .into_iter()
                    .filter(|_| !listed.is_empty())
                    .map(|(index, window)| (index.get(&listed).clone(), window))
                    .collect();
                Scope {
                    allow: Allow {
                        domains,
                        ips,
                        ports,
                    },
                    proxy,
                    time_window,
                    domain_time_windows,
                    limits: Limits { egress_kbps },
                }
            },
        )
}

fn host() -> impl Strategy<Value = Host> {
    let cap = (1_u64..=1 << 60, prop::sample::select(Period::ALL.to_vec()))
        .prop_map(|(bytes, period)| Cap { bytes, period });
    (
        prop::collection::btree_set(source(), 1..4),
        scope(),
        prop::collection::vec((any::<prop::sample::Index>(), cap.clone()), 0..3),
        prop::option::of(cap),
    )
        .prop_map(|(sources, scope, caps, of_nothing)| {
            let listed: Vec<_> = scope.allow.domains.iter().cloned().collect();
            let mut exfil: BTreeMap<_, _> = caps
                .into_iter()
                .filter(|_| !listed.is_empty())
                .map(|(index, cap)| (index.get(&listed).clone(), cap))
                .collect();
            // A cap for what nobody may reach is useless and allowed.
            exfil.extend(
                of_nothing.map(|cap| (DomainPattern::parse("unlisted.test").unwrap(), cap)),
            );
            Host {
                sources,
                scope,
                exfil,
            }
        })
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z-]{1,12}",
        "[^\\p{C}]{1,20}",
        Just("{ \"a\\b\" // # }; 'ü'".to_owned())
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    (
        scope(),
        prop::collection::btree_map(pattern(), label(), 0..5),
        prop::collection::btree_map("[A-Za-z0-9][A-Za-z0-9._-]{0,9}", host(), 0..4),
    )
        .prop_map(|(global, labels, mut hosts)| {
            let mut taken = BTreeSet::new();
            hosts.retain(|name, host| {
                name != "sni" && host.sources.iter().all(|source| taken.insert(*source))
            });
            Policy {
                global,
                labels,
                hosts,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_policy_survives_tree_text_and_json(policy in policy()) {
        let mut tree = Tree::default();
        tree.set(&["system", "host-name", "gw1"]).unwrap();
        tree.set(&["service", "clawgress", "policy", "domain", "to-be.replaced"]).unwrap();
        tree.set_policy(&policy);
        let verdict = validate(&tree);
        prop_assert_eq!(&verdict.problems, &[]);
        for text in [curly(&tree), set_lines(&tree)] {
            let loaded = load(text.as_bytes());
            prop_assert!(loaded.is_ok(), "{}\n{}", text, loaded.unwrap_err());
            let loaded = loaded.unwrap();
            prop_assert_eq!(&loaded.tree, &tree);
            let read = loaded.document.clawgress.map(|clawgress| clawgress.policy).unwrap_or_default();
            prop_assert_eq!(&read, &policy, "{}", text);
            // The canonical words are the same whichever way the policy came.
            let mut again = tree.clone();
            again.set_policy(&read);
            prop_assert_eq!(curly(&again), curly(&tree));
        }
        let written = policy.to_json(2).unwrap();
        prop_assert_eq!(&Policy::from_json(written.as_bytes()).unwrap(), &policy, "{}", written);
        let tcp_only = !written.contains("\"udp\"");
        prop_assert_eq!(policy.to_json(1).is_ok(), tcp_only);
        if let Ok(written) = policy.to_json(1) {
            prop_assert_eq!(&Policy::from_json(written.as_bytes()).unwrap(), &policy);
        }
        // Both readers judge alike, in number.
        let reading = Policy::read_json(written.as_bytes()).unwrap();
        let of_policy = verdict.warnings.iter().filter(|warning| warning.path.starts_with("service clawgress policy"));
        prop_assert_eq!(reading.warnings.len(), of_policy.count());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Policy::from_json(&bytes);
    }

    #[test]
    fn no_broken_policy_panics(policy in policy(), at in any::<prop::sample::Index>(), with in "[\\[\\]{}\",:0-9a-z\\\\ü]{0,3}") {
        let mut text = policy.to_json(2).unwrap();
        let places: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
        let place = *at.get(&places);
        let length = text[place..].chars().next().unwrap().len_utf8();
        text.replace_range(place..place + length, &with);
        if let Err(problems) = Policy::from_json(text.as_bytes()) {
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.iter().all(|problem| problem.position.is_some() && !problem.fix.is_empty()));
        }
    }
}
