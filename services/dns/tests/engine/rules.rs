//! The rules of agents, as far as a question and where it leads can be judged by them.

use clawgress_config::Cidr;
use clawgress_config::access::{Action, Agent, AuthType, IdentityMatch, Rule, RuleMode, Status};
use clawgress_config::policy::DomainPattern;
use clawgress_link::pins::FromEnforcer;
use clawgress_policy::Revision;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::world::{World, address, ask, policy, revision};

/// An agent with an address of its own, the host agent-1, the host agent-2 with names on the wire, and the LAN.
pub(crate) const BOUND: [u8; 4] = [10, 66, 0, 5];
const OFF: [u8; 4] = [10, 66, 0, 6];
pub(crate) const ONE: [u8; 4] = [10, 66, 0, 1];
const TWO: [u8; 4] = [10, 66, 0, 2];
const SOMEBODY: [u8; 4] = [10, 66, 0, 9];

fn cidr(address: [u8; 4], length: u8) -> Cidr {
    Cidr {
        address: address.into(),
        length,
    }
}

fn agent(source: [u8; 4], status: Status) -> Agent {
    Agent {
        team_id: "research".to_owned(),
        project_id: "crawler".to_owned(),
        environment: "production".to_owned(),
        auth_type: AuthType::ApiKey,
        status,
        sources: [cidr(source, 32)].into(),
        bound: false,
    }
}

pub(crate) fn rule(action: Action, priority: u32, domains: &[&str]) -> Rule {
    Rule {
        version: 1,
        priority,
        enabled: true,
        mode: RuleMode::Enforce,
        identity: IdentityMatch::default(),
        domains: domains
            .iter()
            .map(|name| DomainPattern::parse(name).unwrap())
            .collect(),
        networks: [].into(),
        ports: [].into(),
        methods: [].into(),
        path_prefixes: [].into(),
        time_window: None,
        action,
        alert: false,
        plain_tunnel: false,
        upgrade: false,
        label: None,
    }
}

