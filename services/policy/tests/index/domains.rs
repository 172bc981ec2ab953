//! Names, windows, labels and caps as the design words them.

use clawgress_config::policy::{Cap, Day, Period, Policy};
use clawgress_policy::{Index, IndexError, Moment, NameVerdict, Principal, Reason};

use crate::made::{EVERY_DAY, full, global, host, index, pattern, revision, scope, sni, window};

/// Thursday, 1 January 1970, 12:00 in UTC.
const NOON: Moment = Moment {
    now: 43_200,
    trusted: true,
};

fn lan(index: &Index) -> &Principal {
    index.by_name("lan/eth1").unwrap()
}

fn allowed(verdict: NameVerdict<'_>) -> &str {
    match verdict {
        NameVerdict::Allow { pattern, .. } => pattern,
        NameVerdict::Deny { reason, .. } => panic!("denied: {reason}"),
    }
}

fn denied(verdict: NameVerdict<'_>) -> Reason {
    match verdict {
        NameVerdict::Allow { pattern, .. } => panic!("allowed by {pattern}"),
        NameVerdict::Deny { reason, .. } => reason,
    }
}

#[test]
fn the_most_specific_pattern_is_the_one_told() {
    let index = index(global(scope(&[
        "api.a.example",
        "*.a.example",
        "*.deep.a.example",
        "plain.example",
    ])));
    let ask = |name: &str| index.judge_name(lan(&index), name, NOON);
    assert_eq!(allowed(ask("api.a.example")), "api.a.example");
    assert_eq!(allowed(ask("x.a.example")), "*.a.example");
    assert_eq!(allowed(ask("x.api.a.example")), "*.a.example");
    assert_eq!(allowed(ask("x.deep.a.example")), "*.deep.a.example");
    assert_eq!(allowed(ask("deep.a.example")), "*.a.example");
    assert_eq!(allowed(ask("plain.example")), "plain.example");
    for name in ["a.example", "x.plain.example", "example", "xa.example", ""] {
        assert_eq!(denied(ask(name)), Reason::NotAllowlisted, "{name}");
    }
}

#[test]
fn hostile_names_are_denied_and_nothing_else() {
    let index = index(global(scope(&["*.a.example", "*.example"])));
    let long = format!("{}.a.example", "x".repeat(300));
    let dotted = ".".repeat(253);
    for name in [
        long.as_str(),
        dotted.as_str(),
        ".a.example.",
        ".",
        "..",
        "*.a.example\0",
        "\u{fffd}.\u{1f600}",
        "a.EXAMPLE",
    ] {
        let verdict = index.judge_name(lan(&index), name, NOON);
        assert_eq!(denied(verdict), Reason::NotAllowlisted, "{name:?}");
        assert_eq!(index.label(name), None);
    }
    // As deep as a name can be.
    let deep = format!("{}example", "b.".repeat(123));
    assert_eq!(
        allowed(index.judge_name(lan(&index), &deep, NOON)),
        "*.example"
    );
}

#[test]
fn a_host_has_its_own_lists_alone() {
    let mut policy = global(scope(&["everybody.example"]));
    policy.hosts.insert(
        "agent-1".to_owned(),
        host(&["192.168.10.10/32"], scope(&["mine.example"])),
    );
    policy
        .hosts
        .insert("idle".to_owned(), host(&["192.168.10.11/32"], scope(&[])));
    let index = index(policy);
    let ask = |who: &str, name: &str| {
        index
            .judge_name(index.by_name(who).unwrap(), name, NOON)
            .is_allowed()
    };
    assert!(ask("agent-1", "mine.example") && !ask("agent-1", "everybody.example"));
    assert!(!ask("idle", "mine.example") && !ask("idle", "everybody.example"));
    assert!(!ask("lan/eth1", "mine.example") && ask("lan/eth1", "everybody.example"));
}

