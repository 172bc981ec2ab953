//! Takes a chunked body apart, piece by piece as it comes, so that it can be put together again in one plain form.
//!
//! Sizes are hexadecimal and nothing else, lines end with CRLF and nothing else; extensions are dropped, since nobody
//! needs them and readers disagree about them. Trailers are read as strictly as headers.

use super::fields::is_of_connection;
use super::head::{HeadError, Header, headers};

/// A size line with its extensions.
const LONGEST_LINE: usize = 1024;
const LONGEST_TRAILERS: usize = 16 * 1024;
/// 2^60 bytes are more than any body; more digits would only be there to overflow somebody.
const MOST_DIGITS: usize = 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("a chunk's size is no hexadecimal number or its line is too long")]
    Size,
    #[error("a chunk does not end with CRLF")]
    End,
    #[error("the trailers are too long")]
    TrailersTooLong,
    #[error("the trailers: {0}")]
    Trailers(HeadError),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    Data(&'b [u8]),
    /// The body has ended; its trailers as they came, with the empty line at their end.
    End(Vec<u8>),
}

#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    line: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Data(u64),
    /// CRLF after the data; how much of it has come.
    AfterData(u8),
    Trailers,
    Ended,
}

impl Chunked {
    /// The next piece, taken from the front of `bytes`. None: more has to come, and `bytes` is used up, or the body has
    /// ended before and what is left belongs to whatever follows it.
    pub fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Option<Piece<'b>>, ChunkError> {
        while !bytes.is_empty() {
            match self.state {
                State::Size => {
                    if self.take_line(bytes, LONGEST_LINE, ChunkError::Size)? {
                        let size = size_of(&self.line)?;
                        self.line.clear();
                        self.state = if size == 0 {
                            State::Trailers
                        } else {
                            State::Data(size)
                        };
                    }
                }
                State::Data(left) => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let Some((data, rest)) = bytes.split_at_checked(length) else {
                        return Ok(None);
                    };
                    *bytes = rest;
                    self.state = match left - length as u64 {
                        0 => State::AfterData(0),
                        left => State::Data(left),
                    };
                    return Ok(Some(Piece::Data(data)));
                }
                State::AfterData(seen) => {
                    let expected = if seen == 0 { b'\r' } else { b'\n' };
                    let Some((byte, rest)) = bytes.split_first() else {
                        return Ok(None);
                    };
                    if *byte != expected {
                        return Err(ChunkError::End);
                    }
                    *bytes = rest;
                    self.state = if seen == 0 {
                        State::AfterData(1)
                    } else {
                        State::Size
                    };
                }
                State::Trailers => {
                    if self.take_line(bytes, LONGEST_TRAILERS, ChunkError::TrailersTooLong)? {
                        if !self.line.ends_with(b"\r\n") {
                            return Err(ChunkError::Trailers(HeadError::LineEnd));
                        }
                        if self.line == b"\r\n" || self.line.ends_with(b"\r\n\r\n") {
                            self.state = State::Ended;
                            let trailers = std::mem::take(&mut self.line);
                            headers(&trailers).map_err(ChunkError::Trailers)?;
                            return Ok(Some(Piece::End(trailers)));
                        }
                    }
                }
                State::Ended => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Adds what is there of a line; true if it is whole now.
    fn take_line(
        &mut self,
        bytes: &mut &[u8],
        longest: usize,
        too_long: ChunkError,
    ) -> Result<bool, ChunkError> {
        let found = bytes.iter().position(|byte| *byte == b'\n');
        let length = found.map_or(bytes.len(), |at| at + 1);
        let Some((line, rest)) = bytes.split_at_checked(length) else {
            return Ok(false);
        };
        if self.line.len() + line.len() > longest {
            return Err(too_long);
        }
        self.line.extend_from_slice(line);
        *bytes = rest;
        Ok(found.is_some())
    }
}

/// The trailers that may be sent on: none that speaks of one connection (`head` says which those are), and none that would
/// change how the message is framed, routed, read or kept, or who is taken for its sender.
pub fn passing_trailers<'b>(block: &'b [u8], head: &[Header<'_>]) -> Vec<Header<'b>> {
    const NEVER: [&str; 31] = [
        "age",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-location",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "referer",
        "retry-after",
        "set-cookie",
        "trailer",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
    ];
    let mut trailers = headers(block).unwrap_or_default();
    trailers.retain(|trailer| {
        let named = |word: &&str| trailer.name.eq_ignore_ascii_case(word);
        let conditional = trailer
            .name
            .get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case("if-"));
        !NEVER.iter().any(named) && !conditional && !is_of_connection(head, trailer.name)
    });
    trailers
}

fn size_of(line: &[u8]) -> Result<u64, ChunkError> {
    let line = line.strip_suffix(b"\r\n").ok_or(ChunkError::Size)?;
    let digits = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (digits, extension) = line.split_at_checked(digits).ok_or(ChunkError::Size)?;
    let extension_is_good = extension.is_empty()
        || extension.starts_with(b";")
            && extension
                .iter()
                .all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    if digits.is_empty() || digits.len() > MOST_DIGITS || !extension_is_good {
        return Err(ChunkError::Size);
    }
    let text = std::str::from_utf8(digits).map_err(|_| ChunkError::Size)?;
    u64::from_str_radix(text, 16).map_err(|_| ChunkError::Size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The data, the trailers, and what was left over.
    type Whole = (Vec<u8>, Option<Vec<u8>>, Vec<u8>);

    fn whole(text: &[u8], step: usize) -> Result<Whole, ChunkError> {
        let (mut chunked, mut data, mut end, mut left) =
            (Chunked::default(), Vec::new(), None, Vec::new());
        for mut part in text.chunks(step) {
            while let Some(piece) = chunked.next(&mut part)? {
                match piece {
                    Piece::Data(bytes) => data.extend_from_slice(bytes),
                    Piece::End(trailers) => end = Some(trailers),
                }
            }
            left.extend_from_slice(part);
        }
        Ok((data, end, left))
    }

    #[test]
    fn bodies_come_out_whole_however_they_arrive() {
        let text = b"4\r\nWiki\r\n6;name=\"value\"\r\npedia \r\n0b\r\nin\r\nchunks.\r\n0\r\nDigest: x\r\n\r\nGET";
        for step in 1..text.len() {
            let (data, end, left) = whole(text, step).unwrap();
            assert_eq!(data, b"Wikipedia in\r\nchunks.");
            assert_eq!(end.as_deref(), Some(b"Digest: x\r\n\r\n".as_slice()));
            assert_eq!(left, b"GET");
        }
        assert_eq!(
            whole(b"0\r\n\r\n", 1).unwrap().1.as_deref(),
            Some(b"\r\n".as_slice())
        );
    }

    #[test]
    fn a_doubtful_size_or_end_is_refused() {
        for text in [
            b"\r\n".as_slice(),
            b"4\nWiki\r\n0\r\n\r\n",
            b"0x4\r\nWiki",
            b" 4\r\nWiki",
            b"4 \r\nWiki",
            b"+4\r\nWiki",
            b"-1\r\n",
            b"4;\x00\r\nWiki",
            b"4;a\rb\r\nWiki",
            b"1000000000000000\r\n",
            b"4\r\nWikiX",
            b"4\r\nWiki\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\na : b\r\n\r\n",
            b"0\r\na: b\n\r\n",
        ] {
            for step in [1, 3, 64] {
                assert!(
                    whole(text, step).is_err(),
                    "{:?}",
                    text.escape_ascii().to_string()
                );
            }
        }
    }

    #[test]
    fn what_says_how_to_read_the_message_is_no_trailer() {
        let block = b"Digest: x\r\nContent-Length: 3\r\nHost: a\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n\
            Proxy-Connection: close\r\nTrailer: Digest\r\nIf-None-Match: \"a\"\r\nSet-Cookie: a=b\r\nX-Hop: 1\r\n\
            TE: trailers\r\nContent-Type: text/html\r\nX-Own: 2\r\n\r\n";
        let head = [Header {
            name: "Connection",
            value: b"keep-alive, x-hop",
        }];
        let names: Vec<&str> = passing_trailers(block, &head)
            .iter()
            .map(|trailer| trailer.name)
            .collect();
        assert_eq!(names, ["Digest", "X-Own"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_the_same_in_any_steps(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1_usize..40) {
            prop_assert_eq!(whole(&bytes, step), whole(&bytes, bytes.len().max(1)));
        }
    }
}
