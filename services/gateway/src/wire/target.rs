//! Where a request wants to go: `host:port` of a CONNECT, or the absolute URI of a plain request.
//!
//! A host has one canonical form, made here once; everything after compares that form alone.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use clawgress_config::policy::canonical_name;

/// No URI may be longer; servers seldom take more.
const LONGEST_URI: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("the target is not `host:port`")]
    Authority,
    #[error("the target is not `http://host[:port]/path`")]
    Absolute,
    #[error("the target's scheme is not http; a tunnel (CONNECT) is the way to every other one")]
    Scheme,
    #[error("the target is a path; a proxy needs the absolute URI")]
    Origin,
    #[error("the host is neither a name nor an address")]
    Host,
    #[error("the target holds user information")]
    UserInformation,
    #[error("the target is too long")]
    TooLong,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Canonical: lower case, A-labels, no dot at the end.
    Name(Arc<str>),
    Address(IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    pub host: Host,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absolute<'t> {
    pub authority: Authority,
    /// Path and query as sent on; begins with `/`, or is `*` for OPTIONS of the whole server.
    pub path_and_query: &'t str,
}

impl Host {
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(TargetError::Host)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| TargetError::Host)?;
            return Ok(Self::Address(plain(address)));
        }
        // What some resolvers read as an address (`127.1`, `0x7f000001`, `2130706433`) is an address in four parts or nothing.
        let last = text
            .strip_suffix('.')
            .unwrap_or(text)
            .rsplit('.')
            .next()
            .unwrap_or_default();
        if is_number(last) {
            return text
                .parse()
                .map(|address| Self::Address(IpAddr::V4(address)))
                .map_err(|_| TargetError::Host);
        }
        let name = canonical_name(text).map_err(|_| TargetError::Host)?;
        // Other scripts' digits became plain ones only now.
        if is_number(name.rsplit('.').next().unwrap_or_default()) {
            return Err(TargetError::Host);
        }
        Ok(Self::Name(name.into()))
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl Authority {
    /// `host:port`, the port always written.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        Self::parse_or(text, None, TargetError::Authority)
    }

    /// As in a Host header or a URI, where a port may be left out.
    pub fn parse_with_default(text: &str, port: u16) -> Result<Self, TargetError> {
        Self::parse_or(text, Some(port), TargetError::Absolute)
    }

    fn parse_or(text: &str, default: Option<u16>, wrong: TargetError) -> Result<Self, TargetError> {
        if text.len() > LONGEST_URI {
            return Err(TargetError::TooLong);
        }
        if text.contains('@') {
            return Err(TargetError::UserInformation);
        }
        let after_host = text.rfind(']').map_or(0, |end| end + 1);
        let colon = text
            .get(after_host..)
            .and_then(|rest| rest.find(':'))
            .map(|found| after_host + found);
        let (host, port) =
            match colon.and_then(|colon| Some((text.get(..colon)?, text.get(colon + 1..)?))) {
                Some((host, port)) => (host, port_of(port).ok_or(wrong)?),
                None => (text, default.ok_or(wrong)?),
            };
        if host.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            host: Host::parse(host)?,
            port,
        })
    }
}

impl<'t> Absolute<'t> {
    pub fn parse(target: &'t str) -> Result<Self, TargetError> {
        if target.len() > LONGEST_URI {
            return Err(TargetError::TooLong);
        }
        if target.starts_with('/') || target == "*" {
            return Err(TargetError::Origin);
        }
        let (scheme, rest) = target.split_once("://").ok_or(TargetError::Absolute)?;
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(TargetError::Scheme);
        }
        // No fragment is ever sent; a backslash is a slash to some readers and to others not.
        if rest.contains(['#', '\\']) {
            return Err(TargetError::Absolute);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path_and_query) =
            rest.split_at_checked(end).ok_or(TargetError::Absolute)?;
        // A query right after the host would need a slash put before it; nobody sends that in earnest.
        if path_and_query.starts_with('?') {
            return Err(TargetError::Absolute);
        }
        let authority = Authority::parse_with_default(authority, 80)?;
        let path_and_query = if path_and_query.is_empty() {
            "/"
        } else {
            path_and_query
        };
        Ok(Self {
            authority,
            path_and_query,
        })
    }

    pub fn path(&self) -> &'t str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }
}