#[test]
fn a_domains_window_replaces_the_one_that_encloses_it() {
    let shut = window(&[Day::Mon], "08:00", "09:00");
    let open = window(&[Day::Thu], "08:00", "18:00");
    let mut policy = global(scope(&["plain.example", "own.example", "*.below.example"]));
    policy.global.time_window = Some(shut.clone());
    policy.global.domain_time_windows = [
        (pattern("own.example"), open.clone()),
        (pattern("*.below.example"), open),
        // Narrower than the rule that allows it.
        (pattern("rare.below.example"), shut),
    ]
    .into();
    let index = index(policy);
    let who = lan(&index);
    let ask = |name: &str| index.judge_name(who, name, NOON);
    assert_eq!(denied(ask("plain.example")), Reason::OutsideWindow);
    assert_eq!(allowed(ask("own.example")), "own.example");
    assert_eq!(allowed(ask("x.below.example")), "*.below.example");
    assert_eq!(denied(ask("rare.below.example")), Reason::OutsideWindow);
    assert_eq!(denied(ask("other.example")), Reason::NotAllowlisted);
    assert!(!index.is_open(who, NOON));
}

#[test]
fn a_wildcards_window_is_not_that_of_a_name_with_a_rule_of_its_own() {
    let mut policy = global(scope(&["*.a.example", "always.a.example"]));
    policy.global.domain_time_windows = [(
        pattern("*.a.example"),
        window(&[Day::Mon], "08:00", "09:00"),
    )]
    .into();
    let index = index(policy);
    let ask = |name: &str| index.judge_name(lan(&index), name, NOON);
    assert_eq!(allowed(ask("always.a.example")), "always.a.example");
    assert_eq!(denied(ask("x.a.example")), Reason::OutsideWindow);
}

#[test]
fn a_window_without_a_rule_allows_nothing() {
    let mut policy = global(scope(&[]));
    policy.global.domain_time_windows =
        [(pattern("a.example"), window(&EVERY_DAY, "00:00", "24:00"))].into();
    let index = index(policy);
    let verdict = index.judge_name(lan(&index), "a.example", NOON);
    assert_eq!(denied(verdict), Reason::NotAllowlisted);
    assert_eq!(index.allowed_patterns().count(), 0);
}

#[test]
fn a_hosts_windows_replace_the_global_ones_so_that_without_any_it_has_none() {
    let shut = window(&[Day::Mon], "08:00", "09:00");
    let mut policy = global(scope(&["a.example"]));
    policy.global.time_window = Some(shut.clone());
    policy.global.domain_time_windows = [(pattern("a.example"), shut.clone())].into();
    let free = host(&["192.168.10.10/32"], scope(&["a.example"]));
    let mut bound = host(&["192.168.10.11/32"], scope(&["a.example"]));
    bound.scope.time_window = Some(shut);
    policy.hosts.insert("free".to_owned(), free);
    policy.hosts.insert("bound".to_owned(), bound);
    let index = index(policy);
    let ask = |who: &str| {
        let who = index.by_name(who).unwrap();
        (
            index.judge_name(who, "a.example", NOON).is_allowed(),
            index.is_open(who, NOON),
        )
    };
    assert_eq!(ask("lan/eth1"), (false, false));
    assert_eq!(ask("free"), (true, true));
    assert_eq!(ask("bound"), (false, false));
}

#[test]
fn an_untrusted_clock_shuts_what_has_a_window_and_nothing_else() {
    let mut policy = global(scope(&["windowed.example", "plain.example"]));
    policy.global.domain_time_windows = [(
        pattern("windowed.example"),
        window(&EVERY_DAY, "00:00", "24:00"),
    )]
    .into();
    let mut bound = host(&["192.168.10.10/32"], scope(&["plain.example"]));
    bound.scope.time_window = Some(window(&EVERY_DAY, "01:00", "23:00"));
    policy.hosts.insert("bound".to_owned(), bound);
    let index = index(policy);
    let moment = Moment::untrusted(NOON.now);
    let who = lan(&index);
    assert_eq!(
        denied(index.judge_name(who, "windowed.example", moment)),
        Reason::ClockUntrusted
    );
    assert!(index.judge_name(who, "plain.example", moment).is_allowed());
    assert!(index.is_open(who, moment));
    let bound = index.by_name("bound").unwrap();
    assert!(!index.is_open(bound, moment) && index.is_open(bound, NOON));
    assert_eq!(
        denied(index.judge_name(bound, "plain.example", moment)),
        Reason::ClockUntrusted
    );
    assert_eq!(index.next_change(moment), None);
    assert_eq!(index.next_change(NOON), Some(23 * 3600));
}

