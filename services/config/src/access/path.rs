//! The one form in which paths of requests are compared with rules, and patterns of ids.
//!
//! Whatever a server might take for a separator is one here, so that a rule can neither be slipped past nor stretched:
//! both `%2f` and `%5c` divide, empty segments vanish, dot segments are resolved, and escapes that mean an unreserved
//! character are that character. It is done once: `%25` stays an escape, so that what is canonical stays as it is.

use std::borrow::Cow;

/// A longer path is nobody's.
pub const MAX_PATH: usize = 64 * 1024;

/// Why a text is no path that could be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("it has more than {MAX_PATH} bytes")]
    TooLong,
    #[error("it does not begin with a slash")]
    NotAbsolute,
    #[error("a % is not followed by two hexadecimal digits")]
    Escape,
    #[error("it holds a control character, a space, a backslash or a character beyond ASCII")]
    Character,
    #[error("a dot segment has parameters, which servers read in different ways")]
    DotParameters,
}

/// The canonical form of a request's path; a query or fragment behind it is left out. `*` (of OPTIONS) is itself.
pub fn canonical_path(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if raw.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    let path = raw.split(['?', '#']).next().unwrap_or_default();
    if path.is_empty() {
        return Ok(Cow::Borrowed("/"));
    }
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_canonical(path) {
        return Ok(Cow::Borrowed(path));
    }
    let plain = unescape(path)?;
    let mut segments: Vec<&str> = Vec::new();
    // Whether the last segment leaves a slash at the end.
    let mut open = false;
    for segment in plain.split('/').skip(1) {
        match segment {
            "" | "." => open = true,
            ".." => {
                segments.pop();
                open = true;
            }
            name => {
                if matches!(name.split(';').next(), Some("." | ".." | "")) {
                    return Err(PathError::DotParameters);
                }
                segments.push(name);
                open = false;
            }
        }
    }
    let mut canonical = String::with_capacity(plain.len());
    for segment in &segments {
        canonical.push('/');
        canonical.push_str(segment);
    }
    if open || segments.is_empty() {
        canonical.push('/');
    }
    Ok(Cow::Owned(canonical))
}

/// True of most paths, which then cost one look at each byte.
fn is_canonical(path: &str) -> bool {
    let mut before = b'x';
    for byte in path.bytes() {
        let doubtful = match byte {
            b'/' | b'.' | b';' => before == b'/',
            b'%' | b'\\' => true,
            _ => !byte.is_ascii_graphic(),
        };
        if doubtful {
            return false;
        }
        before = byte;
    }
    true
}

fn unescape(path: &str) -> Result<String, PathError> {
    let mut plain = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            if !byte.is_ascii_graphic() || byte == b'\\' {
                return Err(PathError::Character);
            }
            plain.push(char::from(byte));
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = digit().zip(digit()).ok_or(PathError::Escape)?;
        let meant = (high * 16 + low) as u8;
        match meant {
            b'/' | b'\\' => plain.push('/'),
            b'-' | b'.' | b'_' | b'~' => plain.push(char::from(meant)),
            _ if meant.is_ascii_alphanumeric() => plain.push(char::from(meant)),
            _ if meant.is_ascii_control() => return Err(PathError::Character),
            _ => plain.push_str(&format!("%{meant:02X}")),
        }
    }
    Ok(plain)
}

/// Whether a canonical path is the prefix itself or something below it.
pub fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// A canonical path without the parameters of its segments: some servers look for them nowhere, others cut them off.
pub fn without_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(';') && !path.contains("%3B") {
        return Cow::Borrowed(path);
    }
    let segments = path.split('/').map(|segment| {
        let segment = segment.split(';').next().unwrap_or_default();
        segment.split("%3B").next().unwrap_or_default()
    });
    Cow::Owned(segments.collect::<Vec<_>>().join("/"))
}

