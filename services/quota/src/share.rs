//! Which part of every limit is one gateway's: the parts of all gateways together are never more than the whole.

use serde::{Deserialize, Serialize};

/// The `index`th of `count` equal parts; what does not divide goes to the first ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    pub index: u32,
    pub count: u32,
}

impl Share {
    /// The only gateway.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
    /// Nothing may be used.
    pub const NONE: Self = Self { index: 0, count: 0 };

    /// This part of a limit.
    pub fn of(self, limit: u32) -> u64 {
        match (limit.checked_div(self.count), limit.checked_rem(self.count)) {
            (Some(each), Some(rest)) => u64::from(each) + u64::from(self.index < rest),
            _ => 0,
        }
    }

    pub(crate) fn packed(self) -> u64 {
        u64::from(self.count) << 32 | u64::from(self.index)
    }

    pub(crate) fn unpacked(packed: u64) -> Self {
        Self {
            index: packed as u32,
            count: (packed >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_whole() {
        for limit in [0, 1, 2, 7, 100, u32::MAX] {
            for count in 1..9 {
                let parts = (0..count).map(|index| Share { index, count }.of(limit));
                assert_eq!(parts.sum::<u64>(), u64::from(limit));
            }
        }
        assert_eq!(Share::NONE.of(5), 0);
        assert_eq!(Share::unpacked(Share::WHOLE.packed()), Share::WHOLE);
    }
}