#[test]
fn the_next_change_is_the_earliest_of_any_window() {
    let mut policy = global(scope(&["a.example"]));
    policy.global.time_window = Some(window(&[Day::Thu], "08:00", "18:00"));
    policy.global.domain_time_windows =
        [(pattern("a.example"), window(&[Day::Thu], "12:30", "20:00"))].into();
    let mut other = host(&["192.168.10.10/32"], scope(&["a.example"]));
    other.scope.time_window = Some(window(&[Day::Fri], "08:00", "18:00"));
    policy.hosts.insert("other".to_owned(), other);
    let index = index(policy);
    let mut moment = NOON;
    let mut changes = Vec::new();
    for _ in 0..4 {
        moment.now = index.next_change(moment).unwrap();
        changes.push(moment.now / 60);
    }
    assert_eq!(changes, [750, 1080, 1200, 1440 + 480]);
    assert_eq!(
        crate::made::index(full()).next_change(NOON),
        Some((24 + 23) * 3600)
    );
}

#[test]
fn labels_are_told_for_what_is_allowed_and_for_what_is_denied() {
    let mut policy = global(scope(&["api.a.example", "other.example"]));
    policy.labels = [
        (pattern("api.a.example"), "llm".to_owned()),
        (pattern("*.a.example"), "vendor".to_owned()),
        (pattern("*.tracker.example"), "tracker".to_owned()),
    ]
    .into();
    let index = index(policy);
    let label = |name: &str| match index.judge_name(lan(&index), name, NOON) {
        NameVerdict::Allow { label, .. } | NameVerdict::Deny { label, .. } => {
            assert_eq!(label, index.label(name));
            label
        }
    };
    assert_eq!(label("api.a.example"), Some("llm"));
    assert_eq!(label("x.a.example"), Some("vendor"));
    assert_eq!(label("x.y.tracker.example"), Some("tracker"));
    assert_eq!(label("tracker.example"), None);
    assert_eq!(label("other.example"), None);
    // A label alone allows nothing, and is nothing that the policy zone lets pass.
    let mut listed: Vec<_> = index.allowed_patterns().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["api.a.example", "other.example"]);
}

#[test]
fn in_sni_mode_the_wire_has_its_list_and_only_allowed_names_are_pinned() {
    let mut policy = global(scope(&["pinned.example", "both.example"]));
    policy.global.proxy = Some(sni(&["both.example", "*.wire.example"]));
    let index = index(policy);
    let who = lan(&index);
    let pin = |name: &str| match index.judge_name(who, name, NOON) {
        NameVerdict::Allow { pin, .. } => Some(pin),
        NameVerdict::Deny { .. } => None,
    };
    assert_eq!(pin("pinned.example"), Some(true));
    assert_eq!(pin("both.example"), Some(true));
    assert_eq!(pin("x.wire.example"), Some(false));
    assert_eq!(pin("other.example"), None);
    let wire = |name: &str| index.judge_wire_name(who, name, NOON).is_allowed();
    assert!(wire("both.example") && wire("x.wire.example"));
    assert!(!wire("pinned.example") && !wire("other.example"));
    assert_eq!(index.allowed_patterns().count(), 3);
}

#[test]
fn without_a_list_of_its_own_the_wire_has_the_allowed_domains() {
    let mut policy = global(scope(&["a.example"]));
    policy.global.proxy = Some(sni(&[]));
    let index = index(policy);
    let who = lan(&index);
    assert!(index.judge_wire_name(who, "a.example", NOON).is_allowed());
    assert!(index.judge_name(who, "a.example", NOON).is_allowed());
}

