//! Tests of what headers mean.

use super::*;

fn of(text: &str) -> Result<(Framing, bool, bool, Option<String>), FieldError> {
    let head = RequestHead::parse(text.as_bytes()).unwrap();
    let fields = of_request(&head)?;
    let upgrade = fields
        .upgrade
        .map(|name| String::from_utf8_lossy(name).into_owned());
    Ok((
        fields.framing,
        fields.keep_alive,
        fields.expects_continue,
        upgrade,
    ))
}

fn with(headers: &str) -> Result<(Framing, bool, bool, Option<String>), FieldError> {
    of(&format!(
        "POST http://a/ HTTP/1.1\r\nHost: a\r\n{headers}\r\n"
    ))
}

#[test]
fn framing_is_told_once_and_in_one_way() {
    assert_eq!(with("").unwrap().0, Framing::None);
    assert_eq!(with("Content-Length: 7\r\n").unwrap().0, Framing::Length(7));
    assert_eq!(
        with("Transfer-Encoding: CHUNKED\r\n").unwrap().0,
        Framing::Chunked
    );
    for (headers, why) in [
        (
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            FieldError::Framing,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 7\r\n",
            FieldError::Framing,
        ),
        (
            "Content-Length: 7\r\nContent-Length: 7\r\n",
            FieldError::Framing,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            FieldError::Framing,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            FieldError::Framing,
        ),
        (
            "Transfer-Encoding: chunked, chunked\r\n",
            FieldError::Encoding,
        ),
        ("Transfer-Encoding: gzip, chunked\r\n", FieldError::Encoding),
        ("Transfer-Encoding: xchunked\r\n", FieldError::Encoding),
        ("Transfer-Encoding: chunked;q=1\r\n", FieldError::Encoding),
        ("Transfer-Encoding: identity\r\n", FieldError::Encoding),
        ("Transfer-Encoding:\r\n", FieldError::Encoding),
        ("Content-Length: 7, 7\r\n", FieldError::Length),
        ("Content-Length: +7\r\n", FieldError::Length),
        ("Content-Length: -7\r\n", FieldError::Length),
        ("Content-Length: 0x7\r\n", FieldError::Length),
        ("Content-Length: 7 7\r\n", FieldError::Length),
        ("Content-Length:\r\n", FieldError::Length),
        (
            "Content-Length: 9999999999999999999\r\n",
            FieldError::Length,
        ),
        ("Expect: 200-ok\r\n", FieldError::Expect),
        ("Connection: host\r\n", FieldError::Connection),
        (
            "Connection: keep-alive, Content-Length\r\n",
            FieldError::Connection,
        ),
        ("Connection: a b\r\n", FieldError::Connection),
        ("Host: a\r\n", FieldError::Host),
        (
            "Upgrade: a\r\nUpgrade: b\r\n",
            FieldError::Repeated("Upgrade"),
        ),
        (
            "Proxy-Authorization: a\r\nproxy-authorization: b\r\n",
            FieldError::Repeated("Proxy-Authorization"),
        ),
    ] {
        assert_eq!(with(headers), Err(why), "{headers:?}");
    }
    assert_eq!(
        of("POST http://a/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Err(FieldError::Encoding)
    );
    assert_eq!(of("GET http://a/ HTTP/1.1\r\n\r\n"), Err(FieldError::Host));
}

#[test]
fn the_connection_lives_on_as_it_says() {
    assert!(with("").unwrap().1);
    assert!(!with("Connection: x, Close\r\n").unwrap().1);
    assert!(!of("GET http://a/ HTTP/1.0\r\n\r\n").unwrap().1);
    assert!(with("Expect: 100-Continue\r\n").unwrap().2);
    assert_eq!(with("Upgrade: websocket\r\n").unwrap().3, None);
    let upgrade = with("Connection: Upgrade\r\nUpgrade: websocket\r\n")
        .unwrap()
        .3;
    assert_eq!(upgrade.as_deref(), Some("websocket"));
}

#[test]
fn the_host_header_names_the_target() {
    let target = |text| Authority::parse(text).unwrap();
    for (host, to, default, good) in [
        ("example.com", "example.com:80", Some(80), true),
        ("EXAMPLE.com:80", "example.com:80", Some(80), true),
        ("example.com", "example.com:8080", Some(80), false),
        ("example.com:8080", "example.com:8080", Some(80), true),
        ("example.com", "example.com:443", None, true),
        ("example.com:443", "example.com:443", None, true),
        ("example.com:80", "example.com:443", None, false),
        ("other.example", "example.com:443", None, false),
        ("example.com@other.example", "example.com:443", None, false),
        ("[2001:db8::1]", "[2001:db8::1]:80", Some(80), true),
        ("[2001:db8::1]:8080", "[2001:db8::1]:80", Some(80), false),
        ("", "example.com:443", None, false),
        ("example.com, example.com", "example.com:443", None, false),
    ] {
        assert_eq!(
            check_host(Some(host.as_bytes()), &target(to), default).is_ok(),
            good,
            "{host} {to}"
        );
    }
}

#[test]
fn an_answers_body_ends_where_both_readers_say() {
    let of = |text: &str, method: &str| {
        let head = ResponseHead::parse(text.as_bytes()).unwrap();
        of_response(&head, method)
    };
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(of(chunked, "GET"), Ok((Framing::Chunked, true)));
    assert_eq!(of(chunked, "HEAD"), Ok((Framing::None, true)));
    assert_eq!(
        of("HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", "GET"),
        Ok((Framing::None, true))
    );
    assert_eq!(
        of("HTTP/1.1 200 x\r\n\r\n", "GET"),
        Ok((Framing::UntilClose, false))
    );
    assert_eq!(
        of("HTTP/1.0 200 x\r\nContent-Length: 9\r\n\r\n", "GET"),
        Ok((Framing::Length(9), false))
    );
    assert!(
        of(
            "HTTP/1.1 200 x\r\nContent-Length: 9\r\nContent-Length: 8\r\n\r\n",
            "GET"
        )
        .is_err()
    );
}

#[test]
fn headers_of_one_connection_are_known() {
    let head =
        RequestHead::parse(b"GET http://a/ HTTP/1.1\r\nConnection: close, X-Hop\r\n\r\n").unwrap();
    for (name, of_connection) in [
        ("x-hop", true),
        ("Proxy-Authorization", true),
        ("Proxy-Connection", true),
        ("TE", true),
        ("Authorization", false),
        ("X-Other", false),
    ] {
        assert_eq!(
            is_of_connection(&head.headers, name),
            of_connection,
            "{name}"
        );
    }
}
