//! The part of a name that somebody registered, as good as can be told from the name alone. Pure.
//!
//! There is no list of public suffixes here, which would be old the day after: under a country's code a second label
//! that is as short as such suffixes are, or is known as one, counts as part of the suffix.

/// Suffixes under countries' codes that have more letters than `SHORT`.
const LONG_SECOND_LEVELS: [&str; 8] = [
    "asso", "firm", "gouv", "info", "name", "police", "priv", "store",
];
/// As in `co.uk`, `com.au`, `gob.mx`.
const SHORT: usize = 3;

/// Of a canonical name; a name that is a suffix itself stands for itself.
pub fn registered_domain(name: &str) -> &str {
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    let Some(last) = dots.next() else {
        return name;
    };
    let Some(second) = dots.next() else {
        return name;
    };
    let country = name.len() - last - 1 == 2;
    let below = name.get(second + 1..last).unwrap_or_default();
    let is_suffix = country && (below.len() <= SHORT || LONG_SECOND_LEVELS.contains(&below));
    let cut = if is_suffix {
        match dots.next() {
            Some(third) => third,
            None => return name,
        }
    } else {
        second
    };
    name.get(cut + 1..).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registered_part_of_a_name() {
        for (name, registered) in [
            ("com", "com"),
            ("example.com", "example.com"),
            ("a.b.example.com", "example.com"),
            ("www.example.co.uk", "example.co.uk"),
            ("co.uk", "co.uk"),
            ("example.co.uk", "example.co.uk"),
            ("a.b.example.gouv.fr", "example.gouv.fr"),
            ("a.b.example.org.br", "example.org.br"),
            ("www.example.de", "example.de"),
            ("a.b.example.de", "example.de"),
            // Short for a suffix or short for itself: the longer form.
            ("a.b.x.de", "b.x.de"),
            ("", ""),
        ] {
            assert_eq!(registered_domain(name), registered, "{name}");
        }
    }
}
