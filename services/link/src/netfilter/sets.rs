//! What a set of the kernel's tables holds, and how often those tables have changed.

use super::netlink::{
    ACK, DUMP, Datagram, FAMILY_INET, Opening, Subsystem, attribute, attributes, be32,
};
use super::socket::{KernelError, Socket};

const GET_SET_ELEMENT: u8 = 13;
const GET_GENERATION: u8 = 16;

/// Attributes of a list of elements, of an element, of a value (linux/netfilter/nf_tables.h).
pub const LIST_TABLE: u16 = 1;
pub const LIST_SET: u16 = 2;
pub const LIST_ELEMENTS: u16 = 3;
pub const LIST_ELEMENT: u16 = 1;
pub const ELEMENT_KEY: u16 = 1;
pub const DATA_VALUE: u16 = 1;
const GENERATION_NUMBER: u16 = 1;

/// The keys of a set, as the kernel keeps them.
pub fn list(socket: &mut Socket, table: &str, set: &str) -> Result<Vec<Vec<u8>>, KernelError> {
    let mut keys = Vec::new();
    socket.dump(
        &format!("listing set {set} of table inet {table}"),
        |sequence| {
            let mut datagram = Datagram::new();
            let opening = Opening::of(Subsystem::Tables, GET_SET_ELEMENT)
                .flags(DUMP)
                .family(FAMILY_INET)
                .sequence(sequence);
            datagram.message(opening, |body| {
                body.text(LIST_TABLE, table);
                body.text(LIST_SET, set);
            });
            datagram
        },
        |message| match message {
            None => keys.clear(),
            Some(message) => keys.extend(
                attribute(message, LIST_ELEMENTS)
                    .into_iter()
                    .flat_map(attributes)
                    .filter(|(kind, _)| *kind == LIST_ELEMENT)
                    .filter_map(|(_, element)| attribute(element, ELEMENT_KEY))
                    .filter_map(|key| attribute(key, DATA_VALUE))
                    .map(<[u8]>::to_vec),
            ),
        },
    )?;
    Ok(keys)
}

/// The one number that a set of our own holds; none if the table is not there or is none of ours.
pub fn only_number(
    socket: &mut Socket,
    table: &str,
    set: &str,
) -> Result<Option<u32>, KernelError> {
    match list(socket, table, set) {
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
        Ok(keys) => Ok(match keys.as_slice() {
            [only] => only.as_slice().try_into().ok().map(u32::from_ne_bytes),
            _ => None,
        }),
    }
}

/// A number that every change to any table, chain, rule, set or element makes another one.
pub fn changes(socket: &mut Socket) -> Result<u32, KernelError> {
    let doing = "asking the kernel how often its tables have changed";
    let mut number = None;
    socket.dump(
        doing,
        |sequence| {
            let mut datagram = Datagram::new();
            let opening = Opening::of(Subsystem::Tables, GET_GENERATION)
                .flags(ACK)
                .sequence(sequence);
            datagram.message(opening, |_| {});
            datagram
        },
        |message| number = message.and_then(|message| be32(attribute(message, GENERATION_NUMBER)?)),
    )?;
    number.ok_or_else(|| KernelError::Answer {
        doing: doing.to_owned(),
        why: "the answer holds no number".to_owned(),
    })
}
