//! Netlink messages byte by byte: headers, attributes, and reading both back.
//!
//! Whatever is read comes from a kernel that may be newer than this code: every length is checked, unknown attributes
//! are passed over, and nothing here can fail in another way than by saying so.

/// Flags of a request (linux/netlink.h).
pub const REQUEST: u16 = 0x01;
pub const ACK: u16 = 0x04;
pub const DUMP: u16 = 0x300;
pub const CREATE: u16 = 0x400;

/// Kinds of a control message.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;

/// The dump was disturbed by a change; what was read is not one state of the kernel.
const DUMP_INTERRUPTED: u16 = 0x10;

const HEADER: usize = 16;
pub const NETFILTER_HEADER: usize = 4;
const NESTED: u16 = 0x8000;
/// Nested and network-order flags are no part of an attribute's kind.
const KIND_MASK: u16 = 0x3fff;

/// The parts of netfilter that answer here (linux/netfilter/nfnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Subsystem {
    Conntrack = 1,
    Log = 4,
    Tables = 10,
}

/// The families that a netfilter header names.
pub const FAMILY_ANY: u8 = 0;
pub const FAMILY_INET: u8 = 1;
pub const FAMILY_IPV4: u8 = 2;
pub const FAMILY_IPV6: u8 = 10;

/// Messages being written one after the other into one datagram.
#[derive(Debug, Default)]
pub struct Datagram {
    bytes: Vec<u8>,
}

/// What opens a message.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub family: u8,
    pub resource: u16,
}

impl Opening {
    pub fn of(subsystem: Subsystem, message: u8) -> Self {
        Self {
            kind: u16::from(subsystem as u8) << 8 | u16::from(message),
            flags: REQUEST,
            sequence: 0,
            family: FAMILY_ANY,
            resource: 0,
        }
    }

    #[must_use]
    pub fn flags(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    #[must_use]
    pub fn sequence(mut self, sequence: u32) -> Self {
        self.sequence = sequence;
        self
    }

    #[must_use]
    pub fn family(mut self, family: u8) -> Self {
        self.family = family;
        self
    }

    #[must_use]
    pub fn resource(mut self, resource: u16) -> Self {
        self.resource = resource;
        self
    }
}

impl Datagram {
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes one message; `body` adds its attributes.
    pub fn message(&mut self, opening: Opening, body: impl FnOnce(&mut Self)) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&opening.kind.to_ne_bytes());
        self.bytes.extend_from_slice(&opening.flags.to_ne_bytes());
        self.bytes
            .extend_from_slice(&opening.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.push(opening.family);
        self.bytes.push(0);
        self.bytes
            .extend_from_slice(&opening.resource.to_be_bytes());
        body(self);
        let length = (self.bytes.len() - begin) as u32;
        self.bytes[begin..begin + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Writes a message to another part of the kernel than netfilter, its body as it is.
    pub fn foreign(&mut self, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
        let length = (HEADER + body.len()) as u32;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(body);
        self.pad();
    }

    pub fn attribute(&mut self, kind: u16, payload: &[u8]) {
        // No payload of this program comes near what sixteen bits can say.
        let length = (payload.len() + 4) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
    }

    /// A text with the zero that the kernel wants at its end.
    pub fn text(&mut self, kind: u16, text: &str) {
        let mut payload = Vec::with_capacity(text.len() + 1);
        payload.extend_from_slice(text.as_bytes());
        payload.push(0);
        self.attribute(kind, &payload);
    }

    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        body(self);
        let length = (self.bytes.len() - begin) as u16;
        self.bytes[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn pad(&mut self) {
        let odd = self.bytes.len() % 4;
        if odd != 0 {
            self.bytes.resize(self.bytes.len() + 4 - odd, 0);
        }
    }
}

/// A message as the kernel sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// An acknowledgement (0) or an error number.
    Outcome { sequence: u32, errno: i32 },
    /// The end of a dump.
    Done { sequence: u32 },
    /// Something was lost, or the dump does not show one state.
    Disturbed { sequence: u32 },
    Message {
        sequence: u32,
        kind: u16,
        /// With the netfilter header, or whatever stands there elsewhere.
        body: &'a [u8],
        /// After the netfilter header.
        attributes: &'a [u8],
    },
}

/// The messages of one datagram. A message that does not keep to its own length ends the iteration.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (received, length) = first_message(rest)?;
        rest = rest.get(align(length)..).unwrap_or_default();
        Some(received)
    })
}

