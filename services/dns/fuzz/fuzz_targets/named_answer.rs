//! Any bytes as named's answer: what is believed of them is bounded, belongs to the name asked for, and can be told.

#![no_main]

use std::time::Instant;

use clawgress_dns::answer::Answer;
use clawgress_dns::facts::{Facts, Found, LONGEST, SHORTEST};
use clawgress_dns::question::Question;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let Ok(message) = Message::from_vec(bytes) else {
        return;
    };
    let kinds = [RecordType::A, RecordType::AAAA, RecordType::TXT, RecordType::MX];
    let kind = kinds[usize::from(*kind) % kinds.len()];
    let name = Name::from_ascii("a.b.").expect("a name");
    let now = Instant::now();
    let facts = Facts::of(&message, &name, kind, now, SHORTEST);
    assert!(facts.expires <= now + LONGEST);
    let answer = match facts.found {
        Found::Addresses { chain, addresses } => {
            assert!(!addresses.is_empty() && addresses.len() <= 64 && chain.len() <= 12);
            let v6 = kind == RecordType::AAAA;
            assert!(addresses.iter().all(|one| one.address.is_ipv6() == v6));
            let addresses: Vec<_> = addresses.iter().map(|one| one.address).collect();
            Answer::addresses(chain, &addresses, 5)
        }
        Found::Records(data) => {
            assert!(data.iter().all(|data| data.record_type() == kind));
            Answer::records(Vec::new(), data, 5)
        }
        Found::Nothing { chain } => Answer::records(chain, Vec::new(), 5),
        Found::NoSuchName | Found::Failed | Found::Disagreement => return,
    };
    let mut asked = Message::new(1, MessageType::Query, OpCode::Query);
    asked.add_query(Query::query(name, kind));
    let question = Question::read(&asked.to_vec().expect("a question")).expect("a question");
    for room in [512, 1232, 65_535] {
        let bytes = answer.to_bytes(&question, room);
        assert!(bytes.len() <= room);
        Message::from_vec(&bytes).expect("an answer that can be read");
    }
});
