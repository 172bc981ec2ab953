//! Which of many failures are told: one a second, with the number of the others. The clock is an argument.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Complaints {
    last: Option<Instant>,
    held_back: u64,
}

impl Complaints {
    /// The number of those held back since the last one told, if this one may be told.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        let too_soon = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < PAUSE);
        if too_soon {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_and_the_number_of_the_others() {
        let mut complaints = Complaints::default();
        let now = Instant::now();
        assert_eq!(complaints.admit(now), Some(0));
        assert!((0..9).all(|_| complaints.admit(now).is_none()));
        assert_eq!(complaints.admit(now + PAUSE), Some(9));
        assert_eq!(complaints.admit(now + PAUSE * 2), Some(0));
    }
}
