//! Sets of ports, as ranges in ascending order that neither overlap nor touch. Pure arithmetic.

/// Of one transport.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    pub fn none() -> Self {
        Self::default()
    }

    pub fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    pub fn of(ports: impl IntoIterator<Item = u16>) -> Self {
        let mut ports: Vec<u16> = ports.into_iter().collect();
        ports.sort_unstable();
        let mut set = Self::none();
        for port in ports {
            set.push(port, port);
        }
        set
    }

    /// Both ends included; in ascending order.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= port);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|(_, last)| port <= *last)
    }

    /// Ranges must come by their first port.
    fn push(&mut self, first: u16, last: u16) {
        match self.0.last_mut() {
            Some(before) if u32::from(before.1) + 1 >= u32::from(first) => {
                before.1 = before.1.max(last);
            }
            _ => self.0.push((first, last)),
        }
    }

    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut both = Self::none();
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(&&a), Some(&&b)) = (left.peek(), right.peek()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                both.push(first, last);
            }
            if a.1 <= b.1 {
                left.next();
            } else {
                right.next();
            }
        }
        both
    }

    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let mut ranges: Vec<(u16, u16)> = self.0.iter().chain(&other.0).copied().collect();
        ranges.sort_unstable();
        let mut either = Self::none();
        for (first, last) in ranges {
            either.push(first, last);
        }
        either
    }

    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.and(&other.complement())
    }

    fn complement(&self) -> Self {
        let mut rest = Self::none();
        let mut next = Some(0_u16);
        for (first, last) in &self.0 {
            if let (Some(from), Some(to)) = (next, first.checked_sub(1))
                && from <= to
            {
                rest.push(from, to);
            }
            next = last.checked_add(1);
        }
        if let Some(from) = next {
            rest.push(from, u16::MAX);
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn some() -> impl Strategy<Value = BTreeSet<u16>> {
        let port = prop_oneof![0_u16..12, 65_530_u16..=65_535];
        prop::collection::btree_set(port, 0..12)
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_sets(one in some(), other in some()) {
            let (a, b) = (Ports::of(one.clone()), Ports::of(other.clone()));
            for port in (0..14).chain(65_528..=65_535) {
                let (in_one, in_other) = (one.contains(&port), other.contains(&port));
                prop_assert_eq!(a.contains(port), in_one);
                prop_assert_eq!(a.and(&b).contains(port), in_one && in_other);
                prop_assert_eq!(a.or(&b).contains(port), in_one || in_other);
                prop_assert_eq!(a.without(&b).contains(port), in_one && !in_other);
                prop_assert!(Ports::all().contains(port));
            }
            prop_assert_eq!(a.or(&b), Ports::of(one.union(&other).copied()));
            prop_assert_eq!(a.is_empty(), one.is_empty());
        }
    }
}
