//! What rules about the world do not mean, and what the proxy can't count for a host.

use clawgress_config::access::{Action, RuleMode};
use clawgress_policy::{Host, Moment, Reason, Request};

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
fn what_a_host_is_counted_for_is_denied_on_the_proxy() {
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
    let decide = |source: &str, name: &str| {
        let request = Request {
            source: source.parse().unwrap(),
            ..tunnel(name)
        };
        let moment = Moment::trusted(NOW);
        assert!(
            world.rules.decide(&world.index, &request, moment).allowed,
            "{source} {name}"
        );
        world
            .rules
            .decide_on_proxy(&world.index, &request, moment)
            .reason
    };
    assert_eq!(decide("192.168.10.9", "a.example"), Some(Reason::Uncounted));
    assert_eq!(decide("192.168.10.9", "b.example"), None);
    assert_eq!(
        decide("192.168.10.10", "a.example"),
        Some(Reason::Uncounted)
    );
    assert_eq!(decide("192.168.10.11", "a.example"), None);
}
