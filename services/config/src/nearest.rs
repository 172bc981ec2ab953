//! Finds the word that a typo most likely meant. Only ever suggests; nothing is accepted because it is close.

/// Longer words are not typos of ours; comparing them would cost time for nothing.
const LONGEST: usize = 48;

/// The candidate nearest to `word`, if one is near enough to be worth naming.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    if word.is_empty() || word.chars().count() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let lower = candidate.to_ascii_lowercase();
            // Somebody who stopped typing, or left out the `Area/` of a zone, is nearer than any typo.
            let whole_part = lower.rsplit('/').next() == Some(word.as_str())
                || (word.len() >= 2 && lower.starts_with(&word));
            let distance = if whole_part {
                0
            } else {
                distance(&word, &lower)
            };
            (distance <= allowed).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words, where two neighbours swapped count as one edit.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, &to) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(from != to))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                best = best.min(before_last[j - 1] + 1);
            }
            row[j + 1] = best;
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_find_their_word() {
        let words = ["host-name", "name-server", "ntp", "time-zone"];
        assert_eq!(nearest("hostname", words), Some("host-name"));
        assert_eq!(nearest("tiem-zone", words), Some("time-zone"));
        assert_eq!(nearest("name-servers", words), Some("name-server"));
        assert_eq!(nearest("name", words), Some("name-server"));
        assert_eq!(nearest("firewall", words), None);
        assert_eq!(
            nearest("berlin", ["Asia/Tokyo", "Europe/Berlin"]),
            Some("Europe/Berlin")
        );
    }

    #[test]
    fn swapped_neighbours_are_one_edit() {
        assert_eq!(distance("wna", "wan"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
