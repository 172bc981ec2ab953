//! Tests of the reader of heads.

use proptest::prelude::*;

use super::*;

fn request(text: &[u8]) -> Result<RequestHead<'_>, HeadError> {
    let end = end_of_head(text, 0)?.ok_or(HeadError::LineEnd)?;
    RequestHead::parse(&text[..end])
}

#[test]
fn a_head_is_read_as_it_stands() {
    let head = request(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nX-A:\t b c \t\r\nEmpty:\r\n\r\nrest").unwrap();
    assert_eq!(
        (head.method, head.target, head.version),
        ("CONNECT", "example.com:443", Version::Http11)
    );
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|header| (header.name, header.value))
        .collect();
    assert_eq!(
        headers,
        [
            ("Host", b"example.com:443".as_slice()),
            ("X-A", b"b c"),
            ("Empty", b"")
        ]
    );
    assert_eq!(
        request(b"GET http://a/ HTTP/1.0\r\n\r\n").unwrap().version,
        Version::Http10
    );
}

#[test]
fn what_smuggles_is_refused() {
    use HeadError::{Folded, LineEnd, Name, RequestLine, Value, Version};
    for (text, why) in [
        ("GET / HTTP/1.1\nHost: a\n\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", LineEnd),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        ("GET  / HTTP/1.1\r\n\r\n", RequestLine),
        ("GET / HTTP/1.1 \r\n\r\n", RequestLine),
        (" GET / HTTP/1.1\r\n\r\n", RequestLine),
        ("GET\t/\tHTTP/1.1\r\n\r\n", RequestLine),
        ("GET /\r\n\r\n", RequestLine),
        ("G(T / HTTP/1.1\r\n\r\n", RequestLine),
        ("GET /\u{e9} HTTP/1.1\r\n\r\n", RequestLine),
        ("GET /\0 HTTP/1.1\r\n\r\n", RequestLine),
        ("GET / HTTP/1.2\r\n\r\n", Version),
        ("GET / HTTP/2.0\r\n\r\n", Version),
        ("GET / http/1.1\r\n\r\n", Version),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", Folded),
        ("GET / HTTP/1.1\r\n\tfolded\r\n\r\n", Folded),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Name),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", Name),
        ("GET / HTTP/1.1\r\nHost\r\n\r\n", Name),
        ("GET / HTTP/1.1\r\nTransfer\u{b}Encoding: a\r\n\r\n", Name),
        ("GET / HTTP/1.1\r\nHo\0st: a\r\n\r\n", Name),
        ("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", Value),
        ("GET / HTTP/1.1\r\nA: b\u{b}c\r\n\r\n", Value),
        ("GET / HTTP/1.1\r\nA: b\u{7f}\r\n\r\n", Value),
    ] {
        assert_eq!(request(text.as_bytes()), Err(why), "{text:?}");
    }
}

#[test]
fn length_and_number_are_bounded() {
    let many = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert_eq!(
        request(many(MOST_HEADERS).as_bytes())
            .unwrap()
            .headers
            .len(),
        MOST_HEADERS
    );
    assert_eq!(
        request(many(MOST_HEADERS + 1).as_bytes()),
        Err(HeadError::TooMany)
    );
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(LONGEST_HEAD));
    assert_eq!(end_of_head(long.as_bytes(), 0), Err(HeadError::TooLong));
    assert_eq!(
        end_of_head(&long.as_bytes()[..LONGEST_HEAD], 0),
        Err(HeadError::TooLong)
    );
    assert_eq!(
        end_of_head(&long.as_bytes()[..LONGEST_HEAD - 1], 0),
        Ok(None)
    );
    let method = format!("{} / HTTP/1.1\r\n\r\n", "A".repeat(33));
    assert_eq!(request(method.as_bytes()), Err(HeadError::RequestLine));
}

#[test]
fn an_answer_is_read_as_strictly() {
    let parse = |text: &'static str| ResponseHead::parse(text.as_bytes());
    let head = parse("HTTP/1.1 200 All is well\r\nA: b\r\n\r\n").unwrap();
    assert_eq!((head.status, head.reason), (200, b"All is well".as_slice()));
    assert_eq!(parse("HTTP/1.1 204\r\n\r\n").unwrap().status, 204);
    assert_eq!(parse("HTTP/1.1 99 x\r\n\r\n"), Err(HeadError::StatusLine));
    assert_eq!(parse("HTTP/1.1 +20 x\r\n\r\n"), Err(HeadError::StatusLine));
    assert_eq!(parse("ICY 200 OK\r\n\r\n"), Err(HeadError::Version));
}

proptest! {
    #[test]
    fn any_bytes_end_in_a_head_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(Some(end)) = end_of_head(&bytes, 0) {
            let _ = RequestHead::parse(&bytes[..end]);
            let _ = ResponseHead::parse(&bytes[..end]);
        }
    }

    #[test]
    fn the_end_is_found_however_the_head_arrives(lines in proptest::collection::vec("[a-z:]{0,9}", 0..9), tail in "[ -~]{0,20}", step in 1_usize..9) {
        let text = format!("{}\r\n\r\n{tail}", lines.join("\r\n"));
        let whole = end_of_head(text.as_bytes(), 0).unwrap();
        let mut seen = 0;
        for length in (step..text.len() + step).step_by(step) {
            let length = length.min(text.len());
            let found = end_of_head(&text.as_bytes()[..length], seen).unwrap();
            prop_assert_eq!(found.is_some(), whole.is_some_and(|end| end <= length));
            if found.is_some() {
                prop_assert_eq!(found, whole);
                break;
            }
            seen = length;
        }
    }
}
