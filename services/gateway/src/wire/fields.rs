//! What the headers of a head mean for whoever passes it on: how long the body is, whose connection it is, what ends here.
//!
//! Where two readings are possible there is an error, so that no server behind can take another one.

use super::head::{Header, RequestHead, ResponseHead, Version, in_token};
use super::target::{Authority, TargetError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("the body's length is told twice, or both as a length and in chunks")]
    Framing,
    #[error("Transfer-Encoding is something else than `chunked`")]
    Encoding,
    #[error("Content-Length is not a number")]
    Length,
    #[error("there is no Host header, or more than one")]
    Host,
    #[error("the Host header and the target name different hosts")]
    HostMismatch,
    #[error("{0} is there more than once")]
    Repeated(&'static str),
    #[error("Connection names a header that may not be taken away, or is no list of names")]
    Connection,
    #[error("Expect is something else than `100-continue`")]
    Expect,
    #[error("a tunnel's request has no body")]
    BodyOfTunnel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    /// Answers alone: all until the connection ends.
    UntilClose,
}

/// What a request says of itself beside its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFields<'b> {
    pub framing: Framing,
    pub host: Option<&'b [u8]>,
    pub authorization: Option<&'b [u8]>,
    pub keep_alive: bool,
    pub expects_continue: bool,
    /// The protocol that the request wants to change to, if it says so in both headers.
    pub upgrade: Option<&'b [u8]>,
}

pub fn of_request<'b>(head: &RequestHead<'b>) -> Result<RequestFields<'b>, FieldError> {
    let mut fields = RequestFields {
        framing: Framing::None,
        host: None,
        authorization: None,
        keep_alive: head.version == Version::Http11,
        expects_continue: false,
        upgrade: None,
    };
    let mut body = Body::default();
    let (mut upgrade, mut wants_upgrade) = (None, false);
    for header in &head.headers {
        let Some(known) = Known::of(header.name) else {
            continue;
        };
        match known {
            Known::Host if fields.host.replace(header.value).is_some() => {
                return Err(FieldError::Host);
            }
            Known::Authorization if fields.authorization.replace(header.value).is_some() => {
                return Err(FieldError::Repeated("Proxy-Authorization"));
            }
            Known::Expect
                if fields.expects_continue
                    || !header.value.eq_ignore_ascii_case(b"100-continue") =>
            {
                return Err(FieldError::Expect);
            }
            Known::Upgrade if upgrade.replace(header.value).is_some() => {
                return Err(FieldError::Repeated("Upgrade"));
            }
            Known::Expect => fields.expects_continue = true,
            Known::Connection => {
                for option in options(header.value) {
                    let option = option?;
                    if option.eq_ignore_ascii_case(b"close") {
                        fields.keep_alive = false;
                    } else if option.eq_ignore_ascii_case(b"upgrade") {
                        wants_upgrade = true;
                    }
                }
            }
            Known::Length | Known::Encoding => body.read(known, header.value)?,
            Known::Host | Known::Authorization | Known::Upgrade => {}
        }
    }
    if head.version == Version::Http11 && fields.host.is_none() {
        return Err(FieldError::Host);
    }
    fields.framing = body.framing(head.version)?.unwrap_or(Framing::None);
    fields.expects_continue &= head.version == Version::Http11;
    fields.upgrade = upgrade.filter(|_| wants_upgrade);
    Ok(fields)
}

/// How long an answer's body is.
pub fn of_response(head: &ResponseHead<'_>, method: &str) -> Result<(Framing, bool), FieldError> {
    let mut body = Body::default();
    let mut keep_alive = head.version == Version::Http11;
    for header in &head.headers {
        match Known::of(header.name) {
            Some(known @ (Known::Length | Known::Encoding)) => body.read(known, header.value)?,
            Some(Known::Connection) => {
                for option in options(header.value) {
                    keep_alive &= !option?.eq_ignore_ascii_case(b"close");
                }
            }
            _ => {}
        }
    }
    let told = body.framing(head.version)?;
    if method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304) {
        return Ok((Framing::None, keep_alive));
    }
    Ok(match told {
        Some(framing) => (framing, keep_alive),
        None => (Framing::UntilClose, false),
    })
}

