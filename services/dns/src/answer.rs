//! What goes back to an asker: always made here, record by record, never forwarded bytes. Pure.

use std::net::IpAddr;

use clawgress_policy::Reason;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, SOA, opt::EdnsOption};
use hickory_proto::rr::{Name, RData, Record};

use crate::question::{DATAGRAM, Question};

/// How long an asker may remember that there is nothing: a policy may change at any moment.
pub const NEGATIVE_TTL: u32 = 5;

const EDE: u16 = 15;
/// Info codes of RFC 8914.
const NOT_READY: u16 = 14;
const BLOCKED: u16 = 15;
const PROHIBITED: u16 = 18;
const NOT_SUPPORTED: u16 = 21;
const NO_REACHABLE_AUTHORITY: u16 = 22;

/// No longer than this is a label told back; the answer must fit anywhere.
const LONGEST_EXPLANATION: usize = 200;

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    code: ResponseCode,
    records: Records,
    /// An extended error, told to those who speak EDNS.
    explanation: Option<(u16, String)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Records {
    /// Nothing, and the asker may not remember that.
    None,
    /// Nothing, with an SOA that bounds how long that is remembered.
    Nothing,
    /// The chain's targets in order, then the records of the last of them (of the name itself without a chain).
    Some {
        chain: Vec<Name>,
        data: Vec<RData>,
        ttl: u32,
    },
}

impl Answer {
    fn empty(code: ResponseCode, records: Records) -> Self {
        Self {
            code,
            records,
            explanation: None,
        }
    }

    fn because(mut self, info: u16, text: String) -> Self {
        self.explanation = Some((info, text));
        self
    }

    /// The policy says no. Nothing tells this from a name that does not exist, but the explanation.
    pub fn denied(reason: Reason, label: Option<&str>) -> Self {
        Self::empty(ResponseCode::NXDomain, Records::Nothing)
            .because(BLOCKED, worded(reason, label))
    }

    /// The name exists, and none of its addresses may be told.
    pub fn stripped(label: Option<&str>) -> Self {
        Self::empty(ResponseCode::NoError, Records::Nothing)
            .because(BLOCKED, worded(Reason::Rebinding, label))
    }

    /// Nobody whose questions are answered.
    pub fn stranger() -> Self {
        Self::empty(ResponseCode::Refused, Records::None)
            .because(PROHIBITED, Reason::UnknownSource.word().to_owned())
    }

    /// There is no policy.
    pub fn unready() -> Self {
        Self::empty(ResponseCode::Refused, Records::None)
            .because(NOT_READY, Reason::Unavailable.word().to_owned())
    }

    /// Something that is needed for an answer did not work: `what` says what.
    pub fn failed(what: &str) -> Self {
        Self::empty(ResponseCode::ServFail, Records::None)
            .because(NOT_READY, format!("{} {what}", Reason::Unavailable.word()))
    }

    /// named, or whoever it asked, did not answer.
    pub fn unreachable() -> Self {
        Self::empty(ResponseCode::ServFail, Records::None)
            .because(NO_REACHABLE_AUTHORITY, String::new())
    }

    pub fn no_such_name() -> Self {
        Self::empty(ResponseCode::NXDomain, Records::Nothing)
    }

    /// The name is allowed and has nothing of this kind.
    pub fn nothing() -> Self {
        Self::empty(ResponseCode::NoError, Records::Nothing)
    }

    /// A kind of record that is not relayed to anybody.
    pub fn unsupported() -> Self {
        Self::nothing().because(NOT_SUPPORTED, "this type is not relayed".to_owned())
    }

    pub fn not_internet() -> Self {
        Self::empty(ResponseCode::Refused, Records::None)
    }

    pub fn bad_version() -> Self {
        Self::empty(ResponseCode::BADVERS, Records::None)
    }

    /// RFC 8482: a question for everything gets next to nothing.
    pub fn minimal_any() -> Self {
        let hinfo = HINFO::new("RFC8482".to_owned(), String::new());
        Self::records(Vec::new(), vec![RData::HINFO(hinfo)], NEGATIVE_TTL)
    }

