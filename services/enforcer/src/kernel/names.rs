//! What a table holds, by name alone: sets, chains, and objects of a kind.

use std::collections::BTreeSet;

use super::netlink::{self, DUMP, Datagram, FAMILY_INET, Opening, Subsystem, attribute};
use super::socket::{KernelError, Socket};

const GET_CHAIN: u8 = 4;
const GET_SET: u8 = 10;

const TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const CHAIN_NAME: u16 = 3;

/// Every named set and map; those that stand in rules are left out.
pub fn sets(socket: &mut Socket, table: &str) -> Result<BTreeSet<String>, KernelError> {
    let mut names = list(socket, table, GET_SET, SET_NAME)?;
    names.retain(|name| !name.starts_with("__"));
    Ok(names)
}

pub fn chains(socket: &mut Socket, table: &str) -> Result<BTreeSet<String>, KernelError> {
    list(socket, table, GET_CHAIN, CHAIN_NAME)
}

/// Nothing, where there is no such table.
fn list(
    socket: &mut Socket,
    table: &str,
    message: u8,
    name: u16,
) -> Result<BTreeSet<String>, KernelError> {
    let mut names = BTreeSet::new();
    let listed = socket.dump(
        &format!("listing what table inet {table} holds"),
        |sequence| {
            let mut datagram = Datagram::new();
            let opening = Opening::of(Subsystem::Tables, message)
                .flags(DUMP)
                .family(FAMILY_INET)
                .sequence(sequence);
            datagram.message(opening, |body| body.text(TABLE, table));
            datagram
        },
        |message| match message {
            None => names.clear(),
            Some(message) => {
                // Chains are listed whichever table they are of.
                let ours = attribute(message, TABLE).and_then(netlink::text) == Some(table);
                let name = attribute(message, name).and_then(netlink::text);
                names.extend(name.filter(|_| ours).map(str::to_owned));
            }
        },
    );
    match listed {
        Err(error) if error.is_missing() => Ok(BTreeSet::new()),
        Err(error) => Err(error),
        Ok(()) => Ok(names),
    }
}
