//! The names of the fake internet: every name has an address, made from its letters, so that tests know it beforehand.
//!
//! Some first labels have a meaning: `alias.<name>` is a CNAME of `<name>`, `rebind.<name>` has inside addresses,
//! `nothing.<name>` does not exist.

use std::net::{Ipv4Addr, Ipv6Addr};

/// How long an answer may be kept.
pub const TTL: u32 = 60;

const A: u16 = 1;
const CNAME: u16 = 5;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const IN: u16 = 1;

/// What a name of an honest site resolves to.
pub fn address_of(name: &str) -> (Ipv4Addr, Ipv6Addr) {
    let host = name
        .to_ascii_lowercase()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let low = u8::try_from(10 + host % 200).unwrap_or(10);
    (
        Ipv4Addr::new(198, 51, 100, low),
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(low)),
    )
}

/// The answer to a query, or none if it is not one.
pub fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.get(..12)?;
    let one_question = header[2] & 0xf8 == 0 && header[4..6] == [0, 1];
    if !one_question {
        return None;
    }
    let (name, end) = name_at(query, 12)?;
    let question = query.get(12..end + 4)?;
    let kind = u16::from_be_bytes([query[end], query[end + 1]]);
    let class = u16::from_be_bytes([query[end + 2], query[end + 3]]);
    let mut records = Vec::new();
    let exists = !name.starts_with("nothing.");
    if exists && class == IN {
        match name.strip_prefix("alias.") {
            Some(target) => {
                records.push((name.clone(), CNAME, encode(target)));
                records.extend(addresses(target, kind));
            }
            None => records.extend(addresses(&name, kind)),
        }
    }
    let code = if exists { 0 } else { 3 };
    let mut answer = vec![
        header[0],
        header[1],
        0x84 | (header[2] & 1),
        0x80 | code,
        0,
        1,
    ];
    answer.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    for (owner, kind, data) in records {
        answer.extend(encode(&owner));
        answer.extend(kind.to_be_bytes());
        answer.extend(IN.to_be_bytes());
        answer.extend(TTL.to_be_bytes());
        answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

fn addresses(name: &str, kind: u16) -> Vec<(String, u16, Vec<u8>)> {
    let (v4, v6) = address_of(name);
    let record = |data: Vec<u8>| (name.to_owned(), kind, data);
    match (kind, name.starts_with("rebind.")) {
        (A, false) => vec![record(v4.octets().to_vec())],
        (AAAA, false) => vec![record(v6.octets().to_vec())],
        (A, true) => ["10.66.0.1", "169.254.169.254", "127.0.0.1", "100.64.0.1"]
            .iter()
            .filter_map(|text| text.parse::<Ipv4Addr>().ok())
            .map(|address| record(address.octets().to_vec()))
            .collect(),
        (AAAA, true) => [
            "::1",
            "fd66::1",
            "::ffff:10.66.0.1",
            "64:ff9b::a42:1",
            "2002:a42:1::",
        ]
        .iter()
        .filter_map(|text| text.parse::<Ipv6Addr>().ok())
        .map(|address| record(address.octets().to_vec()))
        .collect(),
        (TXT, _) => vec![record(b"\x06tunnel".to_vec())],
        _ => Vec::new(),
    }
}

/// The name at an offset, in small letters, and where it ends. Queries hold no compression.
fn name_at(packet: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        match length {
            0 => return Some((labels.join("."), at)).filter(|_| packet.len() >= at + 4),
            1..=63 => {
                let label = packet.get(at..at + length)?;
                labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
                at += length;
            }
            _ => return None,
        }
    }
}

fn encode(name: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        wire.push(u8::try_from(label.len().min(63)).unwrap_or(63));
        wire.extend(label.bytes().take(63));
    }
    wire.push(0);
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(encode(name));
        packet.extend(kind.to_be_bytes());
        packet.extend(IN.to_be_bytes());
        packet
    }

    #[test]
    fn a_name_has_its_address() {
        let reply = answer(&query("Api.Example.com", A)).unwrap();
        assert_eq!(reply[..2], [7, 9]);
        assert_eq!(reply[7], 1);
        assert!(reply.ends_with(&address_of("api.example.com").0.octets()));
    }

    #[test]
    fn an_alias_leads_to_its_target() {
        let reply = answer(&query("alias.site.example", A)).unwrap();
        assert_eq!(reply[7], 2);
        assert!(reply.ends_with(&address_of("site.example").0.octets()));
    }

    #[test]
    fn what_is_no_query_gets_no_answer() {
        assert_eq!(answer(b"marker"), None);
        let response = answer(&query("x.example", A)).unwrap();
        assert_eq!(answer(&response), None);
        for length in 0..20 {
            assert_eq!(answer(&query("x.example", A)[..length]), None);
        }
    }
}
