//! One case for each sentence of the design.

use std::net::IpAddr;

use clawgress_config::access::{Access, Action, RuleMode, Status};
use clawgress_config::policy::{self, Policy, Proxy, ProxyMode, Scope};
use clawgress_policy::rules::Why;
use clawgress_policy::{Host, Moment, Reason, Request};

use crate::made::{NOW, World, agent, cidr, listed, pattern, plain, rule, tunnel};

fn denied(world: &World, request: &Request<'_>) -> (String, Reason) {
    let decision = world.decide(request);
    assert!(!decision.allowed, "{decision:?}");
    (decision.policy_id.to_owned(), decision.reason.unwrap())
}

fn allowed(world: &World, request: &Request<'_>) -> String {
    let decision = world.decide(request);
    assert!(
        decision.allowed && decision.reason.is_none(),
        "{decision:?}"
    );
    decision.policy_id.to_owned()
}

#[test]
fn priority_then_deny_then_id() {
    let names = &["a.example"][..];
    let world = World::with(&[
        ("z", rule(Action::Allow, 10, names)),
        ("b", rule(Action::Deny, 20, names)),
    ]);
    assert_eq!(allowed(&world, &tunnel("a.example")), "z");
    let world = World::with(&[
        ("a", rule(Action::Allow, 10, names)),
        ("z", rule(Action::Deny, 10, &["*.example"])),
        ("y", rule(Action::Deny, 10, &[])),
    ]);
    assert_eq!(
        denied(&world, &tunnel("a.example")),
        ("y".to_owned(), Reason::Rule)
    );
    assert_eq!(world.decide(&tunnel("a.example")).version, 3);
}

#[test]
fn without_a_rule_the_list_and_then_nothing() {
    let world = World::with(&[]);
    assert_eq!(allowed(&world, &tunnel("listed.example")), "policy.json");
    let decision = world.decide(&tunnel("listed.example"));
    assert_eq!((decision.label, decision.version), (Some("on the list"), 7));
    assert!(!decision.plain_tunnel && !decision.upgrade);
    let other = ("default-deny".to_owned(), Reason::NotAllowlisted);
    assert_eq!(denied(&world, &tunnel("other.example")), other);
    let by_port = Request {
        port: 22,
        ..tunnel("listed.example")
    };
    assert_eq!(denied(&world, &by_port).1, Reason::Port);
    let address = |text: &str| Request {
        host: Host::Address(text.parse().unwrap()),
        ..tunnel("")
    };
    assert_eq!(allowed(&world, &address("198.51.100.7")), "policy.json");
    assert_eq!(
        denied(&world, &address("198.51.101.7")).1,
        Reason::NotAllowlisted
    );
}

#[test]
fn a_host_of_policy_json_has_its_own_list_on_the_proxy_too() {
    let mut policy = listed();
    let mut host = policy::Host {
        sources: [cidr("192.168.10.10/32")].into(),
        ..policy::Host::default()
    };
    host.scope.allow.domains = [pattern("own.example")].into();
    policy.hosts.insert("h".to_owned(), host);
    let world = World::of(policy, Access::default());
    let from = |source: [u8; 4], name| Request {
        source: source.into(),
        ..tunnel(name)
    };
    assert_eq!(
        allowed(&world, &from([192, 168, 10, 10], "own.example")),
        "policy.json"
    );
    denied(&world, &from([192, 168, 10, 10], "listed.example"));
    allowed(&world, &from([192, 168, 10, 11], "listed.example"));
    denied(&world, &from([192, 168, 10, 11], "own.example"));
    allowed(&world, &from([203, 0, 113, 1], "listed.example"));
}

#[test]
fn names_for_the_wire_are_for_its_ports() {
    let policy = Policy {
        global: Scope {
            proxy: Some(Proxy {
                mode: Some(ProxyMode::SniAllowlist),
                domains: [pattern("wire.example")].into(),
                ..Proxy::default()
            }),
            allow: policy::Allow {
                domains: [pattern("listed.example")].into(),
                ports: [443, 8443]
                    .map(|port| policy::PortRule {
                        port,
                        protocol: policy::Protocol::Tcp,
                    })
                    .into(),
                ..policy::Allow::default()
            },
            ..Scope::default()
        },
        ..Policy::default()
    };
    let world = World::of(policy, Access::default());
    let at = |name, port| Request {
        port,
        ..tunnel(name)
    };
    allowed(&world, &at("wire.example", 443));
    assert_eq!(denied(&world, &at("wire.example", 8443)).1, Reason::Port);
    assert_eq!(denied(&world, &at("wire.example", 80)).1, Reason::Port);
    assert_eq!(
        denied(&world, &at("listed.example", 443)).1,
        Reason::NotAllowlisted
    );
    allowed(&world, &at("listed.example", 8443));
}

