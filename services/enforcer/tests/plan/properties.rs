//! What holds of every plan.

use std::net::IpAddr;

use clawgress_enforcer::plan::{self, Carry, Plan, Zones, layout, places};
use clawgress_policy::{Index, Moment, Revision};
use proptest::prelude::*;
use serde_json::Value;

use crate::revisions::{FRIDAY, all, pin, revision};

#[test]
fn the_same_input_gives_the_same_bytes() {
    for scene in all() {
        let (first, second) = (scene.plan(), scene.plan());
        assert_eq!(first.transaction(), second.transaction(), "{}", scene.name);
        assert_eq!(first.zones, second.zones, "{}", scene.name);
        assert_eq!(first.named, second.named, "{}", scene.name);
    }
}

fn elements(transaction: &str, set: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(transaction).unwrap();
    document["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|command| &command["add"]["element"])
        .filter(|element| element["name"] == set)
        .flat_map(|element| element["elem"].as_array().cloned().unwrap_or_default())
        .map(|element| match element["concat"].as_array() {
            Some(parts) => format!("{} . {}", parts[0].as_str().unwrap(), parts[1]),
            None => element.as_str().unwrap_or_default().to_owned(),
        })
        .collect()
}

/// A plan made with a pin, and a pin put where `places` says while the plan is in force, are the same.
#[test]
fn a_pin_carried_is_where_a_new_one_would_be_put() {
    for scene in all() {
        let (index, transaction) = (scene.index(), scene.plan().transaction());
        for pin in &scene.carry.pins {
            for address in &pin.addresses {
                for place in places(&index, &pin.principal, &pin.name, *address, scene.moment) {
                    let set = place.set(*address);
                    let element = match place.port {
                        Some(port) => format!("{address} . {port}"),
                        None => address.to_string(),
                    };
                    assert!(
                        elements(&transaction, set).contains(&element),
                        "{}: {address} of {} is not in {set}",
                        scene.name,
                        pin.name
                    );
                }
            }
        }
    }
}

#[test]
fn a_window_that_closes_takes_its_pins_out_of_what_opens() {
    let revision = revision(
        r#"{"version": 2, "allow": {"domains": ["a.example.com"]},
            "time_window": {"days": ["fri"], "start": "07:00", "end": "09:00"}}"#,
    );
    let index = Index::of(&revision).unwrap();
    let carry = Carry {
        pins: vec![pin("lan/eth1", "a.example.com", &["198.51.100.10"])],
        ..Carry::default()
    };
    let at = |now: i64| plan::compile(&revision, &index, Moment::trusted(now), 7, &carry);
    let open = at(FRIDAY);
    assert_eq!(open.next_change, Some(FRIDAY + 3600));
    assert_eq!(elements(&open.transaction(), "p1_pins4"), ["198.51.100.10"]);
    let shut = at(FRIDAY + 3600);
    assert!(elements(&shut.transaction(), "p1_pins4").is_empty());
    assert_eq!(elements(&shut.transaction(), "p1_shut4"), ["198.51.100.10"]);
}

#[test]
fn every_rule_leads_to_a_chain_and_every_object_has_its_meaning() {
    for scene in all() {
        let plan = scene.plan();
        let transaction = plan.transaction();
        for counted in &plan.counted {
            assert!(
                transaction.contains(&format!("\"{}\"", counted.object)),
                "{}: {} is not in the plan",
                scene.name,
                counted.object
            );
        }
    }
}

