//! Elements of nftables sets: added and deleted in one transaction, and listed.
//!
//! Never makes a set, a chain or a rule: those come with the plan alone.

use std::net::IpAddr;

use clawgress_link::netfilter::sets::{
    DATA_VALUE, ELEMENT_KEY, LIST_ELEMENT, LIST_ELEMENTS, LIST_SET, LIST_TABLE,
};
pub use clawgress_link::netfilter::sets::{list, only_number};

use super::netlink::{self, ACK, CREATE, Datagram, FAMILY_INET, Opening, Subsystem};
use super::socket::{KernelError, Socket};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_SET_ELEMENT: u8 = 12;
const DELETE_SET_ELEMENT: u8 = 14;

/// The attribute of an element that a map gives.
const ELEMENT_DATA: u16 = 2;

/// A list is an attribute, whose length has sixteen bits; and a datagram has to fit the socket's send buffer, also if
/// each change is to another set.
const ELEMENTS_A_MESSAGE: usize = 500;
const CHANGES_A_BATCH: usize = 1000;

/// A change to one set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    pub table: &'static str,
    pub set: String,
    pub verb: Verb,
    pub key: Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Add,
    Delete,
}

/// What a set is keyed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Address(IpAddr),
    /// `ipv4_addr . inet_service` or `ipv6_addr . inet_service`.
    AddressAndPort(IpAddr, u16),
    /// A mark or another number in the byte order of this machine.
    Number(u32),
    /// A protocol family, of a map.
    Family(u8),
}

/// A set or map, and all that it is to hold; the number is what a map gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    pub table: &'static str,
    pub set: String,
    pub elements: Vec<(Key, Option<u32>)>,
}

impl Key {
    /// As the kernel keeps it; each part of a compound fills whole registers of four bytes.
    fn bytes(self) -> Vec<u8> {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        match self {
            Self::Address(address) => octets(address),
            Self::AddressAndPort(address, port) => {
                let mut bytes = octets(address);
                bytes.extend_from_slice(&port.to_be_bytes());
                bytes.extend_from_slice(&[0; 2]);
                bytes
            }
            Self::Number(number) => number.to_ne_bytes().to_vec(),
            Self::Family(family) => vec![family],
        }
    }
}

/// Applies the changes in order, all of them or none (in lots of 1,000). Adding what is there and deleting what is
/// not there are different: the second is an error.
pub fn change(socket: &mut Socket, changes: &[Change]) -> Result<(), KernelError> {
    for lot in changes.chunks(CHANGES_A_BATCH) {
        change_lot(socket, lot)?;
    }
    Ok(())
}

fn change_lot(socket: &mut Socket, changes: &[Change]) -> Result<(), KernelError> {
    let messages: Vec<&[Change]> = changes
        .chunk_by(|left, right| {
            left.table == right.table && left.set == right.set && left.verb == right.verb
        })
        .flat_map(|run| run.chunks(ELEMENTS_A_MESSAGE))
        .collect();
    let Some(last_message) = messages.last().and_then(|run| run.first()) else {
        return Ok(());
    };
    let doing = match messages.len() {
        1 => format!("changing set {} of the kernel", last_message.set),
        several => format!("changing sets of the kernel, {several} messages"),
    };
    let first = socket.next_sequence();
    let mut last = first;
    let mut datagram = Datagram::new();
    datagram.message(batch(BATCH_BEGIN, first), |_| {});
    for (place, run) in messages.iter().enumerate() {
        last = socket.next_sequence();
        // One acknowledgement speaks for all: errors are told in any case.
        let flags = if place + 1 == messages.len() { ACK } else { 0 };
        elements(&mut datagram, run, flags, last);
    }
    let end = socket.next_sequence();
    datagram.message(batch(BATCH_END, end), |_| {});
    socket.acknowledged(&datagram, first, last, &doing)
}

/// Whether `exchange` can take as much at once.
pub fn is_exchangeable(exchanges: &[Exchange]) -> bool {
    let elements: usize = exchanges.iter().map(|one| one.elements.len() + 1).sum();
    elements <= CHANGES_A_BATCH
}

