//! Tests of the inspection of a tunnel's beginning.

use proptest::prelude::*;

use super::super::hello::tests::{body, naming};
use super::*;

fn host() -> Host {
    Host::parse("example.com").unwrap()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    message
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 1];
    record.extend((content.len() as u16).to_be_bytes());
    record.extend(content);
    record
}

fn hello(name: &str) -> Vec<u8> {
    record(HANDSHAKE, &message(CLIENT_HELLO, &body(&[naming(name)])))
}

fn server_hello(random: [u8; 32]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend(random);
    body.extend([0, 0x13, 1, 0]);
    record(HANDSHAKE, &message(SERVER_HELLO, &body))
}

#[test]
fn a_hello_for_the_host_passes_and_another_does_not() {
    let mut inspection = Inspection::default();
    assert_eq!(inspection.of_client(&hello("EXAMPLE.com"), &host()), Ok(0));
    assert!(inspection.is_begun() && !inspection.is_over());
    inspection.of_server(&server_hello([1; 32]));
    assert!(inspection.is_over());
    for (bytes, why) in [
        (hello("other.example"), Reason::SniMismatch),
        (hello("example.com.evil.example"), Reason::SniMismatch),
        (b"GET / HTTP/1.1\r\n".to_vec(), Reason::NotTls),
        (b"SSH-2.0-x\r\n".to_vec(), Reason::NotTls),
        (vec![22, 2, 0, 0, 9, 1], Reason::NotTls),
        (
            record(HANDSHAKE, &message(2, b"abc")),
            Reason::MalformedHello,
        ),
        (record(HANDSHAKE, &[1, 1, 0, 0]), Reason::MalformedHello),
        (record(HANDSHAKE, &[]), Reason::MalformedHello),
        (
            record(HANDSHAKE, &message(CLIENT_HELLO, &body(&[]))),
            Reason::NoSni,
        ),
    ] {
        assert_eq!(
            Inspection::default().of_client(&bytes, &host()),
            Err(why),
            "{bytes:?}"
        );
    }
    let address = Host::parse("203.0.113.9").unwrap();
    assert_eq!(
        Inspection::default().of_client(&hello("example.com"), &address),
        Err(Reason::SniMismatch)
    );
}

#[test]
fn a_hello_may_lie_over_records_and_segments() {
    let whole = message(CLIENT_HELLO, &body(&[naming("example.com")]));
    for split in 1..whole.len() {
        let bytes = [
            record(HANDSHAKE, &whole[..split]),
            record(HANDSHAKE, &whole[split..]),
        ]
        .concat();
        let mut inspection = Inspection::default();
        let last = bytes.len() - 1;
        for (at, byte) in bytes[..last].iter().enumerate() {
            assert_eq!(inspection.of_client(&[*byte], &host()), Ok(at + 1));
        }
        assert_eq!(inspection.of_client(&bytes[last..], &host()), Ok(0));
    }
    let between = [
        record(HANDSHAKE, &whole[..9]),
        record(CHANGE_CIPHER_SPEC, &[1]),
    ]
    .concat();
    assert_eq!(
        Inspection::default().of_client(&between, &host()),
        Err(Reason::MalformedHello)
    );
    let two = [whole.clone(), whole].concat();
    assert_eq!(
        Inspection::default().of_client(&record(HANDSHAKE, &two), &host()),
        Err(Reason::MalformedHello)
    );
}

