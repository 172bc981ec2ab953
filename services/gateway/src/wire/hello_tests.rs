//! Tests of the reader of hellos, and hellos for the tests of others.

use proptest::prelude::*;

use super::*;

/// A ClientHello's body with these extensions.
pub(crate) fn body(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    let mut block = Vec::new();
    for (kind, content) in extensions {
        block.extend(kind.to_be_bytes());
        block.extend((content.len() as u16).to_be_bytes());
        block.extend(content);
    }
    body.extend((block.len() as u16).to_be_bytes());
    body.extend(block);
    body
}

pub(crate) fn naming(name: &str) -> (u16, Vec<u8>) {
    let length = name.len() as u16;
    let mut content = (length + 3).to_be_bytes().to_vec();
    content.push(0);
    content.extend(length.to_be_bytes());
    content.extend(name.as_bytes());
    (SERVER_NAME, content)
}

#[test]
fn the_name_is_found_among_the_extensions() {
    let hello = body(&[
        (16, vec![0, 3, 2, b'h', b'2']),
        naming("Example.com"),
        (43, vec![2, 3, 4]),
    ]);
    assert_eq!(server_name(&hello), Ok("Example.com"));
}

#[test]
fn what_hides_or_doubles_the_name_is_refused() {
    let name = naming("example.com");
    for (hello, why) in [
        (body(&[]), Reason::NoSni),
        (body(&[(16, vec![])]), Reason::NoSni),
        (body(&[name.clone(), (0xfe0d, vec![1])]), Reason::Ech),
        (body(&[(0xffce, vec![1]), name.clone()]), Reason::Ech),
        (
            body(&[name.clone(), naming("other.example")]),
            Reason::MalformedHello,
        ),
        (body(&[(0, vec![])]), Reason::MalformedHello),
        (body(&[(0, vec![0, 0])]), Reason::MalformedHello),
        (body(&[naming("")]), Reason::MalformedHello),
        (
            body(&[(0, vec![0, 4, 1, 0, 1, b'a'])]),
            Reason::MalformedHello,
        ),
        (
            body(&[(0, vec![0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b'])]),
            Reason::MalformedHello,
        ),
        (
            body(&[(0, vec![0, 5, 0, 0, 2, 0xc3, 0xa9])]),
            Reason::MalformedHello,
        ),
    ] {
        assert_eq!(server_name(&hello), Err(why), "{hello:?}");
    }
    let mut longer = body(&[name]);
    longer.push(0);
    assert_eq!(server_name(&longer), Err(Reason::MalformedHello));
}

proptest! {
    #[test]
    fn a_hello_in_part_or_bent_names_nobody_else(at in 0_usize..80, to in any::<u8>(), cut in 0_usize..90) {
        let mut hello = body(&[naming("example.com"), (43, vec![2, 3, 4])]);
        if let Some(byte) = hello.get_mut(at) {
            *byte = to;
        }
        hello.truncate(cut);
        if let Ok(name) = server_name(&hello) {
            prop_assert!(name.is_ascii() && !name.is_empty());
        }
    }
}
