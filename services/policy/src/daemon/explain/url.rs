//! The URL of a question, read as the gateway would be asked for it.

use std::net::{IpAddr, Ipv4Addr};

use clawgress_config::policy::canonical_name;
use clawgress_policy::canonical_path;

use super::ExplainError;

const LONGEST: usize = 16 * 1024;

/// Where a URL leads, as the gateway would be asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: Name,
    pub(super) port: u16,
    /// None: it runs in a tunnel.
    pub(super) path: Option<String>,
    pub(super) tunnel: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Name(String),
    Address(IpAddr),
}

pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

pub(super) fn target(url: &str) -> Result<Target, ExplainError> {
    let wrong = |why: &str| ExplainError::Url(format!("'{}' {why}", shown(url)));
    if url.len() > LONGEST {
        return Err(wrong("is too long"));
    }
    if url.contains(['#', '\\'])
        || url.contains(|letter: char| letter.is_control() || letter == ' ')
    {
        return Err(wrong("holds a letter that no request is sent with"));
    }
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        // As a CONNECT names it.
        None => (String::new(), url),
    };
    let (tunnel, default) = match scheme.as_str() {
        "http" | "ws" => (false, Some(80)),
        "https" | "wss" => (true, Some(443)),
        "" => (true, None),
        _ => return Err(wrong("is neither http nor https")),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if scheme.is_empty() && !path.is_empty() {
        return Err(wrong("has no scheme"));
    }
    if authority.contains('@') {
        return Err(wrong("holds a user, which belongs to no destination"));
    }
    let after = authority.rfind(']').map_or(0, |end| end + 1);
    let colon = authority.get(after..).and_then(|rest| rest.find(':'));
    let (host, port) = match colon {
        Some(colon) => authority.split_at(after + colon),
        None => (authority, ""),
    };
    let port = match (port.strip_prefix(':'), default) {
        (Some(digits), _)
            if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            digits.parse().ok().filter(|port| *port != 0)
        }
        (Some(_), _) => None,
        (None, default) => default,
    };
    let Some(port) = port else {
        return Err(wrong(if colon.is_some() {
            "has a port that is none"
        } else {
            "has neither a scheme nor a port"
        }));
    };
    Ok(Target {
        host: name(host)
            .ok_or_else(|| wrong("has a host that is neither a name nor an address"))?,
        port,
        path: if tunnel {
            None
        } else {
            let path = canonical_path(path).map_err(|error| {
                ExplainError::Url(format!(
                    "'{}' has a path that is refused: {error}",
                    shown(url)
                ))
            })?;
            Some(path.into_owned())
        },
        tunnel,
    })
}

/// The one canonical form, as the gateway makes it. What some readers take for an address (`127.1`) is no name.
fn name(host: &str) -> Option<Name> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: IpAddr = inner.strip_suffix(']')?.parse().ok()?;
        return address
            .is_ipv6()
            .then(|| Name::Address(address.to_canonical()));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Some(Name::Address(address.into()));
    }
    let name = canonical_name(host).ok()?;
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (!number).then_some(Name::Name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_what_the_gateway_would_be_asked_for() {
        for (url, host, port, path, tunnel) in [
            (
                "https://API.Example.com/v1?x",
                "api.example.com",
                443,
                None,
                true,
            ),
            ("https://a.example:8443", "a.example", 8443, None, true),
            (
                "http://a.example/a/../b//c?d",
                "a.example",
                80,
                Some("/b/c"),
                false,
            ),
            ("http://a.example:8080", "a.example", 8080, Some("/"), false),
            ("a.example.:22", "a.example", 22, None, true),
        ] {
            let target = target(url).unwrap();
            assert_eq!(target.host, Name::Name(host.to_owned()), "{url}");
            assert_eq!(
                (target.port, target.path.as_deref(), target.tunnel),
                (port, path, tunnel),
                "{url}"
            );
        }
        let host = |url| target(url).unwrap().host;
        let address = |text: &str| Name::Address(text.parse().unwrap());
        assert_eq!(host("http://203.0.113.9/"), address("203.0.113.9"));
        assert_eq!(host("https://[2001:DB8::1]:444/"), address("2001:db8::1"));
        assert_eq!(
            host("https://[::ffff:203.0.113.9]/"),
            address("203.0.113.9")
        );
    }

    #[test]
    fn what_is_no_url_is_one_error_with_the_fix() {
        for url in [
            "",
            "a.example",
            "a.example/x",
            "ftp://a.example/",
            "https://",
            "https://u:p@a.example/",
            "https://a.example:0/",
            "https://a.example:66000/",
            "https://a.example:+1/",
            "http://127.1/",
            "http://0x7f.1/",
            "https://[::1/",
            "https://a b/",
            "http://a.example/%zz",
            "http://a.example/\u{7f}",
            "https://a.example/#x",
            "https://[1.2.3.4]/",
            "https://a..b/",
        ] {
            let error = target(url).unwrap_err().to_string();
            assert!(
                error.starts_with("url: ") && error.contains("write one such as"),
                "{url}: {error}"
            );
        }
        assert!(target(&format!("https://a.example/{}", "x".repeat(LONGEST))).is_err());
    }
}
