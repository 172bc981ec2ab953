//! Verdicts, labels and caps against a naive model that tries every pattern on every name.

use std::collections::BTreeMap;

use clawgress_config::policy::{
    Allow, Cap, DomainPattern, Host, Period, Policy, Proxy, ProxyMode, Scope, TimeWindow,
};
use clawgress_policy::{Index, Moment, NameVerdict, Reason, Window, Zone};
use proptest::prelude::*;

use crate::made::{EVERY_DAY, pattern, revision, window};

/// Noon of 1 January 1970 in UTC.
const NOW: i64 = 43_200;

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..5)
        .prop_map(|labels| labels.join("."))
}

fn any_pattern() -> impl Strategy<Value = DomainPattern> {
    (name(), any::<bool>()).prop_map(|(name, wildcard)| {
        let name = format!("{name}.example");
        pattern(&if wildcard { format!("*.{name}") } else { name })
    })
}

fn any_window() -> impl Strategy<Value = TimeWindow> {
    prop_oneof![
        Just(window(&EVERY_DAY, "08:00", "18:00")),
        Just(window(&EVERY_DAY, "18:00", "08:00")),
        Just(window(&EVERY_DAY, "00:00", "24:00")),
    ]
}

prop_compose! {
    fn any_scope()(
        domains in prop::collection::btree_set(any_pattern(), 0..6),
        wire in prop::option::of((any::<bool>(), prop::collection::btree_set(any_pattern(), 0..4))),
        time_window in prop::option::of(any_window()),
        domain_time_windows in prop::collection::btree_map(any_pattern(), any_window(), 0..4),
    ) -> Scope {
        Scope {
            allow: Allow { domains, ..Allow::default() },
            proxy: wire.map(|(sni, domains)| Proxy {
                mode: sni.then_some(ProxyMode::SniAllowlist),
                domains,
                ..Proxy::default()
            }),
            time_window,
            domain_time_windows,
            ..Scope::default()
        }
    }
}

prop_compose! {
    fn any_policy()(
        global in any_scope(),
        hosts in prop::collection::vec((any_scope(), prop::collection::btree_set(any_pattern(), 0..4)), 0..4),
        labels in prop::collection::btree_set(any_pattern(), 0..5),
    ) -> Policy {
        let hosts = hosts.into_iter().enumerate().map(|(number, (scope, capped))| {
            let cap = |(bytes, of): (usize, DomainPattern)| {
                (of, Cap { bytes: bytes as u64, period: Period::Day })
            };
            let host = Host {
                sources: [crate::made::cidr(&format!("192.168.10.{number}/32"))].into(),
                scope,
                exfil: capped.into_iter().enumerate().map(cap).collect(),
            };
            (format!("h{number}"), host)
        });
        Policy {
            global,
            hosts: hosts.collect(),
            labels: labels.into_iter().map(|of| (of.clone(), format!("label of {of}"))).collect(),
        }
    }
}

/// Those that mean the name: itself first, then the longest wildcard.
fn meaning<'p>(
    patterns: impl Iterator<Item = &'p DomainPattern>,
    name: &str,
) -> Vec<&'p DomainPattern> {
    let mut found: Vec<_> = patterns.filter(|pattern| pattern.matches(name)).collect();
    found.sort_by_key(|pattern| {
        (
            pattern.is_wildcard(),
            std::cmp::Reverse(pattern.as_str().len()),
        )
    });
    found
}

