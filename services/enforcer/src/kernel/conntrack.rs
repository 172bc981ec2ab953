//! Flows as conntrack knows them: their original tuple and their bytes.
//!
//! Whoever dumps gives a visitor; nothing here grows with the number of flows. Of a flow nothing is changed but bits of
//! its mark.

use std::net::IpAddr;

use super::netlink::{
    self, ACK, DUMP, Datagram, FAMILY_IPV4, FAMILY_IPV6, Opening, Subsystem, attribute, be16, be32,
    be64,
};
use super::sets::address_of;
use super::socket::{KernelError, Socket};

const NEW: u8 = 0;
const GET: u8 = 1;

const TUPLE_ORIGINAL: u16 = 1;
const MARK: u16 = 8;
const COUNTERS_ORIGINAL: u16 = 9;
const COUNTERS_REPLY: u16 = 10;
const MARK_MASK: u16 = 21;

const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;

const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

const COUNTERS_BYTES: u16 = 2;

/// The multicast group that tells of flows that ended.
pub const DESTROYED: u32 = 1 << 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// 0 where the protocol has none.
    pub source_port: u16,
    pub destination_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub flow: Flow,
    /// 0 unless the kernel accounts flows.
    pub bytes_out: u64,
    pub bytes_in: u64,
    /// Of our rulesets, where it has one.
    pub mark: u32,
}

/// Shows every flow of both families. `begin` is called whenever a dump starts, also anew.
pub fn visit(
    socket: &mut Socket,
    mut begin: impl FnMut(u8),
    mut each: impl FnMut(Seen),
) -> Result<(), KernelError> {
    for family in [FAMILY_IPV4, FAMILY_IPV6] {
        socket.dump(
            "listing the flows that conntrack knows",
            |sequence| {
                let mut datagram = Datagram::new();
                let opening = Opening::of(Subsystem::Conntrack, GET)
                    .flags(DUMP)
                    .family(family)
                    .sequence(sequence);
                datagram.message(opening, |_| {});
                datagram
            },
            |message| match message {
                None => begin(family),
                Some(message) => {
                    if let Some(seen) = parse(message) {
                        each(seen);
                    }
                }
            },
        )?;
    }
    Ok(())
}

/// One flow, by its original tuple. None: conntrack knows no such flow.
pub fn find(socket: &mut Socket, flow: &Flow) -> Result<Option<Seen>, KernelError> {
    let mut found = None;
    let asked = socket.dump(
        &format!("looking for the flow to {}", flow.destination),
        |sequence| {
            let mut datagram = Datagram::new();
            let opening = Opening::of(Subsystem::Conntrack, GET)
                .flags(ACK)
                .family(family(flow))
                .sequence(sequence);
            datagram.message(opening, |message| tuple(message, flow));
            datagram
        },
        |message| {
            if let Some(message) = message {
                found = parse(message);
            }
        },
    );
    match asked {
        Err(error) if error.is_missing() => Ok(None),
        asked => asked.map(|()| found),
    }
}

/// Gives these bits of a flow's mark this value, and leaves the others as they are.
pub fn mark(socket: &mut Socket, flow: &Flow, bits: u32, value: u32) -> Result<(), KernelError> {
    let sequence = socket.next_sequence();
    let mut datagram = Datagram::new();
    let opening = Opening::of(Subsystem::Conntrack, NEW)
        .flags(ACK)
        .family(family(flow))
        .sequence(sequence);
    datagram.message(opening, |message| {
        tuple(message, flow);
        message.attribute(MARK, &(value & bits).to_be_bytes());
        message.attribute(MARK_MASK, &bits.to_be_bytes());
    });
    let doing = format!("marking the flow to {}", flow.destination);
    socket.acknowledged(&datagram, sequence, sequence, &doing)
}

fn family(flow: &Flow) -> u8 {
    if flow.source.is_ipv4() {
        FAMILY_IPV4
    } else {
        FAMILY_IPV6
    }
}

