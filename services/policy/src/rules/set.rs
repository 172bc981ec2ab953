//! Sets of ranks, small ones as lists and large ones as bits, and what two of them have in common in ascending order.

use std::cmp::Ordering;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Set {
    /// Ascending.
    List(Box<[u32]>),
    Bits(Box<[u64]>),
}

impl Set {
    /// Of ascending ranks, all below `rules`. Takes the smaller form.
    pub(super) fn of(ranks: &[u32], rules: usize) -> Self {
        let words = rules.div_ceil(64);
        if ranks.len() <= words * 2 {
            return Self::List(ranks.into());
        }
        let mut bits = vec![0; words];
        for rank in ranks {
            if let Some(word) = bits.get_mut(*rank as usize / 64) {
                *word |= 1 << (rank % 64);
            }
        }
        Self::Bits(bits.into())
    }

    pub(super) fn contains(&self, rank: u32) -> bool {
        match self {
            Self::List(ranks) => ranks.binary_search(&rank).is_ok(),
            Self::Bits(words) => {
                let word = words.get(rank as usize / 64);
                word.is_some_and(|word| word & (1 << (rank % 64)) != 0)
            }
        }
    }

    /// Hands out every rank until told to stop.
    pub(super) fn each(&self, mut visit: impl FnMut(u32) -> bool) {
        match self {
            Self::List(ranks) => {
                ranks.iter().all(|rank| visit(*rank));
            }
            Self::Bits(words) => {
                words
                    .iter()
                    .enumerate()
                    .all(|(at, word)| bits(at, *word, &mut visit));
            }
        }
    }

    /// Hands out every rank that is in both until told to stop.
    pub(super) fn each_common(&self, other: &Self, mut visit: impl FnMut(u32) -> bool) {
        match (self, other) {
            (Self::List(few), Self::Bits(words)) | (Self::Bits(words), Self::List(few)) => {
                few.iter()
                    .filter(|rank| {
                        let word = words.get(**rank as usize / 64);
                        word.is_some_and(|word| word & (1 << (*rank % 64)) != 0)
                    })
                    .all(|rank| visit(*rank));
            }
            (Self::Bits(words), Self::Bits(others)) => {
                words
                    .iter()
                    .zip(others)
                    .enumerate()
                    .all(|(at, (word, other))| bits(at, word & other, &mut visit));
            }
            (Self::List(few), Self::List(many)) => {
                let (few, many) = if few.len() <= many.len() {
                    (few, many)
                } else {
                    (many, few)
                };
                lists(few, many, &mut visit);
            }
        }
    }
}

fn bits(at: usize, mut word: u64, visit: &mut impl FnMut(u32) -> bool) -> bool {
    while word != 0 {
        if !visit(at as u32 * 64 + word.trailing_zeros()) {
            return false;
        }
        word &= word - 1;
    }
    true
}

fn lists(few: &[u32], mut many: &[u32], visit: &mut impl FnMut(u32) -> bool) {
    // Looking each one up pays only if there are few of them.
    let look_up = few.len().saturating_mul(8) < many.len();
    for rank in few {
        let before = if look_up {
            many.partition_point(|other| other < rank)
        } else {
            many.iter().take_while(|other| *other < rank).count()
        };
        many = many.get(before..).unwrap_or_default();
        match many.first().map(|other| other.cmp(rank)) {
            Some(Ordering::Equal) if !visit(*rank) => return,
            Some(_) => {}
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    fn some() -> impl Strategy<Value = BTreeSet<u32>> {
        prop_oneof![
            prop::collection::btree_set(0_u32..1_000, 0..6),
            prop::collection::btree_set(0_u32..1_000, 0..600),
        ]
    }

    proptest! {
        #[test]
        fn common_is_what_is_in_both(one in some(), other in some(), stop in 0_usize..300) {
            let set = |ranks: &BTreeSet<u32>| {
                Set::of(&ranks.iter().copied().collect::<Vec<_>>(), 1_000)
            };
            let mut all = Vec::new();
            set(&one).each(|rank| { all.push(rank); true });
            prop_assert!((0..1_000).all(|rank| set(&one).contains(rank) == one.contains(&rank)));
            prop_assert!(all.iter().eq(one.iter()));
            let mut common = Vec::new();
            set(&one).each_common(&set(&other), |rank| {
                common.push(rank);
                common.len() <= stop
            });
            let expected: Vec<u32> = one.intersection(&other).copied().take(stop + 1).collect();
            prop_assert_eq!(common, expected);
        }
    }
}