/// The Host header must name what the target names. Without a port it means the default one; in a tunnel's request, which
/// has none, the port may be left out.
pub fn check_host(
    host: Option<&[u8]>,
    target: &Authority,
    default_port: Option<u16>,
) -> Result<(), FieldError> {
    let Some(host) = host else {
        return Ok(());
    };
    let text = std::str::from_utf8(host).map_err(|_| FieldError::Host)?;
    // 0 stands for a port that was left out: nobody can write it.
    let named = Authority::parse_with_default(text, 0).map_err(|error| match error {
        TargetError::UserInformation => FieldError::HostMismatch,
        _ => FieldError::Host,
    })?;
    let same_port = match named.port {
        0 => default_port.is_none_or(|default| default == target.port),
        port => port == target.port,
    };
    if named.host == target.host && same_port {
        Ok(())
    } else {
        Err(FieldError::HostMismatch)
    }
}

/// Headers that speak of one connection only, with those that Connection names.
pub fn is_of_connection(headers: &[Header<'_>], name: &str) -> bool {
    const ALWAYS: [&str; 9] = [
        "connection",
        "proxy-connection",
        "keep-alive",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ];
    ALWAYS
        .iter()
        .any(|always| name.eq_ignore_ascii_case(always))
        || headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("connection"))
            .flat_map(|header| options(header.value))
            .any(|option| option.is_ok_and(|option| option.eq_ignore_ascii_case(name.as_bytes())))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Host,
    Authorization,
    Connection,
    Length,
    Encoding,
    Expect,
    Upgrade,
}

impl Known {
    fn of(name: &str) -> Option<Self> {
        // The length first: by far the most headers are none of these.
        let (word, known) = match name.len() {
            4 => ("host", Self::Host),
            6 => ("expect", Self::Expect),
            7 => ("upgrade", Self::Upgrade),
            10 => ("connection", Self::Connection),
            14 => ("content-length", Self::Length),
            17 => ("transfer-encoding", Self::Encoding),
            19 => ("proxy-authorization", Self::Authorization),
            _ => return None,
        };
        name.eq_ignore_ascii_case(word).then_some(known)
    }
}

#[derive(Debug, Default)]
struct Body {
    length: Option<u64>,
    chunked: bool,
}

impl Body {
    fn read(&mut self, known: Known, value: &[u8]) -> Result<(), FieldError> {
        if self.length.is_some() || self.chunked {
            return Err(FieldError::Framing);
        }
        if known == Known::Encoding {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(FieldError::Encoding);
            }
            self.chunked = true;
            return Ok(());
        }
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).map_err(|_| FieldError::Length)?;
        self.length = Some(
            digits
                .then(|| text.parse().ok())
                .flatten()
                .ok_or(FieldError::Length)?,
        );
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Option<Framing>, FieldError> {
        // HTTP/1.0 knows no chunks: who sends them there hopes for two readings.
        match (self.length, self.chunked) {
            (_, true) if version == Version::Http10 => Err(FieldError::Encoding),
            (_, true) => Ok(Some(Framing::Chunked)),
            (Some(length), _) => Ok(Some(Framing::Length(length))),
            (None, false) => Ok(None),
        }
    }
}

/// The words of a Connection header. Those that end the message or say where it goes are not its own to take away.
fn options(value: &[u8]) -> impl Iterator<Item = Result<&[u8], FieldError>> {
    const NEVER: [&[u8]; 6] = [
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"cookie",
        b"trailer",
    ];
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|word| !word.is_empty())
        .map(|word| {
            let good = word.iter().copied().all(in_token)
                && !NEVER.iter().any(|never| word.eq_ignore_ascii_case(never));
            good.then_some(word).ok_or(FieldError::Connection)
        })
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
