//! The name of one request: unpredictable, and different from every other request's of every gateway.

use std::cell::Cell;
use std::fmt;

/// 128 bits: half of them are this thread's, drawn when it began; the other half counts from a drawn beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64, u64);

thread_local! {
    static NEXT: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

impl RequestId {
    pub fn fresh() -> Self {
        NEXT.with(|next| {
            let (thread, number) = next.get().unwrap_or_else(|| (drawn(), drawn()));
            next.set(Some((thread, number.wrapping_add(1))));
            Self(thread, number)
        })
    }
}

fn drawn() -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers the ids of two threads would only be as different as their clocks.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        return since.subsec_nanos().into();
    }
    u64::from_ne_bytes(bytes)
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike() {
        let mut ids: Vec<String> = (0..1000).map(|_| RequestId::fresh().to_string()).collect();
        ids.extend(std::thread::spawn(|| RequestId::fresh().to_string()).join());
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 1001);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