#[test]
fn without_sni_mode_the_wires_list_opens_nothing() {
    let mut policy = global(scope(&["a.example"]));
    let mut proxy = sni(&["wire.example"]);
    proxy.mode = None;
    policy.global.proxy = Some(proxy);
    let index = index(policy);
    let who = lan(&index);
    assert!(index.judge_name(who, "a.example", NOON).is_allowed());
    assert!(!index.judge_name(who, "wire.example", NOON).is_allowed());
    for name in ["a.example", "wire.example"] {
        let verdict = index.judge_wire_name(who, name, NOON);
        assert_eq!(denied(verdict), Reason::NotAllowlisted);
    }
}

#[test]
fn a_shut_rule_is_told_rather_than_that_there_is_none() {
    let mut policy = global(scope(&["a.example"]));
    policy.global.proxy = Some(sni(&["b.example"]));
    policy.global.time_window = Some(window(&[Day::Mon], "08:00", "09:00"));
    let index = index(policy);
    for (name, reason) in [
        ("a.example", Reason::OutsideWindow),
        ("b.example", Reason::OutsideWindow),
        ("c.example", Reason::NotAllowlisted),
    ] {
        assert_eq!(
            denied(index.judge_name(lan(&index), name, NOON)),
            reason,
            "{name}"
        );
    }
}

#[test]
fn a_name_counts_against_every_cap_that_means_it() {
    let cap = |bytes| Cap {
        bytes,
        period: Period::Hour,
    };
    let mut agent = host(&["192.168.10.10/32"], scope(&["*.a.example"]));
    agent.exfil = [
        (pattern("*.a.example"), cap(1)),
        (pattern("api.a.example"), cap(2)),
        (pattern("b.example"), cap(3)),
    ]
    .into();
    let mut policy = Policy::default();
    policy.hosts.insert("agent-1".to_owned(), agent);
    policy
        .hosts
        .insert("free".to_owned(), host(&["192.168.10.11/32"], scope(&[])));
    let index = index(policy);
    let agent = index.by_name("agent-1").unwrap();
    let counts = |who: &str, name: &str| -> Vec<u64> {
        index
            .caps_of(index.by_name(who).unwrap(), name)
            .map(|(_, cap)| cap.bytes)
            .collect()
    };
    assert_eq!(counts("agent-1", "api.a.example"), [2, 1]);
    assert_eq!(counts("agent-1", "x.a.example"), [1]);
    assert_eq!(counts("agent-1", "a.example"), [] as [u64; 0]);
    assert_eq!(counts("free", "api.a.example"), [] as [u64; 0]);
    let listed: Vec<_> = index
        .caps(agent)
        .iter()
        .map(|(of, _)| of.as_str())
        .collect();
    assert_eq!(listed, ["*.a.example", "api.a.example", "b.example"]);
    assert!(index.caps(lan(&index)).is_empty());
}

#[test]
fn limits_are_a_ceiling_over_all_and_a_hosts_own() {
    let mut policy = full();
    policy
        .hosts
        .get_mut("agent-1")
        .unwrap()
        .scope
        .limits
        .egress_kbps = Some(2_000);
    let index = index(policy);
    assert_eq!(index.egress_kbps(), Some(8_000));
    let limits = |who: &str| index.by_name(who).unwrap().scope.egress_kbps;
    assert_eq!(limits("agent-1"), Some(2_000));
    assert_eq!(limits("lan/eth1"), Some(8_000));
    assert!(lan(&index).scope.global && !index.by_name("agent-1").unwrap().scope.global);
}

#[test]
fn a_revision_that_is_not_enabled_allows_nothing() {
    let mut revision = revision(global(scope(&["a.example"])));
    revision.enabled = false;
    let index = Index::of(&revision).unwrap();
    let who = lan(&index);
    assert_eq!(
        denied(index.judge_name(who, "a.example", NOON)),
        Reason::Unavailable
    );
    assert!(!index.is_open(who, NOON));
}

#[test]
fn an_unknown_time_zone_is_told_by_its_name() {
    let mut revision = revision(Policy::default());
    revision.time_zone = "Europe/Atlantis".to_owned();
    let error = Index::of(&revision).err().unwrap();
    assert!(matches!(error, IndexError::Zone { .. }));
    assert!(error.to_string().contains("Europe/Atlantis"), "{error}");
}