fn judge(
    scope: &Scope,
    list: &std::collections::BTreeSet<DomainPattern>,
    name: &str,
    moment: Moment,
) -> Result<String, Reason> {
    let rule = *meaning(list.iter(), name)
        .first()
        .ok_or(Reason::NotAllowlisted)?;
    // The narrowest window that is no wider than the rule.
    let own = meaning(scope.domain_time_windows.keys(), name)
        .into_iter()
        .find(|windowed| {
            *windowed == rule
                || !windowed.is_wildcard()
                || rule.is_wildcard() && windowed.as_str().len() >= rule.as_str().len()
        });
    let window = match own {
        Some(own) => scope.domain_time_windows.get(own),
        None => scope.time_window.as_ref(),
    };
    match window {
        None => Ok(rule.to_string()),
        Some(_) if !moment.trusted => Err(Reason::ClockUntrusted),
        Some(window) if Window::from(window).is_open(&Zone::named("UTC").unwrap(), moment.now) => {
            Ok(rule.to_string())
        }
        Some(_) => Err(Reason::OutsideWindow),
    }
}

fn told(verdict: NameVerdict<'_>) -> (Result<String, Reason>, Option<String>) {
    match verdict {
        NameVerdict::Allow { pattern, label, .. } => {
            (Ok(pattern.to_owned()), label.map(str::to_owned))
        }
        NameVerdict::Deny { reason, label } => (Err(reason), label.map(str::to_owned)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn verdicts_labels_and_caps_are_those_of_a_naive_model(
        policy in any_policy(),
        names in prop::collection::vec(name(), 1..24),
        trusted in any::<bool>(),
    ) {
        let index = Index::of(&revision(policy.clone())).unwrap();
        let moment = Moment { now: NOW, trusted };
        for principal in index.principals() {
            let host = policy.hosts.get(&principal.name);
            let scope = host.map_or(&policy.global, |host| &host.scope);
            let no_caps = BTreeMap::new();
            let caps = host.map_or(&no_caps, |host| &host.exfil);
            for name in names.iter().map(|name| format!("{name}.example")) {
                let label = meaning(policy.labels.keys(), &name).first().map(|of| policy.labels[of].clone());
                let plain = judge(scope, &scope.allow.domains, &name, moment);
                let sni = scope.judges_names_on_the_wire();
                let on_wire = judge(scope, scope.wire_domains(), &name, moment);

                let asked = index.judge_name(principal, &name, moment);
                let pin = matches!(asked, NameVerdict::Allow { pin: true, .. });
                let (verdict, found_label) = told(asked);
                prop_assert_eq!(pin, plain.is_ok(), "{} asks for {}", principal.name, name);
                let expected = match (plain, &on_wire) {
                    (Ok(by), _) => Ok(by),
                    (Err(_), Ok(by)) if sni => Ok(by.clone()),
                    (Err(Reason::NotAllowlisted), Err(reason)) if sni => Err(*reason),
                    (Err(reason), _) => Err(reason),
                };
                prop_assert_eq!(&verdict, &expected, "{} asks for {}", principal.name, name);
                prop_assert_eq!(&found_label, &label);
                prop_assert_eq!(index.label(&name), label.as_deref());

                let (wire_verdict, _) = told(index.judge_wire_name(principal, &name, moment));
                let expected = if sni { on_wire } else { Err(Reason::NotAllowlisted) };
                prop_assert_eq!(wire_verdict, expected, "{} sends {}", principal.name, name);

                let counted: Vec<_> = index.caps_of(principal, &name).map(|(of, _)| of.as_str()).collect();
                let expected: Vec<_> = meaning(caps.keys(), &name).into_iter().map(DomainPattern::as_str).collect();
                prop_assert_eq!(counted, expected);
            }
        }
        let mut listed: Vec<_> = index.allowed_patterns().map(str::to_owned).collect();
        listed.sort();
        let scopes = std::iter::once(&policy.global).chain(policy.hosts.values().map(|host| &host.scope));
        let mut expected: Vec<_> = scopes
            .flat_map(|scope| {
                let wire = scope.judges_names_on_the_wire().then(|| scope.wire_domains());
                scope.allow.domains.iter().chain(wire.into_iter().flatten())
            })
            .map(DomainPattern::to_string)
            .collect();
        expected.sort();
        expected.dedup();
        prop_assert_eq!(listed, expected);
    }
}