#[test]
fn one_name_more_changes_one_zone() {
    let many = |more: &str| {
        let names: Vec<String> = (0..9000)
            .map(|number| format!("\"n{number}.example.com\", "))
            .collect();
        let names = names.concat();
        let policy = format!(
            r#"{{"version": 2, "allow": {{"domains": [{names}"last.example.com"{more}]}}}}"#
        );
        let revision = revision(&policy);
        Zones::of(&revision, &Index::of(&revision).unwrap())
    };
    let (before, after) = (many(""), many(r#", "new.example.com""#));
    assert_eq!(before.zones.len(), 9);
    let changed = after.changed(&before);
    assert_eq!(changed.len(), 1);
    assert!(
        changed[0]
            .text
            .contains("new.example.com CNAME rpz-passthru.")
    );
    assert_eq!(before.zones.last().unwrap().name, layout::DENY_ZONE);
}

#[test]
fn a_name_that_no_zone_can_hold_is_told() {
    let label = "a".repeat(60);
    let name = format!("{label}.{label}.{label}.{}.com", "b".repeat(58));
    let revision = revision(&format!(
        r#"{{"version": 2, "allow": {{"domains": ["{name}"]}}}}"#
    ));
    let index = Index::of(&revision).unwrap();
    let plan = plan::compile(
        &revision,
        &index,
        Moment::trusted(FRIDAY),
        7,
        &Carry::default(),
    );
    assert!(!plan.zones.zones[0].text.contains(&label));
    assert!(
        plan.warnings
            .iter()
            .any(|warning| warning.contains("too long"))
    );
}

fn compiled(revision: &Revision) -> Plan {
    let index = Index::of(revision).unwrap();
    let moment = Moment::trusted(FRIDAY);
    plan::compile(revision, &index, moment, 7, &Carry::default())
}

#[test]
fn a_word_of_the_policy_zones_gets_into_none_of_them() {
    let mut revision = revision(
        r#"{"version": 2, "allow": {"domains": ["api.example.com"]}, "proxy": {"mode": "sni-allowlist"}}"#,
    );
    // Validation refuses it: here it is as if that had a hole.
    let proxy = revision.policy.global.proxy.as_mut().unwrap();
    proxy.backend = Some("32.1.0.0.127.rpz-client-ip:3128".to_owned());
    for zone in &compiled(&revision).zones.zones {
        assert!(!zone.text.contains("rpz-client-ip"), "{}", zone.text);
    }
}

/// What named may not be told, and by whose names it may.
fn rebinding(policy: &str) -> String {
    let named = compiled(&revision(policy)).named.text;
    let from = named.find("deny-answer-addresses").unwrap();
    let to = from + named[from..].find("};").unwrap();
    let to = to + named[to..].find('\n').unwrap();
    named[from..to].to_owned()
}

#[test]
fn a_network_opens_what_it_is_inside_of_and_one_that_is_the_world_nothing() {
    let text = rebinding(
        r#"{"version": 2, "allow": {"ips": ["0.0.0.0/0", "10.9.0.0/16", "127.0.0.0/8", "224.0.0.0/4", "::/0",
            "fd00:7::/32", "2002:a00::/24", "198.51.100.0/24"]}}"#,
    );
    let opened: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix('!'))
        .collect();
    assert_eq!(opened, ["10.9.0.0/16;", "fd00:7::/32;"]);
    assert!(!text.contains("except-from"), "{text}");
}

#[test]
fn a_next_gateway_may_be_inside_and_no_other_name() {
    let text = rebinding(
        r#"{"version": 2, "proxy": {"mode": "sni-allowlist", "backend": "gw.example.com:3128"},
            "hosts": {"a": {"sources": ["192.168.10.9/32"],
                "proxy": {"mode": "sni-allowlist", "backend": "10.7.7.7:3128"}}}}"#,
    );
    assert!(
        text.ends_with("except-from { \"gw.example.com\"; };"),
        "{text}"
    );
}

