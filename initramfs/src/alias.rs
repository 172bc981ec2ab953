//! Matching of kernel module aliases (`pci:v00008086d*…`, `usb:v….d[0-9]*`) against what a device
//! says of itself.
//!
//! Works on bytes without recursion and without allocation, so that a hostile device string can
//! cost at most pattern × text steps. It must never grow into a general shell glob.

/// Whether `text` matches `pattern`, where `*` stands for any run, `?` for one byte and
/// `[…]` for one byte of a set with ranges (`[0-9]`, `[!a-c]`). An unclosed `[` stands for itself.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.as_bytes();
    let mut text = text.as_bytes();
    // Where to resume when the bytes after the last `*` turn out wrong.
    let mut resume: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            pattern = rest;
            resume = Some((rest, text));
            continue;
        }
        match (one(pattern, text), text.is_empty() && pattern.is_empty()) {
            (_, true) => return true,
            (Some((pattern_rest, text_rest)), _) => {
                pattern = pattern_rest;
                text = text_rest;
            }
            (None, _) => match resume {
                Some((after_star, [_, shorter @ ..])) => {
                    pattern = after_star;
                    text = shorter;
                    resume = Some((after_star, shorter));
                }
                _ => return false,
            },
        }
    }
}

/// Consumes one pattern element and one byte, if they agree.
fn one<'p, 't>(pattern: &'p [u8], text: &'t [u8]) -> Option<(&'p [u8], &'t [u8])> {
    let (&byte, text_rest) = text.split_first()?;
    let (&element, pattern_rest) = pattern.split_first()?;
    match element {
        b'?' => Some((pattern_rest, text_rest)),
        b'[' => match set(pattern_rest, byte) {
            Some((true, after)) => Some((after, text_rest)),
            Some((false, _)) => None,
            None => (byte == b'[').then_some((pattern_rest, text_rest)),
        },
        literal => (literal == byte).then_some((pattern_rest, text_rest)),
    }
}

/// Whether `byte` is in the set that starts after `[`, and the pattern after its `]`.
fn set(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    let mut first = true;
    loop {
        match rest {
            [] => return None,
            [b']', after @ ..] if !first => return Some((found != negated, after)),
            [low, b'-', high, after @ ..] if *high != b']' => {
                found |= (*low..=*high).contains(&byte);
                rest = after;
            }
            [single, after @ ..] => {
                found |= *single == byte;
                rest = after;
            }
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn aliases_of_real_devices() {
        let ahci = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01";
        assert!(matches("pci:v*d*sv*sd*bc01sc06i01*", ahci));
        assert!(matches("pci:v00008086d00002922sv*sd*bc*sc*i*", ahci));
        assert!(!matches("pci:v00008086d00002923sv*sd*bc*sc*i*", ahci));
        assert!(matches("scsi:t-0x00*", "scsi:t-0x00"));
        assert!(!matches("scsi:t-0x00*", "scsi:t-0x05"));
        assert!(matches(
            "usb:v05ACp12[0-9][0-9]d*dc*dsc*dp*ic08isc06ip50in*",
            "usb:v05ACp1205d0100dc00dsc00dp00ic08isc06ip50in00"
        ));
        assert!(!matches("usb:v0[!a-c]x", "usb:v0bx"));
        assert!(matches("a[b", "a[b"));
    }

    #[test]
    fn a_hostile_text_costs_little() {
        let pattern = "*a*a*a*a*a*a*a*a*a*a*b";
        assert!(!matches(pattern, &"a".repeat(4000)));
    }

    /// The definition, written as plainly as possible.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.first() {
            None => text.is_empty(),
            Some('*') => (0..=text.len()).any(|skip| naive(&pattern[1..], &text[skip..])),
            Some('?') => !text.is_empty() && naive(&pattern[1..], &text[1..]),
            Some('[') => {
                // The generator below writes only closed sets of the form [xy] or [x-y].
                let end = pattern.iter().position(|c| *c == ']').unwrap();
                let inside = &pattern[1..end];
                let hit = |c: char| match inside {
                    [low, '-', high] => (*low..=*high).contains(&c),
                    list => list.contains(&c),
                };
                text.first().is_some_and(|c| hit(*c)) && naive(&pattern[end + 1..], &text[1..])
            }
            Some(c) => text.first() == Some(c) && naive(&pattern[1..], &text[1..]),
        }
    }

    fn pattern() -> impl Strategy<Value = String> {
        let element = prop_oneof![
            4 => "[abc:]",
            2 => Just("*".to_owned()),
            1 => Just("?".to_owned()),
            1 => Just("[ab]".to_owned()),
            1 => Just("[a-b]".to_owned()),
        ];
        prop::collection::vec(element, 0..8).prop_map(|elements| elements.concat())
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in pattern(), text in "[abc:]{0,10}") {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &text), naive(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn never_panics(pattern in ".{0,20}", text in ".{0,20}") {
            matches(&pattern, &text);
        }
    }
}
