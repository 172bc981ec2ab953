//! The single values of agents, rules and settings, each read and refused alike whichever text it stood in.

use crate::access::path::canonical_path;
use crate::cidr::Wrong;
use crate::policy::canonical_name;
use crate::policy::parts::shown;

const MAX_IDENTIFIER: usize = 63;
const MAX_TOKEN: usize = 255;
const MAX_METHOD: usize = 32;
const MAX_URL: usize = 1024;
const MAX_PREFIX: usize = 1024;
/// What decisions are told to be by when no rule made them.
const RESERVED_RULES: [&str; 2] = ["policy.json", "default-deny"];
/// What commands and pins mean something else by.
const RESERVED_AGENTS: [&str; 3] = ["all", "list", "sni"];

/// The id of an agent, a team, a project or an environment: it stands in logs and in credentials.
pub(crate) fn identifier(text: &str) -> Result<(), Wrong> {
    refuse_length(text, MAX_IDENTIFIER, "an id")?;
    let sound =
        text.bytes().all(in_identifier) && text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if sound {
        return Ok(());
    }
    Err(Wrong::new(
        format!("`{}` is not an id", shown(text)),
        "write letters, digits, hyphens, underscores and dots, beginning with a letter or digit, such as agent-1",
    ))
}

fn in_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

pub(crate) fn agent_id(text: &str) -> Result<(), Wrong> {
    if RESERVED_AGENTS.contains(&text) {
        return Err(Wrong::new(
            format!("`{text}` is a word that the appliance uses itself"),
            "choose another id, such as agent-1",
        ));
    }
    identifier(text)
}

pub(crate) fn policy_id(text: &str) -> Result<(), Wrong> {
    if RESERVED_RULES.contains(&text) {
        return Err(Wrong::new(
            format!("`{text}` is a name that decisions without a rule have"),
            "choose another name",
        ));
    }
    identifier(text)
}

/// An id, or several by `*`.
pub(crate) fn identity(text: &str) -> Result<(), Wrong> {
    refuse_length(text, MAX_IDENTIFIER, "an id")?;
    if text.bytes().all(|byte| in_identifier(byte) || byte == b'*') {
        return Ok(());
    }
    Err(Wrong::new(
        format!("`{}` is neither an id nor a pattern of ids", shown(text)),
        "write an id such as agent-1, or with * for any run of characters: agent-*",
    ))
}

/// Upper case, as it stands in a request.
pub(crate) fn method(text: &str) -> Result<(), Wrong> {
    refuse_length(text, MAX_METHOD, "a method")?;
    let sound = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if sound(text) {
        return Ok(());
    }
    let upper = text.to_ascii_uppercase();
    let right = if sound(&upper) {
        format!("methods are written in capitals: {upper}")
    } else {
        "write one like GET, POST or CONNECT".to_owned()
    };
    Err(Wrong::new(
        format!("`{}` is not a method", shown(text)),
        right,
    ))
}

/// The beginning of a path, in the one form in which paths are compared.
pub(crate) fn path_prefix(text: &str) -> Result<(), Wrong> {
    refuse_length(text, MAX_PREFIX, "a path")?;
    if text.contains(['?', '#']) {
        return Err(Wrong::new(
            format!("`{}` has a query", shown(text)),
            "write the path alone; queries are not judged",
        ));
    }
    match canonical_path(text) {
        Ok(path) if path == text && path.starts_with('/') => Ok(()),
        Ok(path) if path.starts_with('/') => Err(Wrong::new(
            format!(
                "`{}` is not the form in which paths are compared",
                shown(text)
            ),
            format!("write {path}"),
        )),
        Ok(_) => Err(Wrong::new(
            format!("`{}` does not begin a path", shown(text)),
            "write one that begins with /, such as /v1/chat",
        )),
        Err(error) => Err(Wrong::new(
            format!("`{}` is not a path: {error}", shown(text)),
            "write one that begins with /, such as /v1/chat",
        )),
    }
}

