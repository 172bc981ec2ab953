//! What rules about the world do not mean, and by whose limits the proxy's flows count.

use std::collections::BTreeSet;

use clawgress_config::access::{Action, RuleMode};
use clawgress_config::policy::DomainPattern;
use clawgress_policy::{Host, Moment, Request};
use proptest::collection::btree_set;
use proptest::prelude::*;
use proptest::sample::select;

use crate::made::{NOW, World, rule, tunnel};

#[test]
fn a_rule_about_the_world_is_not_about_what_is_inside() {
    let mut world_wide = rule(Action::Allow, 2, &[]);
    world_wide.networks = ["0.0.0.0/0", "::/0"].map(crate::made::cidr).into();
    let mut tried = rule(Action::Deny, 1, &[]);
    tried.mode = RuleMode::Report;
    let anything = rule(Action::Allow, 3, &[]);
    let mut lab = rule(Action::Allow, 4, &[]);
    lab.networks = ["10.20.0.0/16"].map(crate::made::cidr).into();
    let world = World::with(&[
        ("world", world_wide),
        ("tried", tried),
        ("anything", anything),
        ("lab", lab),
    ]);
    let allowed = |address: &str| {
        let request = Request {
            host: Host::Address(address.parse().unwrap()),
            ..tunnel("unused.example")
        };
        world.decide(&request).allowed
    };
    for outside in ["203.0.113.7", "2001:db8::7"] {
        assert!(allowed(outside), "{outside}");
    }
    for inside in [
        "169.254.169.254",
        "168.63.129.16",
        "10.0.0.1",
        "192.168.10.1",
        "100.64.0.1",
        "::ffff:169.254.169.254",
        "fd00::1",
        "fe80::1",
        "64:ff9b::a9fe:a9fe",
    ] {
        assert!(!allowed(inside), "{inside}");
    }
    assert!(allowed("10.20.0.1"), "what a network is about");
}

#[test]
fn what_the_proxy_carries_counts_by_the_limits_of_the_host_that_it_is_for() {
    let policy = clawgress_config::policy::Policy::from_json(
        br#"{"version": 1, "allow": {"domains": ["a.example", "b.example"], "ports": [443]},
            "hosts": {
                "capped": {"sources": ["192.168.10.9/32"], "allow": {"domains": ["a.example", "b.example"], "ports": [443]},
                    "exfil": {"domains": {"a.example": {"bytes": 1000, "period": "day"}}}},
                "slow": {"sources": ["192.168.10.10/32"], "allow": {"domains": ["a.example"], "ports": [443]},
                    "limits": {"egress_kbps": 100}}}}"#,
    )
    .unwrap();
    let world = World::of(policy, clawgress_config::access::Access::default());
    let counted = |source: &str, name: Option<&str>| {
        let found = world.index.counted_on_proxy(source.parse().unwrap(), name);
        found.map(|counted| {
            let pattern = counted.pattern.map(DomainPattern::as_str);
            (counted.holder.name.as_str(), pattern)
        })
    };
    let capped = "192.168.10.9";
    assert_eq!(
        counted(capped, Some("a.example")),
        Some(("capped", Some("a.example")))
    );
    assert_eq!(
        counted("::ffff:192.168.10.9", Some("a.example")),
        Some(("capped", Some("a.example")))
    );
    assert_eq!(counted(capped, Some("b.example")), None);
    // Which may be the address of anything.
    assert_eq!(counted(capped, None), Some(("capped", None)));
    let slow = "192.168.10.10";
    assert_eq!(counted(slow, Some("a.example")), Some(("slow", None)));
    assert_eq!(counted(slow, None), Some(("slow", None)));
    for other in ["192.168.10.11", "203.0.113.1"] {
        assert_eq!(counted(other, Some("a.example")), None);
        assert_eq!(counted(other, None), None);
    }
    // The way is open to all of them, as it is beside the proxy.
    for source in [capped, slow] {
        let request = Request {
            source: source.parse().unwrap(),
            ..tunnel("a.example")
        };
        let decision = world
            .rules
            .decide(&world.index, &request, Moment::trusted(NOW));
        assert!(decision.allowed, "{source}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// One pattern says which caps a name counts against.
    #[test]
    fn the_most_specific_cap_tells_all_the_others(
        patterns in btree_set(
            select(vec!["e", "*.e", "a.e", "*.a.e", "b.a.e", "*.b.a.e", "c.b.a.e", "ba.e", "*.ba.e"]),
            1..6,
        ),
        name in select(vec!["e", "a.e", "b.a.e", "c.b.a.e", "d.c.b.a.e", "ba.e", "x.ba.e", "x.e"]),
    ) {
        let domains: Vec<String> = patterns
            .iter()
            .map(|pattern| format!(r#""{pattern}xample""#))
            .collect();
        let caps: Vec<String> = patterns
            .iter()
            .map(|pattern| format!(r#""{pattern}xample": {{"bytes": 9, "period": "day"}}"#))
            .collect();
        let policy = format!(
            r#"{{"version": 1, "allow": {{"domains": ["z.example"]}}, "hosts": {{"h": {{
                "sources": ["192.168.10.9/32"], "allow": {{"domains": [{}]}},
                "exfil": {{"domains": {{{}}}}}}}}}}}"#,
            domains.join(","),
            caps.join(",")
        );
        let policy = clawgress_config::policy::Policy::from_json(policy.as_bytes()).unwrap();
        let world = World::of(policy, clawgress_config::access::Access::default());
        let name = format!("{name}xample");
        let who = world.index.by_name("h").unwrap();
        let expected: BTreeSet<&str> = world
            .index
            .caps_of(who, &name)
            .map(|(pattern, _)| pattern.as_str())
            .collect();
        let counted = world.index.counted_on_proxy("192.168.10.9".parse().unwrap(), Some(&name));
        let found: BTreeSet<&str> = counted
            .and_then(|counted| counted.pattern)
            .into_iter()
            .flat_map(|pattern| who.caps_around(pattern))
            .map(|(pattern, _)| pattern.as_str())
            .collect();
        prop_assert_eq!(found, expected);
    }
}
