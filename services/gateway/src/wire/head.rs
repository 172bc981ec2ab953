//! Reads the head of a request or an answer: strictly, in one pass over bytes whose end is known.
//!
//! What two readers could understand differently is refused here, never repaired: bare LF, folded lines, blanks around
//! names, control characters. Nothing is copied; it never looks at a header's meaning.

/// No head may be longer.
pub const LONGEST_HEAD: usize = 64 * 1024;
pub const MOST_HEADERS: usize = 100;
const LONGEST_METHOD: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the head is longer than {LONGEST_HEAD} bytes")]
    TooLong,
    #[error("there are more than {MOST_HEADERS} headers")]
    TooMany,
    #[error("a line ends with a bare LF or holds a bare CR")]
    LineEnd,
    #[error("the first line is not `METHOD target HTTP/1.1`")]
    RequestLine,
    #[error("the first line is not `HTTP/1.1 status reason`")]
    StatusLine,
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
    #[error("a header line begins with a blank")]
    Folded,
    #[error("a header's name is empty or holds what no name may hold")]
    Name,
    #[error("a header's value holds a control character")]
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'b> {
    pub name: &'b str,
    pub value: &'b [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    Http11,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead<'b> {
    pub method: &'b str,
    pub target: &'b str,
    pub version: Version,
    pub headers: Vec<Header<'b>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead<'b> {
    pub version: Version,
    pub status: u16,
    pub reason: &'b [u8],
    pub headers: Vec<Header<'b>>,
}

/// Where the head ends in what has come so far, if it does. `seen` bytes were looked at before: a head that comes byte
/// by byte is scanned once, not once for each.
pub fn end_of_head(bytes: &[u8], seen: usize) -> Result<Option<usize>, HeadError> {
    let mut at = seen.saturating_sub(3);
    while let Some(rest) = bytes.get(at..) {
        let Some(found) = rest.iter().position(|byte| *byte == b'\n') else {
            break;
        };
        let line_feed = at + found;
        if line_feed == 0 || bytes.get(line_feed - 1) != Some(&b'\r') {
            return Err(HeadError::LineEnd);
        }
        if line_feed >= 3 && bytes.get(line_feed - 3..line_feed - 1) == Some(b"\r\n") {
            let end = line_feed + 1;
            return if end > LONGEST_HEAD {
                Err(HeadError::TooLong)
            } else {
                Ok(Some(end))
            };
        }
        at = line_feed + 1;
    }
    if bytes.len() >= LONGEST_HEAD {
        return Err(HeadError::TooLong);
    }
    Ok(None)
}

impl<'b> RequestHead<'b> {
    /// `bytes` is one whole head, up to and with its empty line.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, HeadError> {
        let (line, rest) = next_line(bytes)?;
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(HeadError::RequestLine);
        };
        if method.is_empty() || method.len() > LONGEST_METHOD {
            return Err(HeadError::RequestLine);
        }
        let method = token(method).ok_or(HeadError::RequestLine)?;
        if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
            return Err(HeadError::RequestLine);
        }
        Ok(Self {
            method,
            target: ascii(target).ok_or(HeadError::RequestLine)?,
            version: version_of(version).ok_or(HeadError::Version)?,
            headers: headers(rest)?,
        })
    }
}

impl<'b> ResponseHead<'b> {
    pub fn parse(bytes: &'b [u8]) -> Result<Self, HeadError> {
        let (line, rest) = next_line(bytes)?;
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let version = words
            .next()
            .and_then(version_of)
            .ok_or(HeadError::Version)?;
        let status = words.next().ok_or(HeadError::StatusLine)?;
        let status = match status {
            [
                hundreds @ b'1'..=b'9',
                tens @ b'0'..=b'9',
                ones @ b'0'..=b'9',
            ] => {
                u16::from(hundreds - b'0') * 100
                    + u16::from(tens - b'0') * 10
                    + u16::from(ones - b'0')
            }
            _ => return Err(HeadError::StatusLine),
        };
        let reason = words.next().unwrap_or_default();
        if !reason.iter().copied().all(in_value) {
            return Err(HeadError::StatusLine);
        }
        Ok(Self {
            version,
            status,
            reason,
            headers: headers(rest)?,
        })
    }
}

/// Header lines up to the empty one that ends them; trailers are read with it, too.
pub fn headers(mut rest: &[u8]) -> Result<Vec<Header<'_>>, HeadError> {
    let mut headers = Vec::with_capacity(16);
    loop {
        let (line, after) = next_line(rest)?;
        rest = after;
        if line.is_empty() {
            return Ok(headers);
        }
        if headers.len() == MOST_HEADERS {
            return Err(HeadError::TooMany);
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(HeadError::Folded);
        }
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .ok_or(HeadError::Name)?;
        let (name, value) = line.split_at_checked(colon).ok_or(HeadError::Name)?;
        let name = token(name).ok_or(HeadError::Name)?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if !value.iter().copied().all(in_value) {
            return Err(HeadError::Value);
        }
        headers.push(Header { name, value });
    }
}

/// The line without its end, and what follows.
fn next_line(bytes: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    let end = bytes
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n'))
        .ok_or(HeadError::LineEnd)?;
    let (line, rest) = bytes.split_at_checked(end).ok_or(HeadError::LineEnd)?;
    let rest = rest.strip_prefix(b"\r\n").ok_or(HeadError::LineEnd)?;
    Ok((line, rest))
}

fn version_of(word: &[u8]) -> Option<Version> {
    match word {
        b"HTTP/1.1" => Some(Version::Http11),
        b"HTTP/1.0" => Some(Version::Http10),
        _ => None,
    }
}

fn token(bytes: &[u8]) -> Option<&str> {
    (!bytes.is_empty() && bytes.iter().copied().all(in_token)).then(|| ascii(bytes))?
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// What names and methods are made of.
pub(super) fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn in_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
