//! The heads as they are sent on: what speaks of one connection ends here, credentials of the gateway above all.

use crate::wire::fields::{Framing, RequestFields, is_of_connection};
use crate::wire::head::{Header, RequestHead, ResponseHead, Version};
use crate::wire::target::Authority;

/// Said of the messages that were passed on, as the standard asks; it names no machine.
const VIA: &[u8] = b"Via: 1.1 clawgress\r\n";

/// The request for the server itself. `path_and_query` is what was judged.
pub(super) fn request(
    head: &RequestHead<'_>,
    fields: &RequestFields<'_>,
    authority: &Authority,
    path_and_query: &str,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    let host = match authority.port {
        80 => authority.host.to_string(),
        port => format!("{}:{port}", authority.host),
    };
    put(
        &mut text,
        &[
            head.method.as_bytes(),
            b" ",
            path_and_query.as_bytes(),
            b" HTTP/1.1\r\nHost: ",
            host.as_bytes(),
            b"\r\n",
        ],
    );
    for header in passing(&head.headers) {
        if !header.name.eq_ignore_ascii_case("host") {
            put(
                &mut text,
                &[header.name.as_bytes(), b": ", header.value, b"\r\n"],
            );
        }
    }
    if fields.framing == Framing::Chunked {
        text.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(protocol) = fields.upgrade {
        put(
            &mut text,
            &[b"Connection: Upgrade\r\nUpgrade: ", protocol, b"\r\n"],
        );
    }
    text.extend_from_slice(VIA);
    text.extend_from_slice(b"\r\n");
    text
}

/// The answer for the agent. `keep`: its connection goes on afterwards.
pub(super) fn response(
    head: &ResponseHead<'_>,
    framing: Framing,
    agent: Version,
    keep: bool,
    upgrade: Option<&[u8]>,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    let status = head.status.to_string();
    put(
        &mut text,
        &[b"HTTP/1.1 ", status.as_bytes(), b" ", head.reason, b"\r\n"],
    );
    for header in passing(&head.headers) {
        put(
            &mut text,
            &[header.name.as_bytes(), b": ", header.value, b"\r\n"],
        );
    }
    if framing == Framing::Chunked && agent == Version::Http11 {
        text.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match upgrade {
        Some(protocol) => put(
            &mut text,
            &[b"Connection: Upgrade\r\nUpgrade: ", protocol, b"\r\n"],
        ),
        None if !keep && head.status >= 200 => text.extend_from_slice(b"Connection: close\r\n"),
        None => {}
    }
    text.extend_from_slice(VIA);
    text.extend_from_slice(b"\r\n");
    text
}

fn passing<'h, 'b>(headers: &'h [Header<'b>]) -> impl Iterator<Item = &'h Header<'b>> {
    headers
        .iter()
        .filter(|header| !is_of_connection(headers, header.name))
}

fn put(text: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        text.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fields;

    #[test]
    fn what_is_of_one_connection_ends_here() {
        let bytes = b"POST http://example.com/a?b HTTP/1.1\r\nHost: example.com\r\nProxy-Authorization: Basic c2VjcmV0\r\n\
            Connection: close, X-Hop\r\nX-Hop: 1\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nKeep-Alive: 5\r\n\
            Upgrade: h2c\r\nHTTP2-Settings: x\r\nAuthorization: Bearer end\r\nTransfer-Encoding: chunked\r\n\r\n";
        let head = RequestHead::parse(bytes).unwrap();
        let found = fields::of_request(&head).unwrap();
        let authority = Authority::parse("example.com:80").unwrap();
        let sent = String::from_utf8(request(&head, &found, &authority, "/a?b")).unwrap();
        assert_eq!(
            sent,
            "POST /a?b HTTP/1.1\r\nHost: example.com\r\nAuthorization: Bearer end\r\nTransfer-Encoding: chunked\r\nVia: 1.1 clawgress\r\n\r\n"
        );
    }

    #[test]
    fn an_answer_is_framed_as_its_reader_can_read_it() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\nA: b\r\nProxy-Authenticate: x\r\n\r\n";
        let head = ResponseHead::parse(bytes).unwrap();
        let of = |agent, keep| {
            String::from_utf8(response(&head, Framing::Chunked, agent, keep, None)).unwrap()
        };
        assert_eq!(
            of(Version::Http11, true),
            "HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\nVia: 1.1 clawgress\r\n\r\n"
        );
        assert_eq!(
            of(Version::Http10, false),
            "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\nVia: 1.1 clawgress\r\n\r\n"
        );
    }
}
