//! The schema as data: every path, its type, help, default and completion, in one place.
//!
//! A new capability adds lines here and nothing elsewhere: parser, validation, completion and help read this table.

use crate::access::bounds;
use crate::access::words::{
    ACTIONS, AUTH_TYPES, DURABILITIES, FAIL_MODES, QUOTA_FAIL_MODES, QUOTA_MODES, RULE_MODES,
    STATUSES, WHEN_FULL,
};
use crate::policy::words::{DAYS, MODES, PERIODS, PROTOCOLS};
use crate::schema::{Complete, Entry, Kind};
use crate::value::Value;

pub(crate) const ROLES: &[&str] = &["wan", "lan", "management"];
pub(crate) const SWITCH: &[&str] = &["enable", "disable"];
pub(crate) const ALGORITHMS: &[&str] = &["EdDSA", "ES256", "RS256"];
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
    group("service clawgress identity", "Who agents are told apart by"),
    flag("service clawgress identity strict", "Deny addresses of the LAN that belong to no agent and no host"),
    one("service clawgress identity client-ca", Value::File, "Certificates that agents' own certificates are checked against"),
    one("service clawgress identity client-crl", Value::File, "Revoked certificates of agents"),
    named("service clawgress identity issuer <name>", Value::Identifier, "Issuer of agents' tokens"),
    one("service clawgress identity issuer <name> issuer", Value::Token, "The iss claim, exactly"),
    one("service clawgress identity issuer <name> audience", Value::Token, "The aud claim that must be among the token's"),
    many("service clawgress identity issuer <name> algorithm", Value::Word(ALGORITHMS), "Signature that is taken from it")
        .completing(Complete::Words(ALGORITHMS)),
    one("service clawgress identity issuer <name> key-file", Value::File, "Its keys as a JWKS file"),
    one("service clawgress identity issuer <name> key-url", Value::Url, "Where its keys are fetched from, over TLS"),
    one("service clawgress identity issuer <name> key-ca", Value::File, "Certificates that the server of that URL is checked against; the usual authorities if none is given"),
    flag("service clawgress identity issuer <name> own", "This machine is the issuer"),
    one("service clawgress identity issuer <name> leeway", Value::Number(0, bounds::MAX_LEEWAY), "Seconds that clocks may differ")
        .or("30"),
    group("service clawgress identity issuer <name> claim", "Which claim holds what"),
    one("service clawgress identity issuer <name> claim agent", Value::Token, "Claim that holds the agent's id; agent_id without"),
    one("service clawgress identity issuer <name> claim team", Value::Token, "Claim that holds the team's id; team_id without"),
    one("service clawgress identity issuer <name> claim project", Value::Token, "Claim that holds the project's id; project_id without"),
    one("service clawgress identity issuer <name> claim environment", Value::Token, "Claim that holds the environment; environment without"),
    named("service clawgress environment <environment>", Value::Identifier, "What happens in an environment while a service is down"),
    one("service clawgress environment <environment> identity-fail-mode", Value::Word(FAIL_MODES), "Without the identity service: open lets known agents go on, whatever their credentials' age")
        .or("closed").completing(Complete::Words(FAIL_MODES)),
    one("service clawgress environment <environment> policy-fail-mode", Value::Word(FAIL_MODES), "Without the policy service: open lets the last good policy go on")
        .or("closed").completing(Complete::Words(FAIL_MODES)),
    named("service clawgress agent <agent>", Value::AgentId, "An agent; its keys are made by clawgress agent <agent> key create, never here"),
    one("service clawgress agent <agent> team", Value::Identifier, "Team it belongs to"),
    one("service clawgress agent <agent> project", Value::Identifier, "Project it works for"),
    one("service clawgress agent <agent> environment", Value::Identifier, "Environment it runs in, such as production"),
    one("service clawgress agent <agent> auth-type", Value::Word(AUTH_TYPES), "How it says who it is")
        .completing(Complete::Words(AUTH_TYPES)),
    one("service clawgress agent <agent> status", Value::Word(STATUSES), "A disabled agent is denied everything")
        .or("active").completing(Complete::Words(STATUSES)),
    many("service clawgress agent <agent> source", Value::Source, "Network or address that its packets come from"),
    flag("service clawgress agent <agent> source-bound", "Take its credentials from its sources alone"),
    named("service clawgress rule <policy-id>", Value::PolicyId, "A rule; the first that matches decides, by priority, deny before allow, id"),
    one("service clawgress rule <policy-id> priority", Value::Number(0, bounds::MAX_PRIORITY), "The lowest number is asked first")
        .or("1000"),
    one("service clawgress rule <policy-id> version", Value::Number(1, u32::MAX), "Number of the rule's text, told in events")
        .or("1"),
    one("service clawgress rule <policy-id> mode", Value::Word(RULE_MODES), "report lets pass what the rule would deny, and tells it")
        .or("enforce").completing(Complete::Words(RULE_MODES)),
    flag("service clawgress rule <policy-id> disable", "Leave the rule out"),
    one("service clawgress rule <policy-id> action", Value::Word(ACTIONS), "What becomes of a request that matches")
        .completing(Complete::Words(ACTIONS)),
    flag("service clawgress rule <policy-id> alert", "Raise an alert at each match"),
    one("service clawgress rule <policy-id> label", Value::Label, "Reason shown in logs and to the agent"),
    group("service clawgress rule <policy-id> identity", "Whom it is for; everybody without. Each field that is given must match"),
    many("service clawgress rule <policy-id> identity agent", Value::Identity, "Agent, or several by *"),
    many("service clawgress rule <policy-id> identity team", Value::Identity, "Team, or several by *"),
    many("service clawgress rule <policy-id> identity project", Value::Identity, "Project, or several by *"),
    many("service clawgress rule <policy-id> identity environment", Value::Identity, "Environment, or several by *"),
    named("service clawgress rule <policy-id> domain <domain>", Value::Domain, "Domain it is for: itself alone, or with *. every name below it. Without domain and network: every destination"),
    many("service clawgress rule <policy-id> network", Value::Network, "Network it is for; of a rule that denies also the addresses that names lead to"),
    many("service clawgress rule <policy-id> port", Value::Port, "Port it is for; every port without"),
    many("service clawgress rule <policy-id> method", Value::Method, "Method it is for; CONNECT means tunnels. Every method without"),
    many("service clawgress rule <policy-id> path-prefix", Value::PathPrefix, "Path it is for, with all below it; every path without"),
    group("service clawgress rule <policy-id> time-window", "When it holds; at all times without"),
    many("service clawgress rule <policy-id> time-window day", Value::Word(DAYS), "Day on which the window opens")
        .completing(Complete::Words(DAYS)),
    one("service clawgress rule <policy-id> time-window start", Value::TimeOfDay, "When it opens, in the time zone of this machine"),
    one("service clawgress rule <policy-id> time-window end", Value::TimeOfDay, "When it closes; before start means on the day after"),
    flag("service clawgress rule <policy-id> plain-tunnel", "Let a tunnel carry something else than TLS"),
    flag("service clawgress rule <policy-id> upgrade", "Let a request change its protocol, as WebSocket does"),
    group("service clawgress quota", "How much agents may have"),
    one("service clawgress quota fail-mode", Value::Word(QUOTA_FAIL_MODES), "Without the quota service: hard-fail denies, soft-fail counts on alone")
        .or("hard-fail").completing(Complete::Words(QUOTA_FAIL_MODES)),
    named("service clawgress quota agent <agent>", Value::Identifier, "Quota of one agent"),
    one("service clawgress quota agent <agent> rps", Value::Number(1, bounds::MAX_RATE), "Most requests in each second"),
    one("service clawgress quota agent <agent> rpm", Value::Number(1, bounds::MAX_RATE), "Most requests in each minute"),
    one("service clawgress quota agent <agent> mode", Value::Word(QUOTA_MODES), "Beyond it: stop, delay for a moment and then stop, or only alert")
        .or("hard-stop").completing(Complete::Words(QUOTA_MODES)),
    one("service clawgress quota agent <agent> connections", Value::Number(1, bounds::MAX_CONNECTIONS), "Most connections at one time"),
    one("service clawgress quota agent <agent> bytes", Value::Bytes, "Most bytes in each period, both directions together"),
    one("service clawgress quota agent <agent> period", Value::Word(PERIODS), "The period")
        .completing(Complete::Words(PERIODS)),
    named("service clawgress quota team <team>", Value::Identifier, "Quota of all agents of a team together"),
    one("service clawgress quota team <team> rps", Value::Number(1, bounds::MAX_RATE), "Most requests in each second"),
    one("service clawgress quota team <team> rpm", Value::Number(1, bounds::MAX_RATE), "Most requests in each minute"),
    one("service clawgress quota team <team> mode", Value::Word(QUOTA_MODES), "Beyond it: stop, delay for a moment and then stop, or only alert")
        .or("hard-stop").completing(Complete::Words(QUOTA_MODES)),
    one("service clawgress quota team <team> connections", Value::Number(1, bounds::MAX_CONNECTIONS), "Most connections at one time"),
    one("service clawgress quota team <team> bytes", Value::Bytes, "Most bytes in each period, both directions together"),
    one("service clawgress quota team <team> period", Value::Word(PERIODS), "The period")
        .completing(Complete::Words(PERIODS)),
    named("service clawgress quota project <project>", Value::Identifier, "Quota of all agents of a project together"),
    one("service clawgress quota project <project> rps", Value::Number(1, bounds::MAX_RATE), "Most requests in each second"),
    one("service clawgress quota project <project> rpm", Value::Number(1, bounds::MAX_RATE), "Most requests in each minute"),
    one("service clawgress quota project <project> mode", Value::Word(QUOTA_MODES), "Beyond it: stop, delay for a moment and then stop, or only alert")
        .or("hard-stop").completing(Complete::Words(QUOTA_MODES)),
    one("service clawgress quota project <project> connections", Value::Number(1, bounds::MAX_CONNECTIONS), "Most connections at one time"),
    one("service clawgress quota project <project> bytes", Value::Bytes, "Most bytes in each period, both directions together"),
    one("service clawgress quota project <project> period", Value::Word(PERIODS), "The period")
        .completing(Complete::Words(PERIODS)),
    group("service clawgress gateway", "The proxy that agents are pointed at"),
    flag("service clawgress gateway enable", "Take agents' requests"),
    one("service clawgress gateway port", Value::Port, "Port of the proxy").or("3128"),
    one("service clawgress gateway tls-port", Value::Port, "Port of the proxy over TLS; none without"),
    one("service clawgress gateway contact", Value::Text, "Whom a denied agent is told to ask"),
    one("service clawgress gateway connections", Value::Number(1, bounds::MAX_CONNECTIONS), "Most connections at one time").or("16000"),
    one("service clawgress gateway connections-per-agent", Value::Number(1, bounds::MAX_CONNECTIONS), "Most of one agent").or("4000"),
    one("service clawgress gateway connect-timeout", Value::Number(1, 300), "Seconds until a server must have answered").or("10"),
    one("service clawgress gateway idle-timeout", Value::Number(1, 86_400), "Seconds after which a silent connection is closed").or("3600"),
    one("service clawgress gateway drain", Value::Number(0, 3_600), "Seconds that connections have to end before a restart cuts them").or("30"),
    group("service clawgress audit", "How decisions are kept"),
    one("service clawgress audit durability", Value::Word(DURABILITIES), "strict: on the disk before a connection is made")
        .or("batch").completing(Complete::Words(DURABILITIES)),
    one("service clawgress audit when-full", Value::Word(WHEN_FULL), "What becomes of requests while the queue is full")
        .or("refuse").completing(Complete::Words(WHEN_FULL)),
    one("service clawgress audit retain-days", Value::Number(1, 36_500), "Days that events are kept").or("90"),
    one("service clawgress audit retain-bytes", Value::Bytes, "Most bytes of kept events").or("20000000000"),
    group("service clawgress audit syslog", "Syslog server that events are sent on to, over TLS"),
    one("service clawgress audit syslog to", Value::Backend, "The server"),
    one("service clawgress audit syslog ca", Value::File, "Certificates that the server's is checked against"),
    group("service clawgress audit otlp", "Collector that events are sent on to in OTLP"),
    one("service clawgress audit otlp to", Value::Url, "The collector"),
    one("service clawgress audit otlp ca", Value::File, "Certificates that the collector's is checked against"),
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
