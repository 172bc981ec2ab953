//! How many connections each agent has open, so that none takes all there are. A kept connection counts while it is idle,
//! too, for the agent that used it last; a stream of HTTP/2 counts like a connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Agents(Mutex<HashMap<Arc<str>, u32>>);

/// One connection of an agent; given back when the last who holds it drops it.
#[derive(Debug)]
pub(super) struct Open {
    agent: Arc<str>,
    home: Arc<Agents>,
}

/// A connection's own: what it counts as while no request of it is open.
#[derive(Debug, Default)]
pub struct Seat(Mutex<Option<Arc<Open>>>);

impl Seat {
    /// For one more request over this connection. None: this agent has as many connections as it may.
    pub(super) fn take(
        &self,
        agents: &Arc<Agents>,
        agent: &Arc<str>,
        most: u32,
    ) -> Option<Arc<Open>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*held
            && open.agent == *agent
            // No other stream of this connection counts as it.
            && Arc::strong_count(open) == 1
        {
            return Some(Arc::clone(open));
        }
        let open = Arc::new(agents.open(agent, most)?);
        if held.as_ref().is_none_or(|old| Arc::strong_count(old) == 1) {
            *held = Some(Arc::clone(&open));
        }
        Some(open)
    }
}

impl Agents {
    /// None: this agent has as many open as it may.
    pub(super) fn open(self: &Arc<Self>, agent: &Arc<str>, most: u32) -> Option<Open> {
        let mut counts = self.counts();
        let count = counts.entry(Arc::clone(agent)).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Open {
            agent: Arc::clone(agent),
            home: Arc::clone(self),
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Arc<str>, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut counts = self.home.counts();
        if let Some(count) = counts.get_mut(&self.agent) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_its_own_count() {
        let agents = Arc::new(Agents::default());
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        let first = agents.open(&one, 1).unwrap();
        assert!(agents.open(&one, 1).is_none());
        assert!(agents.open(&two, 1).is_some());
        drop(first);
        assert!(agents.open(&one, 1).is_some());
        assert!(agents.counts().is_empty());
    }

    #[test]
    fn an_idle_connection_counts_and_its_next_request_does_not_count_again() {
        let agents = Arc::new(Agents::default());
        let (one, two): (Arc<str>, Arc<str>) = ("one".into(), "two".into());
        let seat = Seat::default();
        drop(seat.take(&agents, &one, 1).unwrap());
        assert_eq!(agents.counts()[&one], 1, "idle");
        let request = seat.take(&agents, &one, 1).unwrap();
        assert!(seat.take(&agents, &one, 1).is_none(), "a second stream");
        assert!(Seat::default().take(&agents, &one, 1).is_none());
        drop(request);
        // Somebody else over the same connection: it is theirs now.
        drop(seat.take(&agents, &two, 1).unwrap());
        assert!(!agents.counts().contains_key(&one));
        drop(seat);
        assert!(agents.counts().is_empty());
    }
}