pub(crate) fn ruled(rules: impl IntoIterator<Item = (&'static str, Rule)>) -> Revision {
    let mut revision = revision(2, &policy());
    revision.access.agents = [
        ("bound".to_owned(), agent(BOUND, Status::Active)),
        ("off".to_owned(), agent(OFF, Status::Disabled)),
    ]
    .into();
    let rules = rules.into_iter().map(|(id, rule)| (id.to_owned(), rule));
    revision.access.rules = rules.collect();
    revision
}

pub(crate) async fn with(rules: impl IntoIterator<Item = (&'static str, Rule)>) -> World {
    let world = World::enforcing().await;
    world.load_revision(&ruled(rules)).await;
    world
}

#[tokio::test]
async fn rules_go_before_the_lists_and_those_that_name_somebody_are_for_that_one_alone() {
    let mut team = rule(Action::Allow, 10, &["team.example"]);
    team.identity.teams = ["research".to_owned()].into();
    let mut no = rule(Action::Deny, 5, &["everybody.example"]);
    no.label = Some("not any more".to_owned());
    no.identity.agents = ["bound".to_owned()].into();
    let all = rule(Action::Allow, 20, &["all.example"]);
    let world = with([("team", team), ("no", no), ("all", all)]).await;
    for name in ["team.example", "all.example", "everybody.example"] {
        world.set(name, vec![address(name, "198.51.100.1")]);
    }
    let may = async |source, name| {
        world.ask(source, name, RecordType::A).await.code() == ResponseCode::NoError
    };
    assert!(may(BOUND, "team.example").await && !may(SOMEBODY, "team.example").await);
    for source in [BOUND, ONE, TWO, SOMEBODY] {
        assert!(may(source, "all.example").await, "{source:?}");
    }
    assert!(world.is_pinned("bound", "team.example", "198.51.100.1".parse().unwrap()));
    let denied = world.ask(BOUND, "everybody.example", RecordType::A).await;
    assert_eq!(denied.code(), ResponseCode::NXDomain);
    assert_eq!(denied.why(), (15, "rule not any more".to_owned()));
    assert!(may(SOMEBODY, "everybody.example").await);
    let off = world.ask(OFF, "all.example", RecordType::A).await;
    assert_eq!(off.why(), (15, "agent-disabled".to_owned()));
}

#[tokio::test]
async fn where_a_name_leads_is_judged_too() {
    let mut network = rule(Action::Deny, 5, &[]);
    network.networks = [cidr([198, 51, 100, 0], 24)].into();
    let all = rule(Action::Allow, 20, &["all.example"]);
    let world = with([("network", network), ("all", all)]).await;
    let both = ["198.51.100.1", "203.0.113.1"].map(|to| address("all.example", to));
    world.set("all.example", both);
    let reply = world.ask(BOUND, "all.example", RecordType::A).await;
    assert_eq!(reply.addresses(), ["203.0.113.1"]);
    assert!(!world.is_pinned("bound", "all.example", "198.51.100.1".parse().unwrap()));
    world.set(
        "everybody.example",
        vec![address("everybody.example", "198.51.100.1")],
    );
    let reply = world.ask(BOUND, "everybody.example", RecordType::A).await;
    assert_eq!(reply.why(), (15, "rule".to_owned()));
}

#[tokio::test]
async fn a_rule_in_report_mode_resolves_and_one_for_every_destination_has_a_budget() {
    let mut tried = rule(Action::Deny, 5, &["tried.example"]);
    tried.mode = RuleMode::Report;
    let mut every = rule(Action::Allow, 20, &[]);
    every.identity.agents = ["bound".to_owned()].into();
    let world = with([("tried", tried), ("every", every)]).await;
    world.set(
        "tried.example",
        vec![address("tried.example", "198.51.100.1")],
    );
    let reply = world.ask(SOMEBODY, "tried.example", RecordType::A).await;
    assert_eq!(reply.addresses(), ["198.51.100.1"]);
    let mut spent = 0;
    for n in 0..100 {
        let name = format!("n{n}.any.example");
        world.set(&name, vec![address(&name, "198.51.100.3")]);
        let reply = world.ask(BOUND, &name, RecordType::A).await;
        spent += usize::from(reply.code() == ResponseCode::NoError);
    }
    assert_eq!(spent, 60);
}

#[tokio::test]
async fn the_front_has_the_names_that_a_rule_opens_on_the_wire() {
    let wire = rule(Action::Allow, 20, &["rule.example"]);
    let mut other = rule(Action::Allow, 20, &["ssh.example"]);
    other.ports = [22].into();
    let no = rule(Action::Deny, 5, &["two.example"]);
    let world = with([("wire", wire), ("other", other), ("no", no)]).await;
    for name in ["rule.example", "ssh.example", "two.example"] {
        world.set(name, vec![address(name, "198.51.100.1")]);
    }
    let front = async |name| {
        let reply = ask(world.front, [127, 0, 0, 1], name, RecordType::A).await;
        reply.code() == ResponseCode::NoError
    };
    assert!(front("rule.example").await);
    assert!(!front("ssh.example").await && !front("two.example").await);
    // What it leads to on the wire opens nothing by address there; every other port does.
    let reply = world.ask(TWO, "ssh.example", RecordType::A).await;
    assert_eq!(reply.addresses(), ["198.51.100.1"]);
    assert!(world.is_pinned("agent-2", "ssh.example", "198.51.100.1".parse().unwrap()));
}

#[tokio::test]
async fn whom_the_kill_switch_holds_has_no_name() {
    let world = with([("all", rule(Action::Allow, 20, &["all.example"]))]).await;
    world.set("all.example", vec![address("all.example", "198.51.100.1")]);
    let may = async |source| {
        world.ask(source, "all.example", RecordType::A).await.code() == ResponseCode::NoError
    };
    let blocked = |first, all, principals: &[&str]| FromEnforcer::Blocked {
        first,
        all,
        principals: principals.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert!(may(BOUND).await && may(ONE).await);
    world.tell(&blocked(true, false, &["bound"]));
    world.tell(&blocked(false, false, &["agent-2"]));
    eventually_async(async || !may(TWO).await).await;
    assert!(!may(BOUND).await && may(ONE).await);
    let reply = world.ask(BOUND, "all.example", RecordType::A).await;
    assert_eq!(reply.why(), (15, "blocked".to_owned()));
    world.tell(&blocked(true, true, &[]));
    eventually_async(async || !may(ONE).await).await;
    world.tell(&blocked(true, false, &[]));
    eventually_async(async || may(BOUND).await).await;
}

async fn eventually_async(attempt: impl AsyncFn() -> bool) {
    for _ in 0..200 {
        if attempt().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it did not come about");
}
