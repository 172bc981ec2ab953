//! The schema as data: every path, its type, help, default and completion, in one place.
//!
//! A new capability adds lines here and nothing elsewhere: parser, validation, completion and help read this table.

use crate::schema::{Complete, Entry, Kind};
use crate::value::Value;

pub(crate) const ROLES: &[&str] = &["wan", "lan", "management"];

const fn group(path: &'static str, help: &'static str) -> Entry {
    Entry {
        path,
        kind: Kind::Group,
        help,
        default: None,
        complete: Complete::Nothing,
    }
}

const fn named(path: &'static str, value: Value, help: &'static str) -> Entry {
    Entry {
        path,
        kind: Kind::Named(value),
        help,
        default: None,
        complete: Complete::Nothing,
    }
}

const fn one(path: &'static str, value: Value, help: &'static str) -> Entry {
    Entry {
        path,
        kind: Kind::One(value),
        help,
        default: None,
        complete: Complete::Nothing,
    }
}

const fn many(path: &'static str, value: Value, help: &'static str) -> Entry {
    Entry {
        path,
        kind: Kind::Many(value),
        help,
        default: None,
        complete: Complete::Nothing,
    }
}

/// Paths in the order in which they are printed. `<x>` stands for a name that the operator chooses.
#[rustfmt::skip]
pub const TABLE: &[Entry] = &[
    group("system", "This machine"),
    one("system host-name", Value::HostName, "Name of this machine, in its prompt and its certificate")
        .or("clawgress"),
    one("system time-zone", Value::TimeZone, "Time zone of time windows and logs")
        .or("UTC").completing(Complete::TimeZones),
    many("system name-server", Value::Server, "Resolver that allowed names are asked of, in this order"),
    group("system ntp", "Where the time comes from; servers offered by DHCP are ignored"),
    many("system ntp server", Value::Host, "Time server; give an address until a policy lets its name be resolved"),

    group("interfaces", "Network cards"),
    named("interfaces ethernet <card>", Value::Card, "One Ethernet card")
        .completing(Complete::Cards),
    many("interfaces ethernet <card> address", Value::InterfaceAddress, "Address of the card, or dhcp")
        .completing(Complete::Words(&["dhcp"])),
    many("interfaces ethernet <card> role", Value::Word(ROLES),
        "What is behind the card: wan the outside, lan the agents, management the operators")
        .completing(Complete::Words(ROLES)),
    one("interfaces ethernet <card> description", Value::Text, "Note for people"),

    group("protocols", "Routing"),
    group("protocols static", "Routes that never change by themselves"),
    named("protocols static route <network>", Value::Network, "Network that is reached through another router")
        .completing(Complete::Words(&["0.0.0.0/0", "::/0"])),
    one("protocols static route <network> next-hop", Value::Server, "Address of that router"),

    group("service", "What this machine offers"),
    group("service ssh", "Remote console; only on management addresses"),
    one("service ssh port", Value::Port, "Port it listens on").or("22"),
    many("service ssh listen-address", Value::Address, "Management address it listens on; all of them if none is given"),
    many("service ssh allow", Value::Network, "Network that may connect"),
];

impl Entry {
    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn completing(mut self, complete: Complete) -> Self {
        self.complete = complete;
        self
    }
}
