//! What goes wrong around the trail, told in the trail: one event when a trouble begins, one when it is over, however
//! often it is met in between. What the trail can't take now is told when it is met again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event::{Begun, Decision, Micros, Outcome, Source};
use crate::store::{Store, StoreError};

/// A trouble that comes and goes faster than this is told once.
const QUIET: Duration = Duration::from_secs(60);
/// Troubles at a time; whoever makes more of them is not told of by name.
const MOST: usize = 256;
const OTHERS: &str = "others";

#[derive(Debug)]
struct Trouble {
    told: Instant,
    lasts: bool,
    /// It came back so soon that it is not told, unless it is met later still.
    silent: bool,
}

#[derive(Clone)]
pub struct Alerts {
    store: Arc<Store>,
    troubles: Arc<Mutex<BTreeMap<String, Trouble>>>,
}

impl Alerts {
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            troubles: Arc::default(),
        }
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<String, Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `key` tells one trouble from another.
    pub async fn begins(&self, key: &str, reason: &'static str, about: String) {
        let key = {
            let mut troubles = self.troubles();
            if troubles.len() >= MOST && !troubles.contains_key(key) {
                troubles.retain(|_, trouble| trouble.lasts || trouble.told.elapsed() < QUIET);
            }
            let key = if troubles.len() >= MOST && !troubles.contains_key(key) {
                OTHERS
            } else {
                key
            };
            if let Some(trouble) = troubles.get_mut(key) {
                if trouble.lasts && !trouble.silent {
                    return;
                }
                if trouble.told.elapsed() < QUIET {
                    (trouble.lasts, trouble.silent) = (true, true);
                    return;
                }
            }
            let trouble = Trouble {
                told: Instant::now(),
                lasts: true,
                silent: false,
            };
            troubles.insert(key.to_owned(), trouble);
            key.to_owned()
        };
        if let Err(error) = self.tell(reason, about, true).await {
            tracing::error!("recording an alert: {error}");
            self.troubles().remove(&key);
        }
    }

    /// Nothing, if it had not begun.
    pub async fn ends(&self, key: &str, reason: &'static str, about: String) {
        let told = match self.troubles().get_mut(key) {
            Some(trouble) if trouble.lasts => {
                trouble.lasts = false;
                trouble.told = Instant::now();
                !std::mem::take(&mut trouble.silent)
            }
            _ => false,
        };
        if told && let Err(error) = self.tell(reason, about, false).await {
            tracing::error!("recording that an alert is over: {error}");
            if let Some(trouble) = self.troubles().get_mut(key) {
                trouble.lasts = true;
            }
        }
    }

    /// Something that is over as soon as it is said.
    pub async fn notice(&self, reason: &'static str, about: String) {
        if let Err(error) = self.tell(reason, about, false).await {
            tracing::error!("recording a notice: {error}");
        }
    }

    async fn tell(
        &self,
        reason: &'static str,
        about: String,
        alert: bool,
    ) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let noted = tokio::task::spawn_blocking(move || {
            let begun = Begun {
                timestamp: Micros::now(),
                source: Source::Audit,
                path: Some(about.into()),
                alert,
                ..Begun::default()
            };
            let outcome = Outcome {
                decision: Decision::Notice,
                reason: Some(reason.into()),
                ..Outcome::default()
            };
            store.note(&begun, &outcome)
        });
        // A panic in there has been told already.
        noted.await.unwrap_or(Ok(()))
    }
}
