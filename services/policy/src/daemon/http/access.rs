//! Decides whether a call may be answered: the key in its body on the network, the user id on the console.
//!
//! Everything that is not clearly allowed is refused.

use std::{
    fmt,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use clawgress_link::admin::Role;

use crate::daemon::{
    clock,
    http::refusal::Refusal,
    keys::{Guesses, Keys},
};

/// Every wrong key costs its sender so much time.
const PENALTY: Duration = Duration::from_millis(250);

/// Who did something, for the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Actor {
    Key(String),
    Console(u32),
    /// Nobody in particular, on this very box, before the first key exists.
    Loopback,
    /// This service, when it starts with a configuration that no revision says yet.
    Boot,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Console(uid) => write!(f, "console:uid-{uid}"),
            Self::Loopback => f.write_str("loopback"),
            Self::Boot => f.write_str("boot"),
        }
    }
}

/// What a call needs its caller to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A key of any role; as long as there never was a key, loopback will do.
    Look,
    /// A key of any role.
    Key,
    Operator,
}

pub(crate) struct Access {
    pub(crate) keys: Keys,
    guesses: Mutex<Guesses>,
    console: Vec<u32>,
}

impl Access {
    /// `console` are the user ids that are answered on the unix socket, beside root.
    pub(crate) fn new(keys: Keys, console: Vec<u32>) -> Self {
        Self {
            keys,
            guesses: Mutex::default(),
            console,
        }
    }

    pub(crate) fn console(&self, uid: Option<u32>) -> Result<Actor, Refusal> {
        match uid {
            Some(uid) if uid == 0 || self.console.contains(&uid) => Ok(Actor::Console(uid)),
            _ => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "this socket answers root alone; run the command as root on the console",
            )),
        }
    }

    /// Refuses whoever has guessed too often, before anything of his call is read.
    pub(crate) fn not_guessing(&self, source: IpAddr) -> Result<(), Refusal> {
        let wait = self.guesses().wait(source, Instant::now());
        wait.map_or(Ok(()), |wait| {
            Err(Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong keys",
                format!(
                    "{source} sent too many wrong keys; no key from there is looked at for {} s",
                    wait.as_secs() + 1
                ),
            )
            .retry_after(wait.as_secs() + 1))
        })
    }

    pub(crate) async fn key(
        &self,
        source: IpAddr,
        key: Option<&str>,
        need: Need,
    ) -> Result<Actor, Refusal> {
        // Whatever key is sent then can be nobody's.
        if need == Need::Look && source.is_loopback() && !self.keys.were_ever_made() {
            return Ok(Actor::Loopback);
        }
        let Some(key) = key else {
            return Err(unauthorized(
                "this needs a \"key\"; one is made on the console with: clawgress key create",
            ));
        };
        self.not_guessing(source)?;
        let Some(holder) = self.keys.holder(key, clock::now()) else {
            self.guesses().wrong(source, Instant::now());
            tracing::warn!(%source, "a wrong key was sent");
            tokio::time::sleep(PENALTY).await;
            return Err(unauthorized(
                "this key is not known here, or was revoked; the console lists those in use with: clawgress key list",
            ));
        };
        if need == Need::Operator && holder.role != Role::Operator {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                format!(
                    "key {} is a {}'s; changing the policy takes an operator's",
                    holder.id,
                    holder.role.word()
                ),
            ));
        }
        Ok(Actor::Key(holder.id))
    }

    fn guesses(&self) -> std::sync::MutexGuard<'_, Guesses> {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unauthorized(reason: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_answers_root_and_whom_the_configuration_names() {
        let state = tempfile::tempdir().unwrap();
        let access = Access::new(Keys::open(state.path()).unwrap(), vec![1000]);
        assert_eq!(access.console(Some(0)).unwrap(), Actor::Console(0));
        assert_eq!(access.console(Some(1000)).unwrap(), Actor::Console(1000));
        for uid in [Some(1), Some(970), None] {
            assert_eq!(access.console(uid).unwrap_err().error(), "forbidden");
        }
    }

    #[tokio::test]
    async fn health_is_open_on_loopback_until_the_first_key_and_nothing_else_is() {
        let state = tempfile::tempdir().unwrap();
        let access = Access::new(Keys::open(state.path()).unwrap(), Vec::new());
        let (here, there) = ([127, 0, 0, 1].into(), [10, 0, 0, 9].into());
        assert_eq!(
            access.key(here, None, Need::Look).await.unwrap(),
            Actor::Loopback
        );
        assert!(access.key(there, None, Need::Look).await.is_err());
        for need in [Need::Key, Need::Operator] {
            assert!(access.key(here, None, need).await.is_err());
        }
        let key = access.keys.create("n", Role::Viewer, 1).unwrap();
        assert!(access.key(here, None, Need::Look).await.is_err());
        assert!(access.key(there, Some(&key.key), Need::Key).await.is_ok());
        let refusal = access
            .key(there, Some(&key.key), Need::Operator)
            .await
            .unwrap_err();
        assert!(
            refusal.reason().contains("is a viewer's"),
            "{}",
            refusal.reason()
        );
        access.keys.revoke(&key.about.id, 2).unwrap();
        assert!(access.key(here, None, Need::Look).await.is_err());
    }
}