/// Where named may send questions to: the addresses of each rule, with whether they are the ones meant.
fn asked_by_named(revision: &Revision) -> Vec<(String, Value)> {
    let document: Value = serde_json::from_str(&compiled(revision).transaction()).unwrap();
    let commands = document["nftables"].as_array().unwrap().clone();
    let rules = commands.iter().map(|command| &command["add"]["rule"]);
    let output = rules.filter(|rule| rule["chain"] == "output");
    let to_53 = |rule: &&Value| {
        rule.to_string().contains(r#"["udp",53]"#)
            || rule.to_string().contains(r#"{"concat":["udp",53]}"#)
    };
    output
        .filter(|rule| rule["table"] == layout::TABLE)
        .filter(to_53)
        .filter(|rule| rule.to_string().contains("dport"))
        // Whom the box's own users may ask on loopback is another matter.
        .filter(|rule| !rule.to_string().contains(r#""op":"==","right":"lo""#))
        .map(|rule| {
            let matches = rule["expr"].as_array().unwrap().iter();
            let to = matches
                .map(|statement| &statement["match"])
                .find(|found| found["left"]["payload"]["field"] == "daddr");
            let to = to.unwrap_or_else(|| panic!("to anybody: {rule}"));
            (to["op"].as_str().unwrap().to_owned(), to["right"].clone())
        })
        .collect()
}

#[test]
fn the_sealed_ruleset_and_every_plan_know_the_same_users_of_own_ports() {
    let sealed = include_str!("../../../../rootfs-overlay/etc/clawgress/sealed.nft");
    let (_, defined) = sealed.split_once("define own_ports = {").unwrap();
    let (defined, _) = defined.split_once('}').unwrap();
    let mut sealed: Vec<String> = defined
        .split(',')
        .map(|element| element.split_whitespace().collect::<String>())
        .filter(|element| !element.is_empty())
        .collect();
    let mut planned: Vec<String> = layout::OWN_PORTS
        .iter()
        .flat_map(|(port, users)| users.iter().map(move |user| (port, user)))
        .flat_map(|(port, user)| ["tcp", "udp"].map(|protocol| format!("{protocol}.{port}.{user}")))
        .collect();
    sealed.sort();
    planned.sort();
    assert_eq!(sealed, planned);
}

#[test]
fn named_asks_the_configured_servers_or_such_as_are_not_inside() {
    let mut revision = revision(r#"{"version": 2}"#);
    let rules = asked_by_named(&revision);
    assert_eq!(rules.len(), 2);
    for (op, to) in rules {
        assert_eq!(
            (op.as_str(), &to),
            ("==", &serde_json::json!({"set": ["9.9.9.9"]}))
        );
    }
    assert!(!compiled(&revision).named.text.contains("bogus"));
    revision.name_servers.clear();
    let rules = asked_by_named(&revision);
    assert_eq!(rules.len(), 4);
    for (op, to) in rules {
        assert_eq!(op, "!=");
        let to = to.to_string();
        assert!(to.contains("10.0.0.0") || to.contains("fc00::"), "{to}");
    }
    let named = compiled(&revision).named.text;
    for block in ["10.0.0.0/8", "169.254.0.0/16", "fc00::/7"] {
        assert!(
            named.contains(&format!("server {block} {{ bogus yes; }};")),
            "{named}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever sources hosts have: no two elements of a map by source overlap, and each leads to its own principal.
    #[test]
    fn sources_never_overlap(networks in prop::collection::btree_set((0_u8..4, 8_u8..=32, any::<u32>()), 1..12)) {
        let hosts: Vec<String> = networks
            .iter()
            .enumerate()
            .map(|(at, (first, length, bits))| {
                let host = u32::from_be_bytes([10, *first, 0, 0]) | (bits & 0xffff);
                let network = host & u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
                let address = IpAddr::V4(network.into());
                format!(r#""h{at}": {{"sources": ["{address}/{length}"], "allow": {{}}}}"#)
            })
            .collect();
        let policy = format!(r#"{{"version": 2, "hosts": {{{}}}}}"#, hosts.join(","));
        // Equal sources are refused by the policy itself.
        let Ok(policy) = clawgress_config::policy::Policy::from_json(policy.as_bytes()) else {
            return Ok(());
        };
        let mut revision = revision(r#"{"version": 2}"#);
        revision.policy = policy;
        let index = Index::of(&revision).unwrap();
        let plan = plan::compile(&revision, &index, Moment::trusted(FRIDAY), 7, &Carry::default());
        let document: Value = serde_json::from_str(&plan.transaction()).unwrap();
        let elements = document["nftables"]
            .as_array()
            .unwrap()
            .iter()
            .map(|command| &command["add"]["element"])
            .find(|element| element["name"] == "principals4")
            .unwrap()["elem"]
            .as_array()
            .unwrap()
            .clone();
        let mut last: Option<u32> = None;
        for element in elements {
            let (first, end) = ends(&element[0]);
            prop_assert!(last.is_none_or(|last| last < first), "{element}");
            let who = index.principal_of(IpAddr::V4(first.into())).unwrap();
            prop_assert_eq!(&element[1]["goto"]["target"], &Value::from(format!("p{}", who.id)));
            prop_assert_eq!(index.principal_of(IpAddr::V4(end.into())).unwrap().id, who.id);
            last = Some(end);
        }
    }
}

fn ends(key: &Value) -> (u32, u32) {
    let address = |value: &Value| {
        let address: std::net::Ipv4Addr = value.as_str().unwrap().parse().unwrap();
        u32::from(address)
    };
    match key["range"].as_array() {
        Some(range) => (address(&range[0]), address(&range[1])),
        None => (address(key), address(key)),
    }
}
