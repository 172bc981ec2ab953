//! What takes time: named's answer and the enforcer's pin. And what changes under way: revisions, the enforcer's coming
//! and going.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clawgress_link::pins::Pin;
use hickory_proto::rr::{Name, RecordType};
use tokio::sync::oneshot;

use super::{Asker, Blocked, Engine, Standing, Step, Waiting, Wanted, lock, with_key};
use crate::enforcer::{Link, PinError};
use crate::facts::{Facts, Found, SHORTEST, SHORTEST_WILD};
use crate::rules::{Rules, Who};

/// Facts, a pin, and both once more if a new revision came between.
const MOST_STEPS: usize = 6;

impl Engine {
    /// Fetches what a question waits for, until it is answered.
    pub async fn finish(self: &Arc<Self>, waiting: Box<Waiting>) -> Vec<u8> {
        let Waiting {
            question,
            asker,
            room,
            mut step,
            _flight,
        } = *waiting;
        let mut facts = None;
        for _ in 0..MOST_STEPS {
            match step {
                Step::Say(answer) => return answer.to_bytes(&question, room),
                Step::Ask { name, kind, wild } => facts = Some(self.ask(name, kind, wild).await),
                Step::Pin(wanted) => {
                    let epoch = wanted.epoch;
                    if let Err(error) = self.pin(wanted).await {
                        // Refused because a new revision came between: judge by that one.
                        if self.epoch.load(Ordering::Acquire) == epoch {
                            self.complain(&error);
                            let answer = self.failed_for(&question, asker, "no pin");
                            return answer.to_bytes(&question, room);
                        }
                    }
                }
            }
            step = self.step(&question, asker, facts.as_ref()).1;
        }
        let answer = match step {
            Step::Say(answer) => answer,
            _ => self.failed_for(&question, asker, "the policy keeps changing"),
        };
        answer.to_bytes(&question, room)
    }

    /// One question to named, however many wait for its answer.
    async fn ask(self: &Arc<Self>, name: String, kind: RecordType, wild: bool) -> Arc<Facts> {
        let shortest = if wild { SHORTEST_WILD } else { SHORTEST };
        let (tell, told) = oneshot::channel();
        let key: Box<[u8]> = with_key(&name, kind, |key| key.into());
        let first = {
            let mut asking = lock(&self.asking);
            if let Some(others) = asking.get_mut(&key) {
                others.push(tell);
                false
            } else if asking.len() >= self.most_asking {
                return Arc::new(Facts::passing(Found::Failed, Instant::now()));
            } else {
                asking.insert(key.clone(), vec![tell]);
                true
            }
        };
        if first {
            // A task of its own: those who wait may go away, the answer is kept all the same.
            let engine = Arc::clone(self);
            tokio::spawn(async move {
                let facts = Arc::new(engine.ask_named(&name, kind, shortest).await);
                if facts.expires > Instant::now() {
                    lock(&engine.cache).insert(key.clone(), Arc::clone(&facts));
                }
                for tell in lock(&engine.asking).remove(&key).unwrap_or_default() {
                    // Whoever asked may have gone away.
                    let _ = tell.send(Arc::clone(&facts));
                }
            });
        }
        told.await
            .unwrap_or_else(|_| Arc::new(Facts::passing(Found::Failed, Instant::now())))
    }

    async fn ask_named(&self, name: &str, kind: RecordType, shortest: Duration) -> Facts {
        let Ok(mut name) = Name::from_ascii(name) else {
            return Facts::failed(Instant::now(), shortest);
        };
        name.set_fqdn(true);
        match self.upstream.ask(&name, kind).await {
            Ok(message) => Facts::of(&message, &name, kind, Instant::now(), shortest),
            Err(error) => {
                self.complain(&error);
                Facts::failed(Instant::now(), SHORTEST)
            }
        }
    }

    /// Tells people, in bounded words, what agents can bring about as often as they like.
    fn complain(&self, error: &dyn std::error::Error) {
        let held_back = lock(&self.complaints).admit(Instant::now());
        match held_back {
            Some(0) => tracing::warn!("{error}"),
            Some(others) => {
                tracing::warn!("{error} ({others} more failures since the last one told)")
            }
            None => {}
        }
    }

    async fn pin(&self, wanted: Wanted) -> Result<(), PinError> {
        let left = wanted.until.saturating_duration_since(Instant::now());
        let pin = Pin {
            // Chosen by the link.
            id: 0,
            revision: wanted.revision,
            principal: wanted.principal,
            name: wanted.name.clone(),
            addresses: wanted.addresses.clone(),
            // Rounded up, and up once more for the way there.
            seconds: left.as_secs() as u32 + 2,
        };
        self.link.pin(pin).await?;
        let mut pinned = lock(&self.pinned);
        // Under the lock: whoever makes the epoch rise clears the table after that.
        if self.epoch.load(Ordering::Acquire) == wanted.epoch {
            let now = Instant::now();
            pinned.add(
                wanted.id,
                &wanted.name,
                &wanted.addresses,
                wanted.until,
                now,
            );
        }
        Ok(())
    }

    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The number of whoever asks, if it is known.
    pub fn principal(&self, asker: Asker) -> Option<u16> {
        match asker {
            Asker::Agent(source) => Some(self.rules.load().as_deref()?.agent(source)?.id()),
            Asker::Front => Some(Who::Front.id()),
        }
    }

    /// True if answers may hold addresses.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// From now on answers follow these rules.
    pub fn load(&self, rules: Rules) {
        lock(&self.events).set_facility(rules.facility);
        lock(&self.trail).set_when_full(rules.when_full);
        self.rules.store(Some(Arc::new(rules)));
        self.forget();
        self.ready.store(true, Ordering::Release);
    }

    /// There is no policy any more.
    pub fn unload(&self) {
        self.rules.store(None);
        self.forget();
    }

    /// The enforcer is gone: what it pinned may be gone too.
    pub fn enforcer_lost(&self) {
        self.ready.store(false, Ordering::Release);
        self.forget();
    }

    fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        lock(&self.pinned).forget();
        lock(&self.cache).clear();
    }

    pub fn set_standing(&self, over_cap: Vec<(String, String)>, clock_trusted: bool) {
        let mut names: HashMap<String, HashSet<String>> = HashMap::new();
        for (principal, pattern) in over_cap {
            names.entry(principal).or_default().insert(pattern);
        }
        self.standing.store(Arc::new(Standing {
            over_cap: names,
            clock_trusted,
        }));
    }

    pub fn set_blocked(&self, first: bool, all: bool, principals: Vec<String>) {
        let mut blocked = if first {
            Blocked::default()
        } else {
            Blocked::clone(&self.blocked.load())
        };
        blocked.all = all;
        blocked.principals.extend(principals);
        self.blocked.store(Arc::new(blocked));
    }

    pub(super) fn is_blocked(&self, principal: &str) -> bool {
        let blocked = self.blocked.load();
        blocked.all || blocked.principals.contains(principal)
    }

    /// The addresses of this box as the kernel has them now.
    pub fn set_own_addresses(&self, own: Vec<IpAddr>) {
        self.own.store(Arc::new(own));
    }
}