#[test]
fn identity_by_every_field_and_star() {
    let mut one = rule(Action::Allow, 1, &["a.example"]);
    one.identity.agents = ["agent-*".to_owned(), "other".to_owned()].into();
    one.identity.teams = ["research".to_owned()].into();
    one.identity.environments = ["prod*".to_owned()].into();
    let world = World::with(&[("one", one)]);
    assert_eq!(allowed(&world, &tunnel("a.example")), "one");
    let asked = tunnel("a.example");
    // Known agents and unknown ones are judged alike.
    for request in [
        Request {
            team_id: "sales",
            ..asked
        },
        Request {
            agent_id: "agent",
            ..asked
        },
        Request {
            environment: "staging",
            ..asked
        },
        Request {
            agent_id: "",
            team_id: "",
            project_id: "",
            environment: "",
            ..asked
        },
    ] {
        assert_eq!(denied(&world, &request).0, "default-deny");
    }
    assert_eq!(
        allowed(
            &world,
            &Request {
                agent_id: "agent-9",
                ..asked
            }
        ),
        "one"
    );
    assert_eq!(
        allowed(
            &world,
            &Request {
                agent_id: "other",
                ..asked
            }
        ),
        "one"
    );
}

#[test]
fn a_disabled_agent_and_a_sealed_box_reach_nothing() {
    let mut disabled = agent("t", "p", "e");
    disabled.status = Status::Disabled;
    let access = Access {
        agents: [("agent-1".to_owned(), disabled)].into(),
        rules: [("all".to_owned(), rule(Action::Allow, 1, &[]))].into(),
        ..Access::default()
    };
    let world = World::of(listed(), access.clone());
    assert_eq!(
        denied(&world, &tunnel("listed.example")).1,
        Reason::AgentDisabled
    );
    let mut sealed = crate::made::revision(
        listed(),
        Access {
            agents: [].into(),
            ..access
        },
    );
    sealed.enabled = false;
    let world = World {
        index: clawgress_policy::Index::of(&sealed).unwrap(),
        rules: clawgress_policy::Rules::compile(&sealed.access, &crate::made::zone()).unwrap(),
    };
    assert_eq!(
        denied(&world, &tunnel("listed.example")).1,
        Reason::Unavailable
    );
}

#[test]
fn networks_of_permissions_are_for_literals_and_of_denials_for_what_names_lead_to() {
    let with_network = |action, priority| {
        let mut rule = rule(action, priority, &[]);
        rule.networks = [cidr("192.0.2.0/24"), cidr("2001:db8::/32")].into();
        rule
    };
    let world = World::with(&[("allow", with_network(Action::Allow, 1))]);
    let inside: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    for address in inside {
        let literal = Request {
            host: Host::Address(address),
            ..tunnel("")
        };
        assert_eq!(allowed(&world, &literal), "allow");
    }
    let clothed = Request {
        host: Host::Address("::ffff:192.0.2.7".parse().unwrap()),
        ..tunnel("")
    };
    assert_eq!(allowed(&world, &clothed), "allow");
    let leads = Request {
        resolved: &inside,
        ..tunnel("other.example")
    };
    denied(&world, &leads);
    let world = World::with(&[("deny", with_network(Action::Deny, 1))]);
    assert_eq!(allowed(&world, &tunnel("listed.example")), "policy.json");
    let leads = Request {
        resolved: &inside,
        ..tunnel("listed.example")
    };
    assert_eq!(denied(&world, &leads).0, "deny");
}

