//! Rules with windows: open, shut, and while the clock can't be trusted.

use clawgress_config::access::Action;
use clawgress_config::policy::{Day, TimeOfDay, TimeWindow};
use clawgress_policy::{Moment, Reason};

use crate::made::{NOW, World, rule, tunnel};

/// Every day from this hour to that.
fn hours(start: u16, end: u16) -> TimeWindow {
    TimeWindow {
        days: Day::ALL.into(),
        start: TimeOfDay(start * 60),
        end: TimeOfDay(end * 60),
    }
}

#[test]
fn a_rule_holds_in_its_window_alone() {
    let mut allow = rule(Action::Allow, 1, &["a.example"]);
    allow.time_window = Some(hours(9, 17));
    let mut deny = rule(Action::Deny, 1, &["listed.example"]);
    deny.time_window = Some(hours(13, 14));
    let world = World::with(&[("allow", allow), ("deny", deny)]);
    let at = |name, moment| {
        let decision = world.rules.decide(&world.index, &tunnel(name), moment);
        (decision.allowed, decision.reason)
    };
    let hour = |hour: i64| Moment::trusted(hour * 3_600);
    assert_eq!(at("a.example", hour(12)), (true, None));
    assert_eq!(
        at("a.example", hour(17)),
        (false, Some(Reason::OutsideWindow))
    );
    assert_eq!(at("listed.example", hour(12)), (true, None));
    assert_eq!(at("listed.example", hour(13)), (false, Some(Reason::Rule)));
    // Nothing is opened by a clock that can't be trusted.
    let unknown = Moment::untrusted(NOW);
    assert_eq!(
        at("a.example", unknown),
        (false, Some(Reason::ClockUntrusted))
    );
    assert_eq!(at("listed.example", unknown), (false, Some(Reason::Rule)));
    assert_eq!(world.rules.next_change(hour(12)), Some(13 * 3_600));
    assert_eq!(world.rules.next_change(hour(14)), Some(17 * 3_600));
    assert_eq!(world.rules.next_change(unknown), None);
}
