//! What a request shows of itself: the value of `Proxy-Authorization`, or the certificates of its TLS connection.
//!
//! Reads form alone; whether it proves anything is [`Directory`](crate::Directory)'s to say.

use std::fmt;

use rustls::pki_types::CertificateDer;

use crate::refusal::Refusal;
use crate::text;

/// A token of 8 KiB in base64, its user and the scheme fit.
const LONGEST: usize = 16 * 1024;

#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// An API key or a token.
    Bearer(&'a str),
    /// The agent's id, and an API key or a token: what a proxy's URL can carry.
    Basic {
        user: &'a str,
        secret: &'a str,
    },
    /// As sent in the handshake, the agent's own first. Whoever offers them has seen the proof of its key.
    Certificate(&'a [CertificateDer<'a>]),
    Nothing,
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer(_) => f.write_str("Bearer(…)"),
            Self::Basic { user, .. } => write!(f, "Basic({user:?}, …)"),
            Self::Certificate(chain) => write!(f, "Certificate({})", chain.len()),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

/// A credential out of a header, kept beyond the header.
#[derive(Clone, PartialEq, Eq)]
pub enum Shown {
    Bearer(String),
    Basic { user: String, secret: String },
}

impl Shown {
    pub fn presented(&self) -> Presented<'_> {
        match self {
            Self::Bearer(token) => Presented::Bearer(token),
            Self::Basic { user, secret } => Presented::Basic { user, secret },
        }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.presented().fmt(f)
    }
}

/// The value of one `Proxy-Authorization` header. Two such headers in a request are the caller's to refuse.
pub fn presented_of_header(value: &[u8]) -> Result<Shown, Refusal> {
    if value.len() > LONGEST {
        return Err(Refusal::Malformed);
    }
    let value = std::str::from_utf8(value).map_err(|_| Refusal::Malformed)?;
    let value = value.trim_matches([' ', '\t']);
    if value.is_empty() {
        return Err(Refusal::NoCredential);
    }
    let (scheme, rest) = value.split_once(' ').ok_or(Refusal::Malformed)?;
    let rest = rest.trim_start_matches(' ');
    if rest.is_empty() {
        return Err(Refusal::Malformed);
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return of_bearer(rest);
    }
    if scheme.eq_ignore_ascii_case("basic") {
        return of_basic(rest);
    }
    Err(Refusal::Malformed)
}

fn of_bearer(text: &str) -> Result<Shown, Refusal> {
    // Token68 of RFC 9110, which both of our kinds keep within.
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if text.bytes().all(fits) {
        Ok(Shown::Bearer(text.to_owned()))
    } else {
        Err(Refusal::Malformed)
    }
}

fn of_basic(text: &str) -> Result<Shown, Refusal> {
    let bytes = text::from_base64(text).ok_or(Refusal::Malformed)?;
    let pair = String::from_utf8(bytes).map_err(|_| Refusal::Malformed)?;
    if pair.chars().any(char::is_control) {
        return Err(Refusal::Malformed);
    }
    match pair.split_once(':') {
        Some((user, secret)) if !user.is_empty() && !secret.is_empty() => Ok(Shown::Basic {
            user: user.to_owned(),
            secret: secret.to_owned(),
        }),
        _ => Err(Refusal::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_are_read_in_any_case() {
        for header in [
            "Bearer abc.def-_~+/=",
            "bEARER  abc.def-_~+/=",
            " BEARER abc.def-_~+/= \t",
        ] {
            let shown = presented_of_header(header.as_bytes()).unwrap();
            assert_eq!(shown, Shown::Bearer("abc.def-_~+/=".to_owned()));
        }
        // agent-1:KEY:with:colons
        let shown = presented_of_header(b"basic YWdlbnQtMTpLRVk6d2l0aDpjb2xvbnM=").unwrap();
        let Shown::Basic { user, secret } = &shown else {
            panic!("{shown:?}")
        };
        assert_eq!(
            (user.as_str(), secret.as_str()),
            ("agent-1", "KEY:with:colons")
        );
        assert!(!format!("{shown:?}").contains("KEY"));
    }

    #[test]
    fn whatever_else_is_no_credential() {
        assert_eq!(presented_of_header(b""), Err(Refusal::NoCredential));
        assert_eq!(presented_of_header(b" \t"), Err(Refusal::NoCredential));
        let long = [b"Bearer ".as_slice(), &[b'a'; LONGEST]].concat();
        for header in [
            b"Bearer".as_slice(),
            b"Bearer ",
            b"Bearer a b",
            b"Bearer a,Basic b",
            b"Bearer a\r\nX: y",
            b"Bearer \xff",
            b"Digest username=\"a\"",
            b"Negotiate abcd",
            b"Basic YWdlbnQtMQ==",    // no colon
            b"Basic YWdlbnQtMTo=",    // no secret
            b"Basic OktFWQ==",        // no user
            b"Basic YWdlbnQtMTpLRVk", // no padding
            b"Basic YTpiCg==",        // a line's end in it
            b"Basic //9h",            // not UTF-8
            b"Basic\tYTpi",
            &long,
        ] {
            let shown = presented_of_header(header);
            assert_eq!(shown, Err(Refusal::Malformed), "{}", header.escape_ascii());
        }
    }
}