#[test]
fn method_and_path() {
    let mut uploads = rule(Action::Deny, 1, &["listed.example"]);
    uploads.methods = ["POST".to_owned()].into();
    uploads.path_prefixes = ["/upload".to_owned()].into();
    uploads.ports = [80].into();
    let world = World::with(&[("uploads", uploads)]);
    assert_eq!(
        denied(&world, &plain("listed.example", "POST", "/upload/x")).0,
        "uploads"
    );
    allowed(&world, &plain("listed.example", "POST", "/uploads"));
    allowed(&world, &plain("listed.example", "GET", "/upload"));
    allowed(&world, &tunnel("listed.example"));
    // What a tunnel hides is a reason to deny.
    let hidden = Request {
        port: 80,
        ..tunnel("listed.example")
    };
    assert_eq!(denied(&world, &hidden).0, "uploads");
    let unseen = Request {
        method: None,
        path: None,
        ..plain("listed.example", "", "")
    };
    assert_eq!(denied(&world, &unseen).0, "uploads");
    // And none to allow.
    let mut reads = rule(Action::Allow, 1, &["a.example"]);
    reads.methods = ["GET".to_owned()].into();
    reads.path_prefixes = ["/v1".to_owned()].into();
    reads.ports = [80].into();
    let world = World::with(&[("reads", reads)]);
    assert_eq!(
        allowed(&world, &plain("a.example", "GET", "/v1/x")),
        "reads"
    );
    denied(
        &world,
        &Request {
            port: 80,
            ..tunnel("a.example")
        },
    );
    denied(&world, &plain("a.example", "GET", "/v1x"));
    let mut tunnels = rule(Action::Allow, 1, &["a.example"]);
    tunnels.methods = ["CONNECT".to_owned()].into();
    let world = World::with(&[("tunnels", tunnels)]);
    allowed(&world, &tunnel("a.example"));
    denied(&world, &plain("a.example", "GET", "/"));
}

#[test]
fn report_tells_and_never_undoes_an_enforced_rule() {
    let mut report = rule(Action::Deny, 10, &["*.example"]);
    report.mode = RuleMode::Report;
    report.alert = true;
    let later = |action| rule(action, 20, &["a.example"]);
    let world = World::with(&[("report", report.clone()), ("allow", later(Action::Allow))]);
    let decision = world.decide(&tunnel("a.example"));
    assert_eq!(
        (decision.policy_id, decision.would_deny),
        ("allow", Some("report"))
    );
    assert!(decision.allowed && decision.alert);
    let decision = world.decide(&tunnel("listed.example"));
    assert_eq!(
        (decision.policy_id, decision.would_deny),
        ("policy.json", Some("report"))
    );
    // What nothing else decides passes, and is told.
    let decision = world.decide(&tunnel("other.example"));
    assert_eq!(
        (decision.policy_id, decision.would_deny),
        ("report", Some("report"))
    );
    assert!(decision.allowed);
    let world = World::with(&[("report", report.clone()), ("deny", later(Action::Deny))]);
    let decision = world.decide(&tunnel("a.example"));
    assert_eq!((decision.policy_id, decision.would_deny), ("deny", None));
    assert!(!decision.allowed && decision.alert);
    // One that comes after the decision is not even looked at.
    let world = World::with(&[
        ("report", report),
        ("allow", rule(Action::Allow, 5, &["a.example"])),
    ]);
    let decision = world.decide(&tunnel("a.example"));
    assert_eq!((decision.would_deny, decision.alert), (None, false));
}

#[test]
fn what_a_rule_grants_besides() {
    let mut grant = rule(Action::Allow, 1, &["a.example"]);
    grant.plain_tunnel = true;
    grant.upgrade = true;
    grant.label = Some("ssh over the proxy".to_owned());
    let world = World::with(&[("grant", grant)]);
    let decision = world.decide(&tunnel("a.example"));
    assert!(decision.plain_tunnel && decision.upgrade);
    assert_eq!(decision.label, Some("ssh over the proxy"));
}

#[test]
fn explanation_in_order() {
    let mut off = rule(Action::Deny, 5, &[]);
    off.enabled = false;
    let mut elsewhere = rule(Action::Allow, 6, &["a.example"]);
    elsewhere.ports = [22].into();
    let mut others = rule(Action::Allow, 7, &["a.example"]);
    others.identity.teams = ["sales".to_owned()].into();
    let mut reads = rule(Action::Allow, 8, &["a.example"]);
    reads.path_prefixes = ["/v1".to_owned()].into();
    let mut report = rule(Action::Deny, 9, &["a.example"]);
    report.mode = RuleMode::Report;
    let world = World::with(&[
        ("off", off),
        ("elsewhere", elsewhere),
        ("others", others),
        ("reads", reads),
        ("report", report),
        ("deny", rule(Action::Deny, 20, &["*.net"])),
    ]);
    let told: Vec<(String, Why)> = world
        .rules
        .explain(&world.index, &tunnel("a.example"), Moment::trusted(NOW))
        .into_iter()
        .map(|considered| (considered.policy_id, considered.why))
        .collect();
    let expected = [
        ("off", Why::Disabled),
        ("elsewhere", Why::Port),
        ("others", Why::Identity),
        ("reads", Why::Hidden),
        ("report", Why::Reported),
        ("deny", Why::Destination),
        ("report", Why::LetsPass),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for ((id, why), (expected_id, expected_why)) in told.iter().zip(expected) {
        assert_eq!((id.as_str(), *why), (expected_id, expected_why));
    }
}