    pub fn addresses(chain: Vec<Name>, addresses: &[IpAddr], ttl: u32) -> Self {
        let data = addresses
            .iter()
            .map(|address| match address {
                IpAddr::V4(v4) => RData::A(A(*v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
            })
            .collect();
        Self::records(chain, data, ttl)
    }

    pub fn records(chain: Vec<Name>, data: Vec<RData>, ttl: u32) -> Self {
        Self::empty(ResponseCode::NoError, Records::Some { chain, data, ttl })
    }

    /// The bytes, at most `room` of them: what does not fit is left out whole and the asker told to come over TCP.
    pub fn to_bytes(&self, question: &Question, room: usize) -> Vec<u8> {
        let message = self.message(question);
        if let Ok(bytes) = message.to_vec()
            && bytes.len() <= room
        {
            return bytes;
        }
        let mut short = message;
        short.metadata.truncation = true;
        short.answers.clear();
        short.authorities.clear();
        // Cannot fail: a question that was read, and at most one short option.
        short.to_vec().unwrap_or_default()
    }

    fn message(&self, question: &Question) -> Message {
        let mut message = Message::new(question.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = question.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.response_code = self.code;
        message.add_query(question.query.clone());
        let asked = &question.query.name;
        match &self.records {
            Records::None => {}
            Records::Nothing => {
                message.add_authority(nothing_at(asked));
            }
            Records::Some { chain, data, ttl } => {
                let mut owner = asked;
                for target in chain {
                    let link = RData::CNAME(CNAME(target.clone()));
                    message.add_answer(Record::from_rdata(owner.clone(), *ttl, link));
                    owner = target;
                }
                for data in data {
                    message.add_answer(Record::from_rdata(owner.clone(), *ttl, data.clone()));
                }
                if data.is_empty() {
                    message.add_authority(nothing_at(owner));
                }
            }
        }
        if question.payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(DATAGRAM);
            if let Some((info, text)) = &self.explanation {
                let mut option = info.to_be_bytes().to_vec();
                option.extend_from_slice(bounded(text).as_bytes());
                edns.options_mut().insert(EdnsOption::Unknown(EDE, option));
            }
            message.set_edns(edns);
        }
        message
    }
}

fn worded(reason: Reason, label: Option<&str>) -> String {
    match label {
        Some(label) => format!("{reason} {label}"),
        None => reason.word().to_owned(),
    }
}

fn bounded(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_EXPLANATION);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The name is its own zone: nothing about any other name may be concluded.
fn nothing_at(name: &Name) -> Record {
    let soa = SOA::new(
        Name::root(),
        Name::root(),
        1,
        3600,
        600,
        86_400,
        NEGATIVE_TTL,
    );
    Record::from_rdata(name.clone(), NEGATIVE_TTL, RData::SOA(soa))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use hickory_proto::rr::RecordType;
    use hickory_proto::rr::rdata::opt::EdnsCode;

    fn question(edns: bool) -> Question {
        let mut message = Message::new(9, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(
            Name::from_ascii("ApI.example.com.").unwrap(),
            RecordType::A,
        ));
        if edns {
            message.set_edns(Edns::new());
        }
        Question::read(&message.to_vec().unwrap()).unwrap()
    }

    fn read(answer: &Answer, question: &Question, room: usize) -> Message {
        let bytes = answer.to_bytes(question, room);
        assert!(bytes.len() <= room);
        Message::from_vec(&bytes).unwrap()
    }

    fn told(message: &Message) -> Option<(u16, String)> {
        match message.edns.as_ref()?.option(EdnsCode::from(EDE))? {
            EdnsOption::Unknown(_, bytes) => Some((
                u16::from_be_bytes([bytes[0], bytes[1]]),
                String::from_utf8(bytes[2..].to_vec()).unwrap(),
            )),
            _ => None,
        }
    }

    #[test]
    fn a_denial_is_a_short_lived_nxdomain_that_says_why() {
        let answer = Answer::denied(Reason::NotAllowlisted, Some("llm-provider"));
        let message = read(&answer, &question(true), 512);
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(
            told(&message),
            Some((15, "not-allowlisted llm-provider".into()))
        );
        let RData::SOA(soa) = &message.authorities[0].data else {
            panic!("no SOA")
        };
        assert!(soa.minimum <= 5 && message.authorities[0].ttl <= 5);
        // Who does not speak EDNS gets none.
        assert!(read(&answer, &question(false), 512).edns.is_none());
    }

    #[test]
    fn the_letters_of_the_question_come_back_as_they_were() {
        let target = Name::from_ascii("cdn.example.net.").unwrap();
        let addresses = ["192.0.2.1".parse().unwrap()];
        let answer = Answer::addresses(vec![target.clone()], &addresses, 60);
        let message = read(&answer, &question(false), 512);
        assert!(
            message.queries[0]
                .name
                .eq_case(&Name::from_ascii("ApI.example.com.").unwrap())
        );
        assert_eq!(message.answers.len(), 2);
        assert_eq!(message.answers[0].name.to_ascii(), "ApI.example.com.");
        assert_eq!(message.answers[1].name, target);
        assert!(!message.metadata.authentic_data && !message.metadata.authoritative);
    }

    #[test]
    fn what_does_not_fit_is_asked_for_again_over_tcp() {
        let addresses: Vec<IpAddr> = (0..60).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        let answer = Answer::addresses(Vec::new(), &addresses, 60);
        let short = read(&answer, &question(true), 512);
        assert!(short.metadata.truncation && short.answers.is_empty());
        assert!(short.edns.is_some());
        let whole = read(&answer, &question(true), 1232);
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 60);
    }

    #[test]
    fn a_long_label_cannot_burst_the_answer() {
        let label = "ü".repeat(5000);
        let answer = Answer::denied(Reason::NotAllowlisted, Some(&label));
        let (_, text) = told(&read(&answer, &question(true), 512)).unwrap();
        assert!(text.len() <= LONGEST_EXPLANATION && text.starts_with("not-allowlisted ü"));
    }

    #[test]
    fn an_unknown_version_is_told_which_one_is_known() {
        let message = read(&Answer::bad_version(), &question(true), 512);
        assert_eq!(u16::from(message.metadata.response_code), 16);
        assert_eq!(message.edns.unwrap().version(), 0);
    }
}
