//! Named quotas and counters of a table: read in one dump, and set back to zero one by one.
//!
//! Never makes or removes one, and never touches a limit: those come with the plan.

use std::collections::HashMap;

use super::netlink::{
    self, DUMP, Datagram, FAMILY_INET, Opening, Subsystem, attribute, be32, be64,
};
use super::socket::{KernelError, Socket};

const GET_OBJECT: u8 = 19;
const GET_OBJECT_RESET: u8 = 21;

const TABLE: u16 = 1;
const NAME: u16 = 2;
const KIND: u16 = 3;
const DATA: u16 = 4;

const COUNTER: u32 = 1;
const QUOTA: u32 = 2;

const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;
const QUOTA_BYTES: u16 = 1;
const QUOTA_CONSUMED: u16 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    pub bytes: u64,
    pub packets: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    pub limit: u64,
    /// The kernel never says more than the limit.
    pub used: u64,
}

/// Every counter of a table, by name.
pub fn counters(socket: &mut Socket, table: &str) -> Result<HashMap<String, Counter>, KernelError> {
    read(socket, table, COUNTER, |data| {
        Some(Counter {
            bytes: attribute(data, COUNTER_BYTES).and_then(be64)?,
            packets: attribute(data, COUNTER_PACKETS).and_then(be64)?,
        })
    })
}

/// Every quota of a table, by name.
pub fn quotas(socket: &mut Socket, table: &str) -> Result<HashMap<String, Quota>, KernelError> {
    read(socket, table, QUOTA, quota)
}

fn quota(data: &[u8]) -> Option<Quota> {
    Some(Quota {
        limit: attribute(data, QUOTA_BYTES).and_then(be64)?,
        used: attribute(data, QUOTA_CONSUMED).and_then(be64)?,
    })
}

/// One quota. None: there is none of this name.
pub fn quota_of(
    socket: &mut Socket,
    table: &str,
    name: &str,
) -> Result<Option<Quota>, KernelError> {
    one_quota(socket, table, name, GET_OBJECT, "reading")
}

/// Reads a quota and sets its use to zero in the same step: no byte in between is lost or counted twice.
pub fn reset_quota(
    socket: &mut Socket,
    table: &str,
    name: &str,
) -> Result<Option<Quota>, KernelError> {
    one_quota(socket, table, name, GET_OBJECT_RESET, "resetting")
}

fn one_quota(
    socket: &mut Socket,
    table: &str,
    name: &str,
    request: u8,
    doing: &str,
) -> Result<Option<Quota>, KernelError> {
    let mut found = None;
    let doing = format!("{doing} quota {name} of table inet {table}");
    socket.dump(
        &doing,
        |sequence| {
            let mut datagram = Datagram::new();
            let opening = Opening::of(Subsystem::Tables, request)
                .flags(netlink::ACK)
                .family(FAMILY_INET)
                .sequence(sequence);
            datagram.message(opening, |body| {
                body.text(TABLE, table);
                body.text(NAME, name);
                body.attribute(KIND, &QUOTA.to_be_bytes());
            });
            datagram
        },
        |message| {
            if let Some(message) = message {
                found = attribute(message, DATA).and_then(quota);
            }
        },
    )?;
    Ok(found)
}

fn read<T>(
    socket: &mut Socket,
    table: &str,
    kind: u32,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> Result<HashMap<String, T>, KernelError> {
    let mut objects = HashMap::new();
    socket.dump(
        &format!("reading the objects of table inet {table}"),
        |sequence| {
            let mut datagram = Datagram::new();
            let opening = Opening::of(Subsystem::Tables, GET_OBJECT)
                .flags(DUMP)
                .family(FAMILY_INET)
                .sequence(sequence);
            datagram.message(opening, |body| {
                body.text(TABLE, table);
                body.attribute(KIND, &kind.to_be_bytes());
            });
            datagram
        },
        |message| match message {
            None => objects.clear(),
            Some(message) => {
                // The filter of the request is a wish; older kernels list other tables too.
                let ours = attribute(message, TABLE).and_then(netlink::text) == Some(table)
                    && attribute(message, KIND).and_then(be32) == Some(kind);
                let name = attribute(message, NAME).and_then(netlink::text);
                let data = attribute(message, DATA).and_then(&parse);
                if let (true, Some(name), Some(data)) = (ours, name, data) {
                    objects.insert(name.to_owned(), data);
                }
            }
        },
    )?;
    Ok(objects)
}
