//! A packet of an agent, read: one question with what an answer needs of it, or why there is none. Pure.
//!
//! The sender is hostile. Nothing is allocated in proportion to a number that the packet merely claims.

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};

/// Longer ones are no questions.
pub const LONGEST: usize = 2048;
const HEADER: usize = 12;
/// The largest answer that goes in one datagram, fragments nowhere (RFC 9715).
pub const DATAGRAM: u16 = 1232;
const OLD_DATAGRAM: u16 = 512;

#[derive(Debug, Clone)]
pub struct Question {
    pub id: u16,
    pub recursion_desired: bool,
    /// As it came, letter case and all: the answer repeats it.
    pub query: Query,
    /// As policies write names; `None` where no policy can mean the name.
    pub name: Option<String>,
    /// What the asker takes in a datagram, if it speaks EDNS.
    pub payload: Option<u16>,
    edns_version: u8,
}

/// What to do with a packet that holds no question for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Too short, or itself an answer: saying anything back might start a loop.
    Silence,
    /// A header alone goes back.
    Say([u8; HEADER]),
}

impl Question {
    pub fn read(packet: &[u8]) -> Result<Self, Fault> {
        let Some((header, _)) = packet.split_first_chunk::<HEADER>() else {
            return Err(Fault::Silence);
        };
        if header[2] & 0x80 != 0 {
            return Err(Fault::Silence);
        }
        let fault = |code: ResponseCode| {
            let mut answer = [0; HEADER];
            answer[0] = header[0];
            answer[1] = header[1];
            // A response to the same operation; recursion desired is told back.
            answer[2] = 0x80 | (header[2] & 0x79);
            answer[3] = code.low();
            Err(Fault::Say(answer))
        };
        if header[2] & 0x78 != 0 {
            return fault(ResponseCode::NotImp);
        }
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        // One question, no answers; at most EDNS and a signature behind.
        if packet.len() > LONGEST
            || count(4) != 1
            || count(6) != 0
            || count(8) != 0
            || count(10) > 2
        {
            return fault(ResponseCode::FormErr);
        }
        let Ok(mut message) = Message::from_vec(packet) else {
            return fault(ResponseCode::FormErr);
        };
        let Some(query) = message.queries.pop() else {
            return fault(ResponseCode::FormErr);
        };
        let edns = message.edns.as_ref();
        Ok(Self {
            id: message.metadata.id,
            recursion_desired: message.metadata.recursion_desired,
            name: canonical(&query.name),
            payload: edns.map(hickory_proto::op::Edns::max_payload),
            edns_version: edns.map_or(0, hickory_proto::op::Edns::version),
            query,
        })
    }

    pub fn kind(&self) -> RecordType {
        self.query.query_type
    }

    pub fn is_internet(&self) -> bool {
        self.query.query_class == DNSClass::IN
    }

    /// True if it speaks an EDNS that nobody has defined yet.
    pub fn is_of_the_future(&self) -> bool {
        self.edns_version != 0
    }

    /// The longest answer that fits into a datagram for this asker.
    pub fn room(&self) -> usize {
        let payload = self.payload.unwrap_or(OLD_DATAGRAM);
        usize::from(payload.clamp(OLD_DATAGRAM, DATAGRAM))
    }

    /// The name for a log: printable, bounded, never ambiguous with a name of other labels.
    pub fn shown(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| self.query.name.to_ascii())
    }
}

/// The name as policies write it: lowercase, no trailing dot. A label with any other byte, a dot above all, has no such
/// form, for its text would read as other labels than it has.
pub fn canonical(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            let byte = byte.to_ascii_lowercase();
            if !(byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
            {
                return None;
            }
            text.push(char::from(byte));
        }
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Edns, MessageType, OpCode};

    fn packet(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(
            Name::from_ascii("WwW.Example.COM.").unwrap(),
            RecordType::A,
        ));
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn said(packet: &[u8]) -> u8 {
        match Question::read(packet).unwrap_err() {
            Fault::Say(header) => {
                assert_eq!(header[..2], packet[..2]);
                assert_eq!(header[2] & 0x80, 0x80);
                assert_eq!(header[4..], [0; 8]);
                header[3]
            }
            Fault::Silence => panic!("silence"),
        }
    }

    #[test]
    fn a_question_is_read_with_its_letter_case() {
        let question = Question::read(&packet(|_| ())).unwrap();
        assert_eq!(question.id, 7);
        assert_eq!(question.name.as_deref(), Some("www.example.com"));
        assert_eq!(question.query.name.to_ascii(), "WwW.Example.COM.");
        assert_eq!((question.payload, question.room()), (None, 512));
        assert!(question.recursion_desired);
    }

    #[test]
    fn a_datagram_is_never_larger_than_what_passes_everywhere() {
        for (payload, room) in [(0, 512), (600, 600), (1232, 1232), (65_535, 1232)] {
            let packet = packet(|message| {
                let mut edns = Edns::new();
                edns.set_max_payload(payload);
                message.set_edns(edns);
            });
            assert_eq!(Question::read(&packet).unwrap().room(), room);
        }
    }

    #[test]
    fn what_is_no_question_is_told_so_or_dropped() {
        assert!(matches!(Question::read(&[]), Err(Fault::Silence)));
        assert!(matches!(Question::read(&[0; 11]), Err(Fault::Silence)));
        let mut answer = packet(|_| ());
        answer[2] |= 0x80;
        assert!(matches!(Question::read(&answer), Err(Fault::Silence)));
        let mut update = packet(|_| ());
        update[2] = 5 << 3;
        assert_eq!(said(&update), 4);
        let whole = packet(|_| ());
        assert_eq!(said(&whole[..whole.len() - 1]), 1);
        for (at, what) in [(4, "no question"), (6, "answers"), (8, "authorities")] {
            let mut packet = packet(|_| ());
            packet[at] = 0xff;
            assert_eq!(said(&packet), 1, "{what}");
        }
        let two = packet(|message| {
            let again = message.queries[0].clone();
            message.add_query(again);
        });
        assert_eq!(said(&two), 1);
        assert_eq!(said(&[whole, vec![0; 4096]].concat()), 1);
    }

    #[test]
    fn a_name_that_no_policy_can_mean_has_no_canonical_form() {
        let name = |labels: &[&[u8]]| Name::from_labels(labels.to_vec()).unwrap();
        assert_eq!(
            canonical(&name(&[b"a", b"b_c", b"D-1"])).as_deref(),
            Some("a.b_c.d-1")
        );
        // One label that reads as two would otherwise pass for a name below example.com.
        assert_eq!(canonical(&name(&[b"evil.example", b"com"])), None);
        assert_eq!(canonical(&name(&[b"a\0", b"com"])), None);
        assert_eq!(canonical(&name(&[b"\xc3\xbc", b"com"])), None);
        assert_eq!(canonical(&name(&[b"*", b"com"])), None);
        assert_eq!(canonical(&Name::root()), None);
    }
}
