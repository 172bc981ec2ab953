//! The canonical form of a domain name, and why a text is none.
//!
//! Agents' names come through here as well: no text panics, and none takes more than time in proportion to its length.

use std::net::IpAddr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use crate::cidr::Wrong;

/// Of a whole name, without its trailing dot.
pub(crate) const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;
/// A longer text is no name in any writing: four bytes for every character that a name could have.
const MAX_WRITTEN: usize = 4 * (MAX_NAME + 1);

/// Last labels by which named's policy zones mean addresses or actions instead of names, and that of those zones: a name
/// in one of them would change what the zones do to every other.
const POLICY_ZONE_LABELS: [&str; 8] = [
    "clawgress",
    "rpz-client-ip",
    "rpz-drop",
    "rpz-ip",
    "rpz-nsdname",
    "rpz-nsip",
    "rpz-passthru",
    "rpz-tcp-only",
];

/// True if the last label of this canonical name is reserved for policy zones.
pub fn is_for_policy_zones(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    POLICY_ZONE_LABELS.contains(&last)
}

/// The one form in which names are compared: lowercase A-labels without a trailing dot.
pub fn canonical_name(text: &str) -> Result<String, Wrong> {
    if is_plain(text) {
        let mut name = text.strip_suffix('.').unwrap_or(text).to_owned();
        name.make_ascii_lowercase();
        check(text, &name)?;
        return Ok(name);
    }
    if let Some(wrong) = not_a_name(text) {
        return Err(wrong);
    }
    let mapped = Uts46::new()
        .to_ascii(
            text.as_bytes(),
            AsciiDenyList::EMPTY,
            Hyphens::Allow,
            DnsLength::Ignore,
        )
        .map_err(|_| {
            Wrong::new(
                format!("`{}` is not a domain", shown(text)),
                "write a name such as api.example.com; letters of other scripts must form words of one script",
            )
        })?;
    let name = mapped.strip_suffix('.').unwrap_or(&mapped);
    check(text, name)?;
    Ok(name.to_owned())
}

/// True if the name needs no mapping beyond lowercase: by far the most do not.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !text.split('.').any(|label| {
            label
                .get(..4)
                .is_some_and(|head| head.eq_ignore_ascii_case("xn--"))
        })
}

/// What people write where a name belongs, each with the form that is right.
fn not_a_name(text: &str) -> Option<Wrong> {
    if text.len() > MAX_WRITTEN {
        return Some(too_long(text.chars().count()));
    }
    if let Some(wrong) = address(text) {
        return Some(wrong);
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        return Some(Wrong::new(
            format!("`{}` is a URL", shown(text)),
            format!("write its name alone: {}", shown(host)),
        ));
    }
    if let Some((host, _)) = text.split_once(['/', '?', '#']) {
        return Some(Wrong::new(
            format!("`{}` has a path", shown(text)),
            format!("write the name alone: {}", shown(host)),
        ));
    }
    if let Some((host, port)) = text.split_once(':') {
        return Some(Wrong::new(
            format!("`{}` has a port", shown(text)),
            format!(
                "write the name alone, {}, and its port under ports: {}",
                shown(host),
                shown(port)
            ),
        ));
    }
    if text.chars().any(char::is_whitespace) {
        return Some(Wrong::new(
            format!("`{}` has a space in it", shown(text)),
            "write one name, without spaces",
        ));
    }
    None
}

fn address(text: &str) -> Option<Wrong> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let (head, length) = bare.split_once('/').unwrap_or((bare, ""));
    let address = head.parse::<IpAddr>().ok()?;
    let (what, length) = match (length, address) {
        ("", IpAddr::V4(_)) => ("an address", "32"),
        ("", IpAddr::V6(_)) => ("an address", "128"),
        (length, _) => ("a network", length),
    };
    Some(Wrong::new(
        format!("`{}` is {what}, not a domain", shown(text)),
        format!("write it under ips: {address}/{}", shown(length)),
    ))
}

fn too_long(length: usize) -> Wrong {
    Wrong::new(
        format!("the domain has {length} characters"),
        format!("a domain has at most {MAX_NAME}"),
    )
}

