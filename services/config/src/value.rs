//! The kinds of value a path can take, and the check of each. A check is pure and says what would be right.

use std::net::IpAddr;

use crate::access::parts as access;
use crate::cidr::{Cidr, Wrong, refuse_special};
use crate::nearest::nearest;
use crate::policy::{DomainPattern, TimeOfDay, parts};

/// What a leaf's value or a named node's name must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// `eth0`, `eth1`, …
    Card,
    /// A host name, with or without its domain.
    HostName,
    /// A host name or an address of another machine.
    Host,
    /// An address of another machine.
    Server,
    /// Any unicast address, this machine's included.
    Address,
    /// `dhcp`, or an address with its prefix length.
    InterfaceAddress,
    /// A network with host bits zero.
    Network,
    Port,
    TimeZone,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text for people, one line.
    Text,
    /// A domain, or a wildcard of one.
    Domain,
    /// The name of a host of the policy.
    HostEntry,
    /// A network that packets come from.
    Source,
    /// The reason shown with a domain.
    Label,
    TimeOfDay,
    Kbps,
    Bytes,
    /// A gateway with its port.
    Backend,
    /// A file below /config.
    File,
    /// A whole number between these two.
    Number(u32, u32),
    /// The id of an agent, a team, a project or an environment.
    Identifier,
    /// One that no command means something else by.
    AgentId,
    /// An id, or several by `*`.
    Identity,
    /// The id of a rule.
    PolicyId,
    /// A method of HTTP.
    Method,
    /// The beginning of a canonical path.
    PathPrefix,
    /// A value that is compared as it stands in a token.
    Token,
    Url,
}

const ZONES: &str = include_str!("../data/zones.txt");

/// Longest description: what still reads on one console line after wrapping.
const MAX_TEXT: usize = 255;
/// The kernel's bound for a host name.
const MAX_HOST_NAME: usize = 64;

pub(crate) fn zones() -> impl Iterator<Item = &'static str> + Clone {
    ZONES.lines().filter(|line| !line.starts_with('#'))
}

impl Value {
    /// How the value is written, for help and for errors.
    pub fn syntax(self) -> String {
        match self {
            Self::Card => "eth<number>".into(),
            Self::HostName => "<name>".into(),
            Self::Host => "<name or address>".into(),
            Self::Server | Self::Address => "<address>".into(),
            Self::InterfaceAddress => "dhcp | <address>/<length>".into(),
            Self::Network | Self::Source => "<network>/<length>".into(),
            Self::Port => "<1-65535>".into(),
            Self::TimeZone => "<Area/City> | UTC".into(),
            Self::Word(words) => words.join(" | "),
            Self::Text => "\"<text>\"".into(),
            Self::Domain => "<domain> | *.<domain>".into(),
            Self::HostEntry => "<host>".into(),
            Self::Label => "<label>".into(),
            Self::TimeOfDay => "<hh:mm>".into(),
            Self::Kbps => format!("<1-{}>", parts::MAX_KBPS),
            Self::Bytes => "<bytes>".into(),
            Self::Backend => "<name or address>:<port>".into(),
            Self::File => "/config/<file>".into(),
            Self::Number(least, most) => format!("<{least}-{most}>"),
            Self::Identifier | Self::AgentId | Self::PolicyId => "<id>".into(),
            Self::Identity => "<id> | <id with *>".into(),
            Self::Method => "<METHOD>".into(),
            Self::PathPrefix => "/<path>".into(),
            Self::Token => "<value>".into(),
            Self::Url => "https://<name>/<path>".into(),
        }
    }

    pub(crate) fn check(self, text: &str) -> Result<(), Wrong> {
        match self {
            Self::Card => card(text).map(drop),
            Self::HostName => host_name(text),
            Self::Host => match text.parse::<IpAddr>() {
                Ok(address) => server(address),
                Err(_) => host_name(text),
            },
            Self::Server => server(address(text)?),
            Self::Address => refuse_unusable(address(text)?),
            Self::InterfaceAddress if text == "dhcp" => Ok(()),
            Self::InterfaceAddress => match Cidr::parse_interface(text) {
                Err(wrong) if nearest(text, ["dhcp"]).is_some() => {
                    Err(Wrong::new(wrong.what, "write dhcp"))
                }
                other => other.map(drop),
            },
            Self::Network => parts::network(text).map(drop),
            Self::Port => port(text).map(drop),
            Self::TimeZone => one_of(
                text,
                zones(),
                "a time zone",
                "write one like Europe/Berlin, or UTC",
            ),
            Self::Word(words) => one_of(
                text,
                words.iter().copied(),
                "a word known here",
                &format!("write one of: {}", words.join(", ")),
            ),
            Self::Text => text_line(text),
            Self::Domain => DomainPattern::parse(text).map(drop),
            Self::HostEntry => parts::host_name(text),
            Self::Source => parts::source(text).map(drop),
            Self::Label => parts::label(text),
            Self::TimeOfDay => TimeOfDay::parse(text).map(drop),
            Self::Kbps => parts::whole(text).and_then(parts::kbps).map(drop),
            Self::Bytes => parts::whole(text).and_then(parts::cap_bytes).map(drop),
            Self::Backend => parts::backend(text).map(drop),
            Self::File => parts::file(text),
            Self::Number(least, most) => access::number(text, least, most).map(drop),
            Self::Identifier => access::identifier(text),
            Self::AgentId => access::agent_id(text),
            Self::Identity => access::identity(text),
            Self::PolicyId => access::policy_id(text),
            Self::Method => access::method(text),
            Self::PathPrefix => access::path_prefix(text),
            Self::Token => access::token(text),
            Self::Url => access::url(text),
        }
    }
}

