//! Limits of the host that an agent is at: its rate, and its caps on names. The kernel counts by them, the gateway's flows
//! together with the host's own; here the enforcer is told which flow of this gateway is whose and for which name, before
//! anything of the agent goes out over it.
//!
//! Nothing is counted here. Whom the enforcer can't have counted reaches nothing that counts, and everything else.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use clawgress_link::counted::{self, Answer, Class, Leg, Question};
use clawgress_policy::Reason;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{Judge, Subject};
use crate::wire::target::Host;

/// For one answer: the kernel may be busy with a large ruleset.
const PATIENCE: Duration = Duration::from_secs(5);
/// While a revision comes into force the enforcer may know another one than this gateway, for a moment.
const AGAIN: Duration = Duration::from_millis(100);
const TRIES: usize = 10;

impl Judge {
    /// Where the enforcer hears what is to be counted. Without it nothing goes that counts.
    #[must_use]
    pub fn with_counter(mut self, socket: Option<PathBuf>) -> Self {
        self.counter = socket;
        self
    }

    /// What this counts as, by what is in force now. None: nobody counts it.
    fn class_of(&self, subject: &Subject) -> Option<Class> {
        let snapshot = self.snapshot.load();
        let name = match &subject.host {
            Host::Name(name) => Some(&**name),
            Host::Address(_) => None,
        };
        let index = &snapshot.as_ref()?.policy.index;
        let found = index.counted_on_proxy(subject.source, name)?;
        Some(Class {
            holder: found.holder.name.clone(),
            pattern: found.pattern.map(|pattern| pattern.as_str().to_owned()),
        })
    }

    /// Whether somebody's limits count this, or did at its beginning: its connection is for nothing else.
    pub fn is_counted(&self, subject: &Subject) -> bool {
        subject.counted.load().is_some() || self.class_of(subject).is_some()
    }

    /// Whether it is counted otherwise than it has to be by now.
    pub fn is_miscounted(&self, subject: &Subject) -> bool {
        let Some(wanted) = self.class_of(subject) else {
            return false;
        };
        leg(subject).is_some() && subject.counted.load().as_deref() != Some(&wanted)
    }

    /// Has it counted from now on, where limits count it; before it has a connection: whether anything is left of them.
    pub async fn count(&self, subject: &Subject) -> Result<(), Reason> {
        for _ in 0..TRIES {
            let Some(wanted) = self.class_of(subject) else {
                return Ok(());
            };
            let flow = leg(subject);
            match self.ask(subject, flow).await? {
                Answer::OverCap => return Err(Reason::OverCap),
                Answer::Counted(class) if class == wanted => {
                    if flow.is_none() {
                        return Ok(());
                    }
                    subject.counted.store(Some(Arc::new(class)));
                    // Changes that came meanwhile found nothing to be put right yet.
                    if !self.is_miscounted(subject) {
                        return Ok(());
                    }
                }
                _ => sleep(AGAIN).await,
            }
        }
        Err(Reason::Unavailable)
    }

    /// The kernel cuts what is over a cap without a word. None: that was not why.
    pub async fn why_broken(&self, subject: &Subject) -> Option<Reason> {
        subject.counted.load_full()?;
        let answer = self.ask(subject, None).await;
        (answer == Ok(Answer::OverCap)).then_some(Reason::OverCap)
    }

    async fn ask(&self, subject: &Subject, flow: Option<Leg>) -> Result<Answer, Reason> {
        let Some(socket) = &self.counter else {
            tracing::warn!(
                request_id = %subject.id,
                "limits count for {}, and the configuration names no counted_socket: denied", subject.source
            );
            return Err(Reason::Unavailable);
        };
        let question = Question {
            source: subject.source,
            name: match &subject.host {
                Host::Name(name) => Some(name.to_string()),
                Host::Address(_) => None,
            },
            flow,
        };
        counted::ask(socket, &question, PATIENCE)
            .await
            .map_err(|error| {
                tracing::warn!(request_id = %subject.id, "{error}; what can't be counted is denied");
                Reason::Unavailable
            })
    }
}

fn leg(subject: &Subject) -> Option<Leg> {
    *subject.leg.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Subject {
    /// The connection that it had is not its own any more.
    pub fn parted(&self) {
        *self.leg.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The connection that it has to its destination.
    pub fn connected(&self, stream: &TcpStream, remote: SocketAddr) -> io::Result<()> {
        let local = stream.local_addr()?;
        *self.leg.lock().unwrap_or_else(PoisonError::into_inner) = Some(Leg { local, remote });
        Ok(())
    }
}
