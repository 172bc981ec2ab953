//! The maps say what the index says, for whatever policy and name: looked up here as haproxy looks them up.

use std::net::Ipv4Addr;

use clawgress_config::Cidr;
use clawgress_config::policy::{
    Day, DomainPattern, Host, Proxy, ProxyMode, Scope, TimeOfDay, TimeWindow,
};
use clawgress_enforcer::front::{MapName, Rendered};
use clawgress_policy::{Index, Moment, NameVerdict, Reason};
use proptest::prelude::*;

use crate::scene::{NOON, entries, rendered_at, revision};

/// The key of a name, as hello.lua makes it.
pub(crate) fn key(name: &str) -> String {
    let labels: Vec<&str> = name.rsplit('.').collect();
    format!("{}$", labels.join("."))
}

/// What haproxy finds by prefix, then by class.
pub(crate) fn looked_up(front: &Rendered, list: &str, name: &str) -> Result<(), Reason> {
    let wanted = format!("{list}/{}", key(name));
    let names = entries(front, MapName::Names);
    let rule = names
        .iter()
        .filter(|(prefix, _)| wanted.starts_with(**prefix))
        .max_by_key(|(prefix, _)| prefix.len());
    let Some((_, class)) = rule else {
        return Err(Reason::NotAllowlisted);
    };
    match entries(front, MapName::Gates)[class] {
        "open" => Ok(()),
        word => Err(Reason::of_word(word).unwrap()),
    }
}

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "ab", "a-b", "x"], 1..5)
        .prop_map(|labels| labels.join(".") + ".test")
}

fn pattern() -> impl Strategy<Value = DomainPattern> {
    (name(), any::<bool>()).prop_map(|(name, wildcard)| {
        let text = if wildcard { format!("*.{name}") } else { name };
        DomainPattern::parse(&text).unwrap()
    })
}

fn window() -> impl Strategy<Value = TimeWindow> {
    (0usize..7, 0u16..24, 1u16..24).prop_map(|(day, start, length)| TimeWindow {
        days: [Day::ALL[day], Day::Tue].into(),
        start: TimeOfDay(start * 60),
        end: TimeOfDay((start + length) % 24 * 60),
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    (
        proptest::collection::btree_set(pattern(), 0..8),
        proptest::collection::btree_set(pattern(), 0..4),
        proptest::option::of(window()),
        proptest::collection::btree_map(pattern(), window(), 0..6),
        any::<bool>(),
    )
        .prop_map(
            |(domains, own, time_window, domain_time_windows, on_wire)| {
                let mut scope = Scope {
                    time_window,
                    domain_time_windows,
                    ..Scope::default()
                };
                scope.allow.domains = domains;
                scope.proxy = on_wire.then(|| Proxy {
                    mode: Some(ProxyMode::SniAllowlist),
                    domains: own,
                    ..Proxy::default()
                });
                scope
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn maps_and_index_agree(
        global in scope(),
        own in scope(),
        names in proptest::collection::vec(name(), 1..20),
        hour in 0i64..168,
        trusted in any::<bool>(),
    ) {
        let mut revision = revision("{\"version\": 2}");
        revision.policy.global = global;
        let host = Host { scope: own, ..Host::default() };
        revision.policy.hosts.insert("h".to_owned(), host);
        let index = Index::of(&revision).unwrap();
        let moment = Moment { now: NOON + hour * 3600, trusted };
        let front = rendered_at(&revision, moment, &[]);
        let patterns = revision.policy.hosts["h"].scope.allow.domains.iter().map(|pattern| pattern.base().to_owned());
        let names: Vec<String> = patterns.chain(names).collect();
        for who in ["h", "lan/eth1"] {
            let who = index.by_name(who).unwrap();
            let list = clawgress_enforcer::front::list_of(who);
            for name in &names {
                let verdict = match index.judge_wire_name(who, name, moment) {
                    NameVerdict::Allow { .. } => Ok(()),
                    NameVerdict::Deny { reason, .. } => Err(reason),
                };
                prop_assert_eq!(looked_up(&front, &list, name), verdict, "{} for {}", name, &who.name);
            }
        }
    }

    #[test]
    fn sources_and_index_agree(
        hosts in proptest::collection::vec((any::<u8>(), 16u8..=32), 0..8),
        asked in proptest::collection::vec((1u8..4, any::<u8>(), any::<u8>()), 1..40),
    ) {
        let mut revision = revision("{\"version\": 2}");
        for (number, (last, length)) in hosts.iter().enumerate() {
            let third = [9, 10, 11][number % 3];
            let source = Cidr { address: Ipv4Addr::new(192, 168, third, *last).into(), length: *length };
            let host = Host { sources: [source.network()].into(), ..Host::default() };
            revision.policy.hosts.insert(format!("h{number}"), host);
        }
        // Two hosts with one source are refused long before.
        let Ok(index) = Index::of(&revision) else { return Ok(()) };
        let front = rendered_at(&revision, Moment::trusted(NOON), &[]);
        let networks: Vec<(Cidr, &str)> = entries(&front, MapName::Sources)
            .into_iter()
            .map(|(network, value)| {
                let (address, length) = network.split_once('/').unwrap();
                (Cidr { address: address.parse().unwrap(), length: length.parse().unwrap() }, value)
            })
            .collect();
        for (third, last, odd) in asked {
            let source = Ipv4Addr::new(192, 168 + odd / 250, 8 + third, last).into();
            let found = networks.iter().filter(|(network, _)| network.contains(source)).max_by_key(|(network, _)| network.length);
            let who = found.map(|(_, value)| value.split('|').next().unwrap());
            prop_assert_eq!(who, index.principal_of(source).map(|who| who.name.as_str()), "{}", source);
        }
    }

    #[test]
    fn no_line_of_a_log_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..250) {
        use clawgress_enforcer::front::log::Event;
        let _ = Event::read(&bytes);
        let mut line = b"v1 event=close path=host who=lan/eth1 src=192.168.10.10 sport=40112 asked=- aport=- name=a.example \
            reason=- site=- in=812 out=40960 ms=5210 end=-- status=200 id=-".to_vec();
        let at = cut.min(line.len());
        line.splice(at..at, bytes);
        if let Ok(event) = Event::read(&line) {
            prop_assert!(event.name.is_none_or(|name| name.len() <= 253 && name.is_ascii()));
        }
    }
}