#[test]
fn after_a_retry_the_second_hello_is_judged_too() {
    for split in 1..40 {
        let mut inspection = Inspection::default();
        assert_eq!(inspection.of_client(&hello("example.com"), &host()), Ok(0));
        assert_eq!(
            inspection.of_client(&record(APPLICATION_DATA, b"early"), &host()),
            Ok(0)
        );
        let retry = server_hello(RETRY);
        inspection.of_server(&retry[..split]);
        inspection.of_server(&retry[split..]);
        assert!(!inspection.is_over());
        assert_eq!(
            inspection.of_client(&record(CHANGE_CIPHER_SPEC, &[1]), &host()),
            Ok(0)
        );
        let second = hello("other.example");
        assert_eq!(inspection.of_client(&second[..20], &host()), Ok(20));
        assert_eq!(
            inspection.of_client(&second[20..], &host()),
            Err(Reason::SniMismatch)
        );
    }
    let mut inspection = Inspection::default();
    inspection
        .of_client(&hello("example.com"), &host())
        .unwrap();
    inspection.of_server(&server_hello(RETRY));
    assert_eq!(inspection.of_client(&hello("example.com"), &host()), Ok(0));
    assert!(inspection.is_over());
}

#[test]
fn a_second_hello_before_the_servers_word_is_judged_too() {
    let mut inspection = Inspection::default();
    inspection
        .of_client(&hello("example.com"), &host())
        .unwrap();
    assert_eq!(
        inspection.of_client(&hello("other.example"), &host()),
        Err(Reason::SniMismatch)
    );
}

#[test]
fn whatever_else_the_server_says_ends_the_inspection() {
    for bytes in [
        b"!".as_slice(),
        &[20, 3, 3, 0, 1, 1],
        &[22, 3, 3, 0, 4, 11, 0, 0, 0],
    ] {
        let mut inspection = Inspection::default();
        inspection
            .of_client(&hello("example.com"), &host())
            .unwrap();
        inspection.of_server(bytes);
        assert!(inspection.is_over());
    }
}

#[test]
fn a_retry_behind_a_warning_or_over_several_records_is_still_one() {
    let retry = message(SERVER_HELLO, &server_hello(RETRY)[9..]);
    let warning = record(ALERT, &[1, 112]);
    let mut forms = vec![
        [warning.clone(), record(HANDSHAKE, &retry)].concat(),
        [warning.clone(), warning, record(HANDSHAKE, &retry)].concat(),
    ];
    for split in 1..38 {
        forms.push(
            [
                record(HANDSHAKE, &retry[..split]),
                record(HANDSHAKE, &retry[split..]),
            ]
            .concat(),
        );
    }
    for form in forms {
        for step in [1, 7, form.len()] {
            let mut inspection = Inspection::default();
            inspection
                .of_client(&hello("example.com"), &host())
                .unwrap();
            for piece in form.chunks(step) {
                inspection.of_server(piece);
            }
            assert!(!inspection.is_over(), "{form:?}");
            assert_eq!(
                inspection.of_client(&hello("other.example"), &host()),
                Err(Reason::SniMismatch)
            );
        }
    }
}

#[test]
fn of_early_data_only_a_header_in_part_is_held() {
    let mut inspection = Inspection::default();
    inspection
        .of_client(&hello("example.com"), &host())
        .unwrap();
    for _ in 0..30 {
        let early = [record(APPLICATION_DATA, &[0; 3000]), vec![23, 3, 3]].concat();
        assert_eq!(inspection.of_client(&early, &host()), Ok(3));
        assert_eq!(inspection.of_client(&[0, 1, 0], &host()), Ok(0));
    }
}

#[test]
fn early_data_is_bounded() {
    let mut inspection = Inspection::default();
    inspection
        .of_client(&hello("example.com"), &host())
        .unwrap();
    let early = record(APPLICATION_DATA, &[0; 16_000]);
    let refused = (0..100).find_map(|_| inspection.of_client(&early, &host()).err());
    assert_eq!(refused, Some(Reason::MalformedHello));
}

proptest! {
    #[test]
    fn any_bytes_hold_bounded_memory(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
        let mut inspection = Inspection::default();
        for part in [vec![22, 3, 1, 2, 0, 1, 0, 1, 0xfc]].iter().chain(&parts) {
            if inspection.of_client(part, &host()).is_err() {
                break;
            }
            inspection.of_server(part);
            prop_assert!(inspection.hello.len() <= LONGEST_HELLO + LONGEST_RECORD);
        }
    }
}