/// Empties the sets and fills them, all in one step: no packet sees anything in between.
pub fn exchange(socket: &mut Socket, exchanges: &[Exchange]) -> Result<(), KernelError> {
    if exchanges.is_empty() {
        return Ok(());
    }
    let mut datagram = Datagram::new();
    let first = socket.next_sequence();
    datagram.message(batch(BATCH_BEGIN, first), |_| {});
    let mut last = first;
    let messages = exchanges
        .iter()
        .map(|one| 1 + one.elements.len().div_ceil(ELEMENTS_A_MESSAGE))
        .sum::<usize>();
    let mut left = messages;
    let mut message = |kind: u8, flags: u16, one: &Exchange, elements: &[(Key, Option<u32>)]| {
        last = socket.next_sequence();
        left -= 1;
        // One acknowledgement speaks for all: errors are told in any case.
        let flags = flags | if left == 0 { ACK } else { 0 };
        let opening = Opening::of(Subsystem::Tables, kind)
            .flags(flags)
            .family(FAMILY_INET)
            .sequence(last);
        datagram.message(opening, |body| {
            body.text(LIST_TABLE, one.table);
            body.text(LIST_SET, &one.set);
            if elements.is_empty() {
                return;
            }
            body.nested(LIST_ELEMENTS, |list| {
                for (key, given) in elements {
                    list.nested(LIST_ELEMENT, |element| {
                        element.nested(ELEMENT_KEY, |value| {
                            value.attribute(DATA_VALUE, &key.bytes());
                        });
                        if let Some(given) = given {
                            element.nested(ELEMENT_DATA, |value| {
                                value.attribute(DATA_VALUE, &given.to_ne_bytes());
                            });
                        }
                    });
                }
            });
        });
    };
    for one in exchanges {
        // Without elements it means all of them.
        message(DELETE_SET_ELEMENT, 0, one, &[]);
    }
    for one in exchanges {
        for some in one.elements.chunks(ELEMENTS_A_MESSAGE) {
            message(NEW_SET_ELEMENT, CREATE, one, some);
        }
    }
    let end = socket.next_sequence();
    datagram.message(batch(BATCH_END, end), |_| {});
    let doing = format!("exchanging {} sets of the kernel", exchanges.len());
    socket.acknowledged(&datagram, first, last, &doing)
}

fn batch(kind: u16, sequence: u32) -> Opening {
    Opening {
        kind,
        flags: netlink::REQUEST,
        sequence,
        family: netlink::FAMILY_ANY,
        resource: Subsystem::Tables as u16,
    }
}

fn elements(datagram: &mut Datagram, run: &[Change], flags: u16, sequence: u32) {
    let Some(first) = run.first() else { return };
    let (message, flags) = match first.verb {
        Verb::Add => (NEW_SET_ELEMENT, flags | CREATE),
        Verb::Delete => (DELETE_SET_ELEMENT, flags),
    };
    let opening = Opening::of(Subsystem::Tables, message)
        .flags(flags)
        .family(FAMILY_INET)
        .sequence(sequence);
    datagram.message(opening, |body| {
        body.text(LIST_TABLE, first.table);
        body.text(LIST_SET, &first.set);
        body.nested(LIST_ELEMENTS, |list| {
            for change in run {
                list.nested(LIST_ELEMENT, |element| {
                    element.nested(ELEMENT_KEY, |key| {
                        key.attribute(DATA_VALUE, &change.key.bytes());
                    });
                });
            }
        });
    });
}

/// The addresses of a set.
pub fn addresses(socket: &mut Socket, table: &str, set: &str) -> Result<Vec<IpAddr>, KernelError> {
    let keys = list(socket, table, set)?;
    Ok(keys.iter().filter_map(|key| address_of(key)).collect())
}

pub(crate) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn an_element_is_exactly_these_bytes() {
        let mut datagram = Datagram::new();
        let change = Change {
            table: "t",
            set: "p1".to_owned(),
            verb: Verb::Add,
            key: Key::Address("192.0.2.7".parse().unwrap()),
        };
        elements(&mut datagram, &[change], ACK, 3);
        #[rustfmt::skip]
        let expected = [
            56, 0, 0, 0,  12, 10,  5, 4,  3, 0, 0, 0,  0, 0, 0, 0,
            1, 0, 0, 0,
            6, 0, 1, 0,  b't', 0, 0, 0,
            7, 0, 2, 0,  b'p', b'1', 0, 0,
            20, 0, 3, 0x80,  16, 0, 1, 0x80,  12, 0, 1, 0x80,  8, 0, 1, 0,  192, 0, 2, 7,
        ];
        assert_eq!(datagram.bytes(), expected);
    }

    #[test]
    fn compound_keys_fill_whole_registers() {
        let v4 = Key::AddressAndPort("192.0.2.7".parse().unwrap(), 0x1234);
        assert_eq!(v4.bytes(), [192, 0, 2, 7, 0x12, 0x34, 0, 0]);
        let v6 = Key::AddressAndPort("2001:db8::1".parse().unwrap(), 443);
        assert_eq!(v6.bytes().len(), 20);
    }
}