fn one_of<'w>(
    text: &str,
    words: impl Iterator<Item = &'w str> + Clone,
    what: &str,
    otherwise: &str,
) -> Result<(), Wrong> {
    if words.clone().any(|word| word == text) {
        return Ok(());
    }
    let right = nearest(text, words).map_or_else(
        || otherwise.to_owned(),
        |near| format!("did you mean {near}?"),
    );
    Err(Wrong::new(format!("`{text}` is not {what}"), right))
}

/// The number of a card's name.
pub(crate) fn card(text: &str) -> Result<u16, Wrong> {
    text.strip_prefix("eth")
        .and_then(|digits| plain_number(digits, 255))
        .ok_or_else(|| {
            Wrong::new(
                format!("`{text}` is not the name of a card"),
                "cards are named eth0, eth1, … in the order the kernel finds them",
            )
        })
}

pub(crate) fn port(text: &str) -> Result<u16, Wrong> {
    plain_number(text, 65535)
        .filter(|&port| port != 0)
        .ok_or_else(|| {
            Wrong::new(
                format!("`{text}` is not a port"),
                "write a number from 1 to 65535",
            )
        })
}

/// Digits only, no sign, no leading zero.
fn plain_number(text: &str, most: u16) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|&number| plain && number <= most)
}

pub(crate) fn address(text: &str) -> Result<IpAddr, Wrong> {
    text.parse().map_err(|_| {
        let right = match text.split_once('/') {
            Some((bare, _)) if bare.parse::<IpAddr>().is_ok() => {
                format!("write {bare}, without a length")
            }
            _ => "write one like 192.0.2.53 or 2001:db8::53".to_owned(),
        };
        Wrong::new(format!("`{text}` is not an IP address"), right)
    })
}

/// A link-local IPv6 address means nothing without the card it is on.
fn refuse_unusable(address: IpAddr) -> Result<(), Wrong> {
    refuse_special(address)?;
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(Wrong::new(
            format!("`{address}` is link-local: it needs a card to be reachable"),
            "write a global or unique-local address",
        )),
        _ => Ok(()),
    }
}

fn server(address: IpAddr) -> Result<(), Wrong> {
    refuse_unusable(address).map_err(|wrong| {
        if address.is_loopback() {
            Wrong::new(
                format!("`{address}` is this machine itself"),
                "write the address of another machine",
            )
        } else {
            wrong
        }
    })
}

fn host_name(text: &str) -> Result<(), Wrong> {
    let wrong = |what: &str| {
        Err(Wrong::new(
            format!("`{text}` {what}"),
            "write letters, digits and hyphens, such as gw1 or gw1.example.com",
        ))
    };
    if text.len() > MAX_HOST_NAME {
        return wrong("is longer than 64 characters");
    }
    if text
        .split('.')
        .all(|label| label.bytes().all(|b| b.is_ascii_digit()))
    {
        return wrong("is a number, not a name");
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if text.split('.').all(label_ok) {
        Ok(())
    } else {
        wrong("is not a host name")
    }
}

fn text_line(text: &str) -> Result<(), Wrong> {
    if text.chars().any(char::is_control) {
        return Err(Wrong::new(
            "the text holds a control character",
            "write plain text on one line",
        ));
    }
    let length = text.chars().count();
    if length > MAX_TEXT {
        return Err(Wrong::new(
            format!("the text has {length} characters"),
            format!("write at most {MAX_TEXT}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(value: Value, text: &str) -> String {
        let wrong = value.check(text).expect_err(text);
        format!("{}; {}", wrong.what, wrong.right)
    }

    #[test]
    fn good_values_pass() {
        for (value, text) in [
            (Value::Card, "eth0"),
            (Value::HostName, "gw1"),
            (Value::HostName, "gw-1.example.com"),
            (Value::Host, "time.example.com"),
            (Value::Host, "2001:db8::1"),
            (Value::Server, "192.0.2.53"),
            (Value::InterfaceAddress, "dhcp"),
            (Value::InterfaceAddress, "192.0.2.1/24"),
            (Value::Network, "0.0.0.0/0"),
            (Value::Port, "22"),
            (Value::TimeZone, "Europe/Berlin"),
            (Value::TimeZone, "UTC"),
            (Value::Text, "the way out, übers Dach"),
        ] {
            assert_eq!(value.check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn refusals_say_what_is_right() {
        assert!(refused(Value::Card, "eth01").contains("eth0, eth1"));
        assert!(refused(Value::Card, "enp3s0").contains("eth0, eth1"));
        assert!(refused(Value::HostName, "gw_1").contains("hyphens"));
        assert!(refused(Value::HostName, "10.0.0.1").contains("a number"));
        assert!(refused(Value::HostName, "").contains("number"));
        assert!(refused(Value::Server, "127.0.0.1").contains("itself"));
        assert!(refused(Value::Server, "192.0.2.53/24").contains("write 192.0.2.53,"));
        assert!(refused(Value::Server, "fe80::1").contains("link-local"));
        assert!(refused(Value::InterfaceAddress, "dchp").contains("write dhcp"));
        assert!(refused(Value::Port, "022").contains("1 to 65535"));
        assert!(refused(Value::Port, "+22").contains("1 to 65535"));
        assert!(refused(Value::TimeZone, "Europe/Brelin").contains("Europe/Berlin"));
        assert!(refused(Value::TimeZone, "berlin").contains("Europe/Berlin"));
        assert!(refused(Value::Word(&["wan", "lan"]), "wna").contains("wan"));
        assert!(refused(Value::Text, "a\tb").contains("control"));
        assert!(refused(Value::Text, &"x".repeat(256)).contains("255"));
    }

    #[test]
    fn zones_are_sorted_and_enough() {
        let zones: Vec<_> = zones().collect();
        assert!(zones.len() > 400 && zones.is_sorted());
    }
}