/// Whether an id is meant by a word of a rule; `*` stands for any run of characters, also for none.
pub fn identity_matches(word: &str, id: &str) -> bool {
    let (word, id) = (word.as_bytes(), id.as_bytes());
    let (mut at, mut from) = (0, 0);
    // Where the last star was, and how much of the id it has taken: each step moves one of them on, so that the time
    // is bounded by the product of the lengths, both of which are short.
    let mut star: Option<(usize, usize)> = None;
    while from < id.len() {
        match (word.get(at), star) {
            (Some(b'*'), _) => {
                star = Some((at, from));
                at += 1;
            }
            (Some(byte), _) if Some(byte) == id.get(from) => {
                at += 1;
                from += 1;
            }
            (_, Some((star_at, taken))) => {
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                from = taken + 1;
            }
            _ => return false,
        }
    }
    word.iter().skip(at).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_of_a_path() {
        for (raw, canonical) in [
            ("", "/"),
            ("/", "/"),
            ("*", "*"),
            ("/v1/chat", "/v1/chat"),
            ("/v1/chat?x=/../y", "/v1/chat"),
            ("/a//b///c", "/a/b/c"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/../../a", "/a"),
            ("/a%2fb%2Fc", "/a/b/c"),
            ("/a%5cb", "/a/b"),
            ("/public/%2e%2e%2fadmin", "/admin"),
            ("/public/..%5cadmin", "/admin"),
            ("/%61%7e%2d", "/a~-"),
            ("/a%3ab%c3%bc", "/a%3Ab%C3%BC"),
            ("/a%252e", "/a%252e"),
            ("/a.b/.well-known/..c", "/a.b/.well-known/..c"),
            ("/a;p=1/b", "/a;p=1/b"),
        ] {
            let once = canonical_path(raw).expect(raw);
            assert_eq!(once, canonical, "{raw}");
            assert_eq!(canonical_path(&once).unwrap(), canonical, "twice: {raw}");
        }
        assert!(matches!(canonical_path("/v1/chat?x"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (raw, error) in [
            ("v1", PathError::NotAbsolute),
            ("/a%", PathError::Escape),
            ("/a%2", PathError::Escape),
            ("/a%zz", PathError::Escape),
            ("/a%+1", PathError::Escape),
            ("/a%00b", PathError::Character),
            ("/a%0db", PathError::Character),
            ("/a b", PathError::Character),
            ("/a\\b", PathError::Character),
            ("/ü", PathError::Character),
            ("/a/..;x/b", PathError::DotParameters),
            ("/a/%2e%2e;x/b", PathError::DotParameters),
            ("/;/a", PathError::DotParameters),
        ] {
            assert_eq!(canonical_path(raw), Err(error), "{raw}");
        }
        let long = "/".repeat(MAX_PATH + 1);
        assert_eq!(canonical_path(&long), Err(PathError::TooLong));
    }

    #[test]
    fn a_prefix_means_whole_segments() {
        assert!(is_below("/v1", "/v1") && is_below("/v1/chat", "/v1"));
        assert!(!is_below("/v1beta", "/v1") && !is_below("/v", "/v1"));
        assert!(is_below("/v1/chat", "/v1/") && !is_below("/v1", "/v1/"));
        assert!(is_below("/x", "/") && !is_below("*", "/"));
        assert_eq!(without_parameters("/a;x=1/b%3Bc/d"), "/a/b/d");
        assert!(matches!(without_parameters("/a/b"), Cow::Borrowed(_)));
    }

    #[test]
    fn stars_stand_for_any_run() {
        for (word, id) in [
            ("*", ""),
            ("*", "a"),
            ("agent-*", "agent-1"),
            ("*-1", "agent-1"),
            ("a*b*c", "axxbyybc"),
            ("a**c", "abc"),
            ("abc", "abc"),
        ] {
            assert!(identity_matches(word, id), "{word} {id}");
        }
        for (word, id) in [
            ("", "a"),
            ("abc", "ab"),
            ("agent-*", "agent"),
            ("a*b*c", "acb"),
            ("ab", "abc"),
        ] {
            assert!(!identity_matches(word, id), "{word} {id}");
        }
    }
}