/// Printable ASCII without spaces, compared as it stands: a claim, an issuer, an audience.
pub(crate) fn token(text: &str) -> Result<(), Wrong> {
    refuse_length(text, MAX_TOKEN, "a value of a token")?;
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Wrong::new(
        format!(
            "`{}` holds a space or a character beyond ASCII",
            shown(text)
        ),
        "write it exactly as it stands in tokens, such as https://login.example.com/",
    ))
}

pub(crate) fn url(text: &str) -> Result<(), Wrong> {
    let refused = || {
        Wrong::new(
            format!("`{}` is not a URL that this box can ask", shown(text)),
            "write one like https://login.example.com/keys.json, without user, password or fragment",
        )
    };
    if text.len() > MAX_URL || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused());
    }
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .ok_or_else(refused)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if path.contains('#') {
        return Err(refused());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (address, port) = inner.split_once(']').ok_or_else(refused)?;
            address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| refused())?;
            (
                None,
                port.strip_prefix(':').or(port.is_empty().then_some("443")),
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(authority), Some("443")),
        },
    };
    crate::value::port(port.ok_or_else(refused)?).map_err(|_| refused())?;
    match host {
        Some(host) if host.parse::<std::net::Ipv4Addr>().is_ok() => Ok(()),
        // In its canonical form, so that one collector has one writing.
        Some(host) if canonical_name(host).is_ok_and(|name| name == host) => Ok(()),
        None => Ok(()),
        Some(_) => Err(refused()),
    }
}

pub(crate) fn number(text: &str, least: u32, most: u32) -> Result<u32, Wrong> {
    let number = crate::policy::parts::whole(text)?;
    u32::try_from(number)
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            Wrong::new(
                format!("{number} is out of bounds"),
                format!("write a number from {least} to {most}"),
            )
        })
}

fn refuse_length(text: &str, most: usize, what: &str) -> Result<(), Wrong> {
    if text.is_empty() || text.len() > most {
        return Err(Wrong::new(
            format!("{what} has {} characters", text.chars().count()),
            format!("write 1 to {most}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_passes() {
        assert_eq!(identifier("agent-1"), Ok(()));
        assert_eq!(identity("ci-*"), Ok(()));
        assert_eq!(identity("*"), Ok(()));
        assert_eq!(method("GET"), Ok(()));
        assert_eq!(path_prefix("/v1/chat"), Ok(()));
        assert_eq!(token("https://login.example.com/"), Ok(()));
        for good in [
            "https://login.example.com/keys.json?x=1",
            "https://login.example.com:8443",
            "http://192.0.2.7:4318/v1/logs",
            "https://[2001:db8::7]/",
            "https://[2001:db8::7]:4318/",
        ] {
            assert_eq!(url(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_what_would_be_right() {
        let said = |result: Result<(), Wrong>| result.unwrap_err().to_string();
        assert!(said(identifier("a b")).contains("such as agent-1"));
        assert!(said(identifier("-a")).contains("such as agent-1"));
        assert!(said(identifier("")).contains("write 1 to 63"));
        assert!(said(identifier(&"x".repeat(64))).contains("64 characters"));
        assert!(said(identity("a/b")).contains("agent-*"));
        for word in ["all", "list", "sni"] {
            assert!(said(agent_id(word)).contains("another id"), "{word}");
        }
        assert!(said(policy_id("policy.json")).contains("another name"));
        assert!(said(method("get")).contains("GET"));
        assert!(said(method("G T")).contains("CONNECT"));
        assert!(said(path_prefix("v1")).contains("begins with /"));
        assert!(said(path_prefix("/a//b")).contains("write /a/b"));
        assert!(said(path_prefix("/a%2fb")).contains("write /a/b"));
        assert!(said(path_prefix("/a?b")).contains("path alone"));
        assert!(said(path_prefix("*")).contains("begins with /"));
        assert!(said(token("a b")).contains("space"));
        for bad in [
            "ftp://a.example/",
            "https://",
            "https://u:p@a.example/",
            "https://A.example/",
            "https://a.example:0/",
            "https://a.example/#x",
            "https://[::1",
            "https://[::1]x/",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
        assert!(
            number("0", 1, 5)
                .unwrap_err()
                .to_string()
                .contains("1 to 5")
        );
        assert!(number("01", 1, 5).is_err());
    }
}
