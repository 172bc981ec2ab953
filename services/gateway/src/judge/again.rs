//! Judges a flow again that is open already: by the same questions as at its beginning, on the snapshot of now.

use std::sync::atomic::Ordering;

use clawgress_policy::Reason;

use super::admit::{judge_subject, may_dial};
use super::{Judge, Subject};

impl Judge {
    /// Whether a flow may go on.
    pub fn judge_open(&self, subject: &Subject) -> Result<(), Reason> {
        let snapshot = self.snapshot().ok_or(Reason::Unavailable)?;
        if !snapshot.policy.enabled {
            return Err(Reason::Unavailable);
        }
        let moment = self.moment(&snapshot);
        let identity = snapshot
            .directory
            .renew(&subject.identity, subject.source, moment)
            .map_err(|refusal| match refusal {
                clawgress_identity::Refusal::Disabled => Reason::AgentDisabled,
                _ => Reason::NoIdentity,
            })?;
        // A key that was rotated away, a token whose time is over.
        if identity
            .expires
            .is_some_and(|expires| moment.now >= expires)
        {
            return Err(Reason::NoIdentity);
        }
        if self.blocked.load().holds(&identity.agent_id) {
            return Err(Reason::Blocked);
        }
        let decision = judge_subject(&snapshot, &identity, subject, &[], moment);
        if !decision.allowed {
            return Err(decision.reason.unwrap_or(Reason::Revised));
        }
        if subject.plain.load(Ordering::Relaxed) && !decision.plain_tunnel {
            return Err(Reason::NotTls);
        }
        if subject.upgraded && !decision.upgrade {
            return Err(Reason::Protocol);
        }
        match subject.dialled.load().as_deref() {
            Some(address) => may_dial(&snapshot, &identity, subject, *address, moment),
            None => Ok(()),
        }
    }
}
