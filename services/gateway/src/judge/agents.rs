//! How many requests of each agent are open, so that none takes all the connections there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Agents(Mutex<HashMap<Arc<str>, u32>>);

/// One open request of an agent; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    agent: Arc<str>,
    home: Arc<Agents>,
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
}
