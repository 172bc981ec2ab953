//! Each question leaves one event, and what repeats one more; what can't be recorded is not answered.

use clawgress_audit::event::{Decision, Event, Source};
use clawgress_config::access::WhenFull;
use clawgress_config::access::{Action, RuleMode};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::rules::{BOUND, ONE, rule, ruled, with};
use crate::world::{World, address};

fn only<'e>(events: &'e [Event], name: &str) -> Vec<&'e Event> {
    let of = |event: &&Event| event.begun.destination_host.as_deref() == Some(name);
    events.iter().filter(of).collect()
}

#[tokio::test]
async fn a_question_is_an_event_with_who_and_why() {
    let mut tried = rule(Action::Deny, 5, &["tried.example"]);
    tried.mode = RuleMode::Report;
    let mut no = rule(Action::Deny, 5, &["no.example"]);
    no.label = Some("not that".to_owned());
    no.alert = true;
    let world = with([("tried", tried), ("no", no)]).await;
    for name in ["api.example", "tried.example"] {
        world.set(name, vec![address(name, "198.51.100.1")]);
    }
    world.ask(ONE, "api.example", RecordType::A).await;
    world.ask(BOUND, "tried.example", RecordType::A).await;
    world.ask(BOUND, "no.example", RecordType::AAAA).await;
    let events = world.trail().await;
    let [listed, tried, no] = ["api.example", "tried.example", "no.example"].map(|name| {
        let found = only(&events, name);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found[0]
    });
    assert_eq!(listed.begun.source, Source::Dns);
    assert_eq!(listed.begun.agent_id.as_deref(), Some("agent-1"));
    assert_eq!(listed.begun.client_address.as_deref(), Some("10.66.0.1"));
    assert_eq!(listed.begun.policy_id.as_deref(), Some("policy.json"));
    assert_eq!(listed.begun.revision, Some(2));
    assert_eq!(listed.outcome.decision, Decision::Allow);
    assert_eq!(tried.outcome.decision, Decision::Allow);
    assert_eq!(tried.begun.enforce_would_deny.as_deref(), Some("tried"));
    assert_eq!(tried.begun.team_id.as_deref(), Some("research"));
    assert_eq!(no.outcome.decision, Decision::Deny);
    assert_eq!(no.outcome.reason.as_deref(), Some("rule"));
    assert_eq!(no.begun.policy_id.as_deref(), Some("no"));
    assert_eq!((no.begun.policy_version, no.begun.alert), (Some(1), true));
    assert_eq!(no.begun.label.as_deref(), Some("not that"));
}

#[tokio::test]
async fn what_repeats_within_a_second_is_one_event_more_with_its_number() {
    let world = World::enforcing().await;
    world.set("api.example", vec![address("api.example", "198.51.100.1")]);
    for _ in 0..10 {
        world.ask(ONE, "api.example", RecordType::A).await;
    }
    world.ask(ONE, "denied.example", RecordType::A).await;
    world.engine.end_second();
    world.engine.end_second();
    let events = world.trail().await;
    let folded: Vec<_> = only(&events, "api.example")
        .iter()
        .map(|event| event.outcome.folded)
        .collect();
    assert_eq!(folded, [None, Some(9)]);
    assert_eq!(only(&events, "denied.example").len(), 1);
    // The next second begins anew.
    world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(only(&world.trail().await, "api.example").len(), 1);
}

/// Asks for new names until one is not recorded.
async fn fill(world: &World) -> usize {
    for n in 0..40_000 {
        let reply = world
            .ask(ONE, &format!("n{n}.denied.example"), RecordType::A)
            .await;
        if reply.code() == ResponseCode::ServFail {
            assert_eq!(
                reply.why(),
                (14, "unavailable it can't be recorded".to_owned())
            );
            return n;
        }
        assert_eq!(reply.code(), ResponseCode::NXDomain);
    }
    panic!("the queue takes more than it has room for");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_answered_unless_it_is_to_be_counted() {
    let world = World::enforcing().await;
    world.set("api.example", vec![address("api.example", "198.51.100.1")]);
    let recorded = fill(&world).await;
    assert!(recorded > 1000, "{recorded}");
    let refused = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(refused.code(), ResponseCode::ServFail);
    let mut revision = ruled([]);
    revision.access.audit.when_full = WhenFull::DropCounted;
    world.load_revision(&revision).await;
    let counted = world.ask(ONE, "api.example", RecordType::A).await;
    assert_eq!(counted.addresses(), ["198.51.100.1"]);
}