fn first_message(bytes: &[u8]) -> Option<(Received<'_>, usize)> {
    let length = u32_at(bytes, 0)? as usize;
    let kind = u16_at(bytes, 4)?;
    let flags = u16_at(bytes, 6)?;
    let sequence = u32_at(bytes, 8)?;
    let body = bytes.get(HEADER..length)?;
    let received = match kind {
        ERROR => Received::Outcome {
            sequence,
            errno: i32::from_ne_bytes(body.get(..4)?.try_into().ok()?).saturating_neg(),
        },
        DONE => Received::Done { sequence },
        OVERRUN => Received::Disturbed { sequence },
        _ if flags & DUMP_INTERRUPTED != 0 => Received::Disturbed { sequence },
        _ => Received::Message {
            sequence,
            kind,
            body,
            attributes: body.get(NETFILTER_HEADER..).unwrap_or_default(),
        },
    };
    Some((received, length))
}

/// The attributes of a message or of a nested attribute: kind and payload.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & KIND_MASK;
        let payload = rest.get(4..length)?;
        rest = rest.get(align(length)..).unwrap_or_default();
        Some((kind, payload))
    })
}

pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, payload)| (kind == wanted).then_some(payload))
}

pub fn be16(payload: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(payload.try_into().ok()?))
}

pub fn be32(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.try_into().ok()?))
}

pub fn be64(payload: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(payload.try_into().ok()?))
}

/// A text up to its first zero; what is no UTF-8 is none of ours.
pub fn text(payload: &[u8]) -> Option<&str> {
    let end = payload
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(payload.len());
    std::str::from_utf8(payload.get(..end)?).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn align(length: usize) -> usize {
    length.div_ceil(4) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_message_is_exactly_these_bytes() {
        let mut datagram = Datagram::new();
        let opening = Opening::of(Subsystem::Tables, 12)
            .flags(ACK | CREATE)
            .sequence(7)
            .family(FAMILY_INET);
        datagram.message(opening, |message| {
            message.text(1, "ab");
            message.nested(3, |list| list.attribute(1, &[192, 0, 2, 1]));
        });
        #[rustfmt::skip]
        let expected = [
            40, 0, 0, 0,  12, 10,  5, 4,  7, 0, 0, 0,  0, 0, 0, 0, // length, kind, flags, sequence, port
            1, 0, 0, 0,                                             // inet, version, resource
            7, 0, 1, 0,  b'a', b'b', 0, 0,                          // a text, padded
            12, 0, 3, 0x80,  8, 0, 1, 0,  192, 0, 2, 1,             // nested
        ];
        assert_eq!(datagram.bytes(), expected);
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut datagram = Datagram::new();
        for sequence in [1, 2] {
            let opening = Opening::of(Subsystem::Conntrack, 0).sequence(sequence);
            datagram.message(opening, |message| {
                message.text(2, "name");
                message.nested(4, |nested| nested.attribute(9, &5_u64.to_be_bytes()));
            });
        }
        let read: Vec<_> = messages(datagram.bytes()).collect();
        assert_eq!(read.len(), 2);
        let Received::Message {
            sequence,
            kind,
            attributes: all,
            ..
        } = read[1]
        else {
            panic!("{read:?}");
        };
        assert_eq!((sequence, kind), (2, 0x100));
        assert_eq!(attribute(all, 2).and_then(text), Some("name"));
        let nested = attribute(all, 4).unwrap();
        assert_eq!(attribute(nested, 9).and_then(be64), Some(5));
    }

    #[test]
    fn nonsense_ends_the_reading_and_nothing_else() {
        for length in [0_u32, 3, 15, 16, 17, 4000, u32::MAX] {
            let mut bytes = vec![0xff; 64];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(messages(&bytes).count() <= 4, "{length}");
        }
        for length in [0_u16, 1, 3, 5, u16::MAX] {
            let mut bytes = vec![0; 9];
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert!(attributes(&bytes).count() <= 3, "{length}");
        }
        assert_eq!(messages(&[]).count(), 0);
    }

    #[test]
    fn errors_and_ends_are_told_from_messages() {
        let control = |kind: u16, flags: u16, body: i32| {
            let mut bytes = 20_u32.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(flags.to_ne_bytes());
            bytes.extend(9_u32.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(body.to_ne_bytes());
            bytes
        };
        let sequence = 9;
        let first = |bytes: &[u8]| format!("{:?}", messages(bytes).next().unwrap());
        let said = |received: Received<'_>| format!("{received:?}");
        assert_eq!(
            first(&control(2, 0, -17)),
            said(Received::Outcome {
                sequence,
                errno: 17
            })
        );
        assert_eq!(first(&control(3, 0, 0)), said(Received::Done { sequence }));
        assert_eq!(
            first(&control(0x0a0c, 0x10, 0)),
            said(Received::Disturbed { sequence })
        );
    }
}
