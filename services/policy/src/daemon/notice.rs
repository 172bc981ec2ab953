//! One standing word about something that was tried: shown by health until it is replaced.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clawgress_link::health::Check;

#[derive(Debug, Clone)]
pub(crate) struct Notice {
    name: &'static str,
    /// None: nothing to say.
    word: Arc<Mutex<Option<Result<String, String>>>>,
}

impl Notice {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            word: Arc::default(),
        }
    }

    /// True if this is another word than the one before.
    pub(crate) fn set(&self, word: Result<String, String>) -> bool {
        let mut place = self.word.lock().unwrap_or_else(PoisonError::into_inner);
        place.replace(word.clone()) != Some(word)
    }

    pub(crate) fn check(&self) -> Option<Check> {
        let word = self
            .word
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()?;
        Some(Check::of(self.name, Duration::ZERO, word))
    }
}