/// The rules of a name that is ASCII and lowercase already.
fn check(written: &str, name: &str) -> Result<(), Wrong> {
    if name.is_empty() {
        return Err(Wrong::new(
            "the domain is empty",
            "write a name such as api.example.com",
        ));
    }
    // No address of version 4 ends in a letter, and one of version 6 has a colon and came not this far.
    if name.ends_with(|c: char| c.is_ascii_digit())
        && let Some(wrong) = address(name)
    {
        return Err(wrong);
    }
    if name.len() > MAX_NAME {
        return Err(too_long(name.len()));
    }
    let wrong = |what: String, right: &str| Err(Wrong::new(what, right));
    for label in name.split('.') {
        if label.is_empty() {
            return wrong(
                format!("`{}` has an empty part between its dots", shown(written)),
                "write one dot between two parts",
            );
        }
        if label.len() > MAX_LABEL {
            return wrong(
                format!(
                    "the part `{}…` has {} characters",
                    label.chars().take(16).collect::<String>(),
                    label.len()
                ),
                "a part between dots has at most 63",
            );
        }
        let bad = label
            .bytes()
            .find(|b| !(b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_')));
        if let Some(bad) = bad {
            return wrong(
                format!(
                    "`{}` holds `{}`",
                    shown(written),
                    char::from(bad).escape_default()
                ),
                "a name has letters, digits, hyphens, underscores and dots",
            );
        }
    }
    if is_for_policy_zones(name) {
        return wrong(
            format!(
                "`{}` ends in a word that the policy zones of the resolver keep for themselves",
                shown(written)
            ),
            "write the name of a site, such as api.example.com, or a network under ips",
        );
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return wrong(
            format!(
                "`{}` ends in a number, which no domain does",
                shown(written)
            ),
            "write a name such as api.example.com, or a network under ips",
        );
    }
    Ok(())
}

/// As much of a foreign text as belongs into a message.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        canonical_name(text).expect_err(text).to_string()
    }

    #[test]
    fn one_form_of_a_name_however_it_is_written() {
        for (written, name) in [
            ("api.openai.com", "api.openai.com"),
            ("API.OpenAI.com.", "api.openai.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example.", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("bücher。example。", "xn--bcher-kva.example"),
            ("_acme-challenge.example.com", "_acme-challenge.example.com"),
            ("_srv.bücher.example", "_srv.xn--bcher-kva.example"),
            ("r3---sn-x.example.com", "r3---sn-x.example.com"),
            ("a-.example.com", "a-.example.com"),
            ("1.example.com", "1.example.com"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(canonical_name(written).expect(written), name);
            assert_eq!(canonical_name(name).expect(name), name);
        }
    }

    #[test]
    fn what_policy_zones_take_for_a_rule_is_refused() {
        for last in POLICY_ZONE_LABELS {
            for text in [
                last.to_owned(),
                format!("a.{last}"),
                format!("32.1.0.0.127.{}.", last.to_uppercase()),
            ] {
                assert!(refused(&text).contains("policy zones"), "{text}");
            }
            assert!(canonical_name(&format!("{last}.example.com")).is_ok());
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_right_form() {
        assert!(refused("").contains("empty"));
        assert!(refused(".").contains("empty"));
        assert!(refused("a..b").contains("one dot"));
        assert!(refused(".a").contains("one dot"));
        assert!(refused("a.b..").contains("one dot"));
        assert!(refused("192.0.2.1").contains("under ips: 192.0.2.1/32"));
        assert!(refused("192.0.2.0/24").contains("under ips: 192.0.2.0/24"));
        assert!(refused("[2001:db8::1]").contains("under ips: 2001:db8::1/128"));
        assert!(refused("１９２.0.2.1").contains("under ips: 192.0.2.1/32"));
        assert!(refused("1.2.3").contains("ends in a number"));
        assert!(refused("https://u@api.example.com:8443/v1").contains("alone: api.example.com"));
        assert!(refused("api.example.com/v1").contains("alone: api.example.com"));
        assert!(
            refused("api.example.com:8443")
                .contains("api.example.com, and its port under ports: 8443")
        );
        assert!(refused("api example.com").contains("space"));
        assert!(refused("api.exa\0mple.com").contains("holds"));
        assert!(refused("xn--zzzzzzzzzz99999.example").contains("not a domain"));
        assert!(refused(&"x".repeat(300)).contains("300 characters"));
        assert!(refused(&format!("{}.com", "x".repeat(64))).contains("64 characters"));
        assert!(refused(&"ü".repeat(5_000)).contains("5000 characters"));
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61));
        assert_eq!(longest.len(), 253);
        assert!(canonical_name(&longest).is_ok());
        assert!(refused(&format!("{longest}a")).contains("254"));
    }
}