fn tuple(message: &mut Datagram, flow: &Flow) {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (source, destination) = if flow.source.is_ipv4() {
        (1, 2)
    } else {
        (3, 4)
    };
    message.nested(TUPLE_ORIGINAL, |tuple| {
        tuple.nested(TUPLE_ADDRESSES, |addresses| {
            addresses.attribute(source, &octets(flow.source));
            addresses.attribute(destination, &octets(flow.destination));
        });
        tuple.nested(TUPLE_PROTOCOL, |protocol| {
            protocol.attribute(PROTOCOL_NUMBER, &[flow.protocol]);
            protocol.attribute(SOURCE_PORT, &flow.source_port.to_be_bytes());
            protocol.attribute(DESTINATION_PORT, &flow.destination_port.to_be_bytes());
        });
    });
}

/// A flow from the attributes of a message about it.
pub fn parse(message: &[u8]) -> Option<Seen> {
    let tuple = attribute(message, TUPLE_ORIGINAL)?;
    let addresses = attribute(tuple, TUPLE_ADDRESSES)?;
    let address = |v4, v6| {
        attribute(addresses, v4)
            .or_else(|| attribute(addresses, v6))
            .and_then(address_of)
    };
    let protocol = attribute(tuple, TUPLE_PROTOCOL)?;
    let port = |kind| attribute(protocol, kind).and_then(be16).unwrap_or(0);
    let counted = |kind| {
        attribute(message, kind)
            .and_then(|counters| attribute(counters, COUNTERS_BYTES))
            .and_then(be64)
            .unwrap_or(0)
    };
    Some(Seen {
        flow: Flow {
            source: address(1, 3)?,
            destination: address(2, 4)?,
            protocol: *attribute(protocol, PROTOCOL_NUMBER)?.first()?,
            source_port: port(SOURCE_PORT),
            destination_port: port(DESTINATION_PORT),
        },
        bytes_out: counted(COUNTERS_ORIGINAL),
        bytes_in: counted(COUNTERS_REPLY),
        mark: attribute(message, MARK).and_then(be32).unwrap_or(0),
    })
}

/// The flows of a datagram of the event group `DESTROYED`.
pub fn events(datagram: &[u8]) -> impl Iterator<Item = Seen> {
    netlink::messages(datagram).filter_map(|received| match received {
        netlink::Received::Message {
            kind, attributes, ..
        } if kind >> 8 == Subsystem::Conntrack as u16 => parse(attributes),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_flow_is_read_from_its_attributes() {
        let mut datagram = Datagram::new();
        datagram.message(Opening::of(Subsystem::Conntrack, 0), |message| {
            message.nested(TUPLE_ORIGINAL, |tuple| {
                tuple.nested(TUPLE_ADDRESSES, |addresses| {
                    addresses.attribute(1, &[192, 168, 10, 10]);
                    addresses.attribute(2, &[192, 0, 2, 1]);
                });
                tuple.nested(TUPLE_PROTOCOL, |protocol| {
                    protocol.attribute(PROTOCOL_NUMBER, &[6]);
                    protocol.attribute(SOURCE_PORT, &40_000_u16.to_be_bytes());
                    protocol.attribute(DESTINATION_PORT, &443_u16.to_be_bytes());
                });
            });
            message.attribute(MARK, &7_u32.to_be_bytes());
            message.nested(COUNTERS_REPLY, |counters| {
                counters.attribute(COUNTERS_BYTES, &77_u64.to_be_bytes());
            });
        });
        let seen: Vec<Seen> = events(datagram.bytes()).collect();
        let [seen] = seen.as_slice() else {
            panic!("{seen:?}");
        };
        assert_eq!(seen.flow.source, "192.168.10.10".parse::<IpAddr>().unwrap());
        assert_eq!(seen.flow.destination_port, 443);
        assert_eq!((seen.bytes_out, seen.bytes_in, seen.mark), (0, 77, 7));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = events(&bytes).count();
        }
    }
}
