//! Answers of named, honest and hostile, and what is believed of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{MessageType, OpCode};
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA, TXT};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn a(owner: &str, ttl: u32, address: [u8; 4]) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A(address.into())))
}

fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn soa(owner: &str, ttl: u32) -> Record {
    let soa = SOA::new(name("ns."), name("h."), 1, 2, 3, 4, ttl);
    Record::from_rdata(name(owner), ttl, RData::SOA(soa))
}

fn answer(records: Vec<Record>) -> Message {
    let mut message = Message::new(1, MessageType::Response, OpCode::Query);
    message.add_answers(records);
    message
}

fn facts(message: &Message, now: Instant) -> Facts {
    Facts::of(
        message,
        &name("www.example.com."),
        RecordType::A,
        now,
        SHORTEST,
    )
}

fn found(message: &Message) -> Found {
    facts(message, Instant::now()).found
}

fn addresses(found: &Found) -> Vec<IpAddr> {
    match found {
        Found::Addresses { addresses, .. } => addresses.iter().map(|a| a.address).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_chain_is_followed_in_whatever_order_it_is_told() {
    let found = found(&answer(vec![
        a("c.example.net.", 60, [192, 0, 2, 1]),
        cname("b.example.net.", 60, "c.example.net."),
        cname("WWW.example.com.", 60, "b.example.net."),
        a("c.example.net.", 60, [192, 0, 2, 1]),
    ]));
    let Found::Addresses { chain, addresses } = found else {
        panic!()
    };
    assert_eq!(chain, [name("b.example.net."), name("c.example.net.")]);
    assert_eq!(addresses.len(), 1);
}

#[test]
fn records_beside_the_chain_are_not_seen() {
    let mut message = answer(vec![
        a("www.example.com.", 60, [192, 0, 2, 1]),
        a("evil.example.", 60, [192, 0, 2, 66]),
    ]);
    message.add_additional(a("www.example.com.", 60, [192, 0, 2, 67]));
    message.add_authority(a("www.example.com.", 60, [192, 0, 2, 68]));
    assert_eq!(
        addresses(&found(&message)),
        ["192.0.2.1".parse::<IpAddr>().unwrap()]
    );
    let only_others = answer(vec![a("evil.example.", 60, [192, 0, 2, 66])]);
    assert_eq!(found(&only_others), Found::Nothing { chain: vec![] });
}

#[test]
fn a_chain_that_bites_its_tail_or_never_ends_is_a_failure() {
    let ring = answer(vec![
        cname("www.example.com.", 60, "a.example."),
        cname("a.example.", 60, "www.example.com."),
    ]);
    assert_eq!(found(&ring), Found::Failed);
    let own = answer(vec![cname("www.example.com.", 60, "www.example.com.")]);
    assert_eq!(found(&own), Found::Failed);
    let mut long = vec![cname("www.example.com.", 60, "n0.example.")];
    for n in 0..40 {
        long.push(cname(
            &format!("n{n}.example."),
            60,
            &format!("n{}.example.", n + 1),
        ));
    }
    assert_eq!(found(&answer(long)), Found::Failed);
}

#[test]
fn the_smallest_ttl_of_the_chain_counts_within_bounds() {
    let now = Instant::now();
    let kept = |first: u32, second: u32| {
        let message = answer(vec![
            cname("www.example.com.", first, "b.example."),
            a("b.example.", second, [192, 0, 2, 1]),
        ]);
        let facts = facts(&message, now);
        assert_eq!(facts.kept_until(now), facts.expires);
        facts.ttl(now)
    };
    assert_eq!(kept(60, 120), 60);
    assert_eq!(kept(120, 60), 60);
    assert_eq!(kept(0, 60), 5);
    assert_eq!(kept(86_400, 86_400), 300);
    // At the very end of its life an answer is told for the floor, and pins have to last for that.
    let facts = facts(&answer(vec![a("www.example.com.", 9, [192, 0, 2, 1])]), now);
    let late = now + Duration::from_secs(8);
    assert_eq!(facts.ttl(late), 5);
    assert_eq!(facts.kept_until(late), late + SHORTEST);
}

#[test]
fn what_is_not_there_is_kept_as_long_as_its_zone_says() {
    let now = Instant::now();
    let mut message = answer(vec![]);
    message.metadata.response_code = ResponseCode::NXDomain;
    message.add_authority(soa("example.com.", 77));
    let nothing = facts(&message, now);
    assert_eq!(
        (nothing.found, nothing.expires),
        (Found::NoSuchName, now + Duration::from_secs(77))
    );
    message.metadata.response_code = ResponseCode::NoError;
    assert_eq!(found(&message), Found::Nothing { chain: vec![] });
    message.metadata.response_code = ResponseCode::Refused;
    assert_eq!(found(&message), Found::Failed);
}

#[test]
fn a_denial_of_the_policy_zone_is_no_fact_about_the_name() {
    for zone in ["rpz.clawgress.", "rpz17.clawgress."] {
        let mut message = answer(vec![]);
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_additional(soa(zone, 5));
        assert_eq!(found(&message), Found::Disagreement);
    }
}

#[test]
fn plain_data_is_only_that_of_the_kind_asked_for() {
    let message = answer(vec![
        Record::from_rdata(
            name("www.example.com."),
            60,
            RData::TXT(TXT::new(vec!["v=1".to_owned()])),
        ),
        a("www.example.com.", 60, [10, 0, 0, 1]),
    ]);
    let facts = Facts::of(
        &message,
        &name("www.example.com."),
        RecordType::TXT,
        Instant::now(),
        SHORTEST,
    );
    let Found::Records(data) = facts.found else {
        panic!()
    };
    assert_eq!(data.len(), 1);
}

/// Names of a small world, so that chains come about by chance.
fn some_name() -> impl Strategy<Value = Name> {
    (0..6_u8).prop_map(|n| match n {
        0 => name("www.example.com."),
        n => name(&format!("n{n}.example.")),
    })
}

fn some_record() -> impl Strategy<Value = Record> {
    let data = prop_oneof![
        any::<u32>().prop_map(|bits| RData::A(A(Ipv4Addr::from(bits)))),
        any::<u128>().prop_map(|bits| RData::AAAA(AAAA(Ipv6Addr::from(bits)))),
        some_name().prop_map(|target| RData::CNAME(CNAME(target))),
        Just(RData::TXT(TXT::new(vec!["x".to_owned()]))),
    ];
    (some_name(), any::<u32>(), data)
        .prop_map(|(owner, ttl, data)| Record::from_rdata(owner, ttl, data))
}

/// The same question answered naively: every name that CNAMEs lead to from the one asked.
fn reachable(message: &Message) -> Vec<Name> {
    let mut names = vec![name("www.example.com.")];
    let mut at = 0;
    while let Some(from) = names.get(at).cloned() {
        at += 1;
        for record in &message.answers {
            if let RData::CNAME(target) = &record.data
                && record.name == from
                && !names.contains(&target.0)
            {
                names.push(target.0.clone());
            }
        }
    }
    names
}

proptest! {
    /// Whatever named says: only addresses of the kind asked for, at names that the chain leads to, each once, and
    /// those inside marked; and never a life beyond the bounds.
    #[test]
    fn nothing_but_the_chain_ever_comes_out(
        records in prop::collection::vec(some_record(), 0..24),
        six in any::<bool>(),
    ) {
        let message = answer(records);
        let kind = if six { RecordType::AAAA } else { RecordType::A };
        let now = Instant::now();
        let facts = Facts::of(&message, &name("www.example.com."), kind, now, SHORTEST);
        let left = facts.expires - now;
        prop_assert!(left >= SHORTEST && left <= LONGEST);
        let names = reachable(&message);
        if let Found::Addresses { chain, addresses } = facts.found {
            prop_assert!(chain.iter().all(|link| names.contains(link)));
            let end = chain.last().cloned().unwrap_or_else(|| name("www.example.com."));
            let mut seen = Vec::new();
            for one in addresses {
                prop_assert_eq!(one.address.is_ipv6(), six);
                prop_assert_eq!(one.inside, is_inside(one.address));
                prop_assert!(!seen.contains(&one.address));
                seen.push(one.address);
                prop_assert!(message.answers.iter().any(|record| record.name == end
                    && record.data.ip_addr() == Some(one.address)));
            }
            prop_assert!(!seen.is_empty());
        }
    }
}
