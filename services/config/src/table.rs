//! The schema as data: every path, its type, help, default and completion, in one place.
//!
//! A new capability adds lines here and nothing elsewhere: parser, validation, completion and help read this table.

use crate::policy::words::{DAYS, MODES, PERIODS, PROTOCOLS};
use crate::schema::{Complete, Entry, Kind};
use crate::value::Value;

pub(crate) const ROLES: &[&str] = &["wan", "lan", "management"];
pub(crate) const SWITCH: &[&str] = &["enable", "disable"];
/// What syslog knows; the numbered ones are free for local use.
pub(crate) const FACILITIES: &[&str] = &[
    "auth", "authpriv", "cron", "daemon", "kern", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7", "lpr", "mail", "news", "syslog", "user", "uucp",
];

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

const fn flag(path: &'static str, help: &'static str) -> Entry {
    Entry {
        path,
        kind: Kind::Flag,
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
    flag("system ntp trust-hardware-clock", "Judge time windows by the clock of this machine though no time server has answered"),

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

    group("service clawgress", "What agents may reach"),
    flag("service clawgress enable", "Enforce the policy; without it nothing leaves"),
    many("service clawgress listen-address", Value::Address, "LAN address that agents may speak to this machine on; all of them if none is given"),
    group("service clawgress policy", "What everybody may reach; hosts named below have their own alone"),
    named("service clawgress policy domain <domain>", Value::Domain, "Domain that may be reached: itself alone, or with *. every name below it"),
    one("service clawgress policy domain <domain> label", Value::Label, "Reason shown in logs and to the agent"),
    group("service clawgress policy domain <domain> time-window", "When this domain may be reached, instead of the window around it; at all times without"),
    many("service clawgress policy domain <domain> time-window day", Value::Word(DAYS), "Day on which the window opens")
        .completing(Complete::Words(DAYS)),
    one("service clawgress policy domain <domain> time-window start", Value::TimeOfDay, "When it opens, in the time zone of this machine"),
    one("service clawgress policy domain <domain> time-window end", Value::TimeOfDay, "When it closes; before start means on the day after"),
    many("service clawgress policy ip", Value::Network, "Network that may be reached by address"),
    named("service clawgress policy port <port>", Value::Port, "Port that may be reached; TCP if no protocol is given. Without any port: 80 and 443"),
    many("service clawgress policy port <port> protocol", Value::Word(PROTOCOLS), "Protocol of this port; give both for both")
        .completing(Complete::Words(PROTOCOLS)),
    group("service clawgress policy time-window", "When anything may be reached; at all times without"),
    many("service clawgress policy time-window day", Value::Word(DAYS), "Day on which the window opens")
        .completing(Complete::Words(DAYS)),
    one("service clawgress policy time-window start", Value::TimeOfDay, "When it opens, in the time zone of this machine"),
    one("service clawgress policy time-window end", Value::TimeOfDay, "When it closes; before start means on the day after"),
    one("service clawgress policy rate-limit-kbps", Value::Kbps, "Most that may leave, in kbit/s of 1000 bit"),
    group("service clawgress policy proxy", "How names are judged in the connections themselves"),
    one("service clawgress policy proxy mode", Value::Word(MODES), "sni-allowlist judges port 443 by the name in TLS and port 80 by the Host header")
        .completing(Complete::Words(MODES)),
    named("service clawgress policy proxy domain <domain>", Value::Domain, "Domain allowed by that name; the allowed domains if none is given"),
    group("service clawgress policy proxy domain <domain> time-window", "When this domain may be reached, instead of the window around it; at all times without"),
    many("service clawgress policy proxy domain <domain> time-window day", Value::Word(DAYS), "Day on which the window opens")
        .completing(Complete::Words(DAYS)),
    one("service clawgress policy proxy domain <domain> time-window start", Value::TimeOfDay, "When it opens, in the time zone of this machine"),
    one("service clawgress policy proxy domain <domain> time-window end", Value::TimeOfDay, "When it closes; before start means on the day after"),
    one("service clawgress policy proxy backend", Value::Backend, "Next gateway that connections are handed to"),
    group("service clawgress policy proxy mtls", "Mutual TLS with the backend"),
    one("service clawgress policy proxy mtls ca", Value::File, "Certificates that the backend's is checked against"),
    one("service clawgress policy proxy mtls certificate", Value::File, "Certificate shown to the backend"),
    one("service clawgress policy proxy mtls key", Value::File, "Key of that certificate"),
    named("service clawgress policy label <domain>", Value::Domain, "Domain that is labelled and not allowed to everybody"),
    one("service clawgress policy label <domain> text", Value::Label, "Reason shown in logs and to the agent"),
    named("service clawgress policy host <host>", Value::HostEntry, "Machine or group of machines with a policy of its own"),
    many("service clawgress policy host <host> source", Value::Source, "Network or address that the host's packets come from; the most specific one wins"),
    named("service clawgress policy host <host> domain <domain>", Value::Domain, "Domain that may be reached: itself alone, or with *. every name below it"),
    one("service clawgress policy host <host> domain <domain> label", Value::Label, "Reason shown in logs and to the agent"),
    group("service clawgress policy host <host> domain <domain> time-window", "When this domain may be reached, instead of the window around it; at all times without"),
    many("service clawgress policy host <host> domain <domain> time-window day", Value::Word(DAYS), "Day on which the window opens")
        .completing(Complete::Words(DAYS)),
    one("service clawgress policy host <host> domain <domain> time-window start", Value::TimeOfDay, "When it opens, in the time zone of this machine"),
    one("service clawgress policy host <host> domain <domain> time-window end", Value::TimeOfDay, "When it closes; before start means on the day after"),
    many("service clawgress policy host <host> ip", Value::Network, "Network that may be reached by address"),
    named("service clawgress policy host <host> port <port>", Value::Port, "Port that may be reached; TCP if no protocol is given. Without any port: 80 and 443"),
    many("service clawgress policy host <host> port <port> protocol", Value::Word(PROTOCOLS), "Protocol of this port; give both for both")
        .completing(Complete::Words(PROTOCOLS)),
    group("service clawgress policy host <host> time-window", "When anything of this host may be reached; at all times without"),
    many("service clawgress policy host <host> time-window day", Value::Word(DAYS), "Day on which the window opens")
        .completing(Complete::Words(DAYS)),
    one("service clawgress policy host <host> time-window start", Value::TimeOfDay, "When it opens, in the time zone of this machine"),
    one("service clawgress policy host <host> time-window end", Value::TimeOfDay, "When it closes; before start means on the day after"),
    one("service clawgress policy host <host> rate-limit-kbps", Value::Kbps, "Most that may leave, in kbit/s of 1000 bit"),
    group("service clawgress policy host <host> proxy", "How names are judged in the connections themselves"),
    one("service clawgress policy host <host> proxy mode", Value::Word(MODES), "sni-allowlist judges port 443 by the name in TLS and port 80 by the Host header")
        .completing(Complete::Words(MODES)),
    named("service clawgress policy host <host> proxy domain <domain>", Value::Domain, "Domain allowed by that name; the allowed domains if none is given"),
    group("service clawgress policy host <host> proxy domain <domain> time-window", "When this domain may be reached, instead of the window around it; at all times without"),
    many("service clawgress policy host <host> proxy domain <domain> time-window day", Value::Word(DAYS), "Day on which the window opens")
        .completing(Complete::Words(DAYS)),
    one("service clawgress policy host <host> proxy domain <domain> time-window start", Value::TimeOfDay, "When it opens, in the time zone of this machine"),
    one("service clawgress policy host <host> proxy domain <domain> time-window end", Value::TimeOfDay, "When it closes; before start means on the day after"),
    one("service clawgress policy host <host> proxy backend", Value::Backend, "Next gateway that connections are handed to"),
    group("service clawgress policy host <host> proxy mtls", "Mutual TLS with the backend"),
    one("service clawgress policy host <host> proxy mtls ca", Value::File, "Certificates that the backend's is checked against"),
    one("service clawgress policy host <host> proxy mtls certificate", Value::File, "Certificate shown to the backend"),
    one("service clawgress policy host <host> proxy mtls key", Value::File, "Key of that certificate"),
    group("service clawgress policy host <host> exfil", "How much may leave to a domain in a period"),
    named("service clawgress policy host <host> exfil domain <domain>", Value::Domain, "Domain that the cap is for"),
    one("service clawgress policy host <host> exfil domain <domain> bytes", Value::Bytes, "Most bytes out in each period"),
    one("service clawgress policy host <host> exfil domain <domain> period", Value::Word(PERIODS), "The period")
        .completing(Complete::Words(PERIODS)),
    group("service clawgress logging", "What is told of decisions"),
    one("service clawgress logging facility", Value::Word(FACILITIES), "Facility of syslog that denials go to")
        .or("local0").completing(Complete::Words(FACILITIES)),
    one("service clawgress logging deny-log", Value::Word(SWITCH), "Whether each denial is logged; they are counted in any case")
        .or("enable").completing(Complete::Words(SWITCH)),
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