/// An IPv4 address in IPv6 clothing is that IPv4 address, or its classification would miss it.
fn plain(address: Ipv6Addr) -> IpAddr {
    address
        .to_ipv4_mapped()
        .map_or(IpAddr::V6(address), IpAddr::V4)
}

/// What the last label of a name never is: decimal, or hexadecimal with its prefix.
fn is_number(label: &str) -> bool {
    let decimal = !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    decimal || hexadecimal
}

fn port_of(text: &str) -> Option<u16> {
    let written =
        !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = written.then(|| text.parse().ok())??;
    (port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, TargetError> {
        Authority::parse(text).map(|authority| format!("{} {}", authority.host, authority.port))
    }

    #[test]
    fn a_host_has_one_form() {
        for (written, form) in [
            ("Example.COM:443", "example.com 443"),
            ("example.com.:443", "example.com 443"),
            ("203.0.113.9:8443", "203.0.113.9 8443"),
            ("[2001:DB8::1]:443", "[2001:db8::1] 443"),
            ("[::ffff:203.0.113.9]:443", "203.0.113.9 443"),
            ("[::ffff:7f00:1]:443", "127.0.0.1 443"),
            ("xn--bcher-kva.example:443", "xn--bcher-kva.example 443"),
        ] {
            assert_eq!(shown(written).as_deref(), Ok(form), "{written}");
        }
    }

    #[test]
    fn what_two_readers_could_understand_differently_is_refused() {
        for (written, why) in [
            ("example.com", TargetError::Authority),
            ("example.com:", TargetError::Authority),
            ("example.com:0", TargetError::Authority),
            ("example.com:65536", TargetError::Authority),
            ("example.com:+443", TargetError::Authority),
            ("example.com:443:443", TargetError::Authority),
            (":443", TargetError::Authority),
            ("user@example.com:443", TargetError::UserInformation),
            ("127.1:443", TargetError::Host),
            ("0x7f.1:443", TargetError::Host),
            ("0x7f000001:443", TargetError::Host),
            ("2130706433:443", TargetError::Host),
            ("0177.0.0.1:443", TargetError::Host),
            ("1.2.3.4.:443", TargetError::Host),
            ("a..b:443", TargetError::Host),
            ("[::1:443", TargetError::Authority),
            ("[fe80::1%eth0]:443", TargetError::Host),
            ("2001:db8::1:443", TargetError::Authority),
            ("exa mple.com:443", TargetError::Host),
            ("example.com%00:443", TargetError::Host),
            ("http://example.com:443", TargetError::Authority),
        ] {
            assert_eq!(shown(written), Err(why), "{written}");
        }
    }

    #[test]
    fn an_absolute_uri_is_split_once() {
        let parsed = Absolute::parse("HTTP://Example.com/a/b?c=d:e@f").unwrap();
        assert_eq!(parsed.authority.host, Host::Name("example.com".into()));
        assert_eq!(
            (parsed.authority.port, parsed.path_and_query),
            (80, "/a/b?c=d:e@f")
        );
        assert_eq!(parsed.path(), "/a/b");
        assert_eq!(
            Absolute::parse("http://example.com:8080")
                .unwrap()
                .path_and_query,
            "/"
        );
        for (written, why) in [
            ("/a", TargetError::Origin),
            ("*", TargetError::Origin),
            ("https://example.com/", TargetError::Scheme),
            ("ftp://example.com/", TargetError::Scheme),
            ("http:/example.com/", TargetError::Absolute),
            ("http:///a", TargetError::Absolute),
            ("http://example.com?a", TargetError::Absolute),
            ("http://example.com/#a", TargetError::Absolute),
            ("http://evil.example\\@example.com/", TargetError::Absolute),
            (
                "http://user:word@example.com/",
                TargetError::UserInformation,
            ),
        ] {
            assert_eq!(Absolute::parse(written).map(|_| ()), Err(why), "{written}");
        }
    }
}
