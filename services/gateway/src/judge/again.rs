//! Judges a flow again that is open already: by the same questions as at its beginning, on the snapshot of now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clawgress_identity::{Identity, Refusal};
use clawgress_policy::Reason;

use super::admit::{judge_subject, may_dial};
use super::{Judge, Subject};

/// Identities that were proved again in one round over all flows. To verify a chain of certificates takes longer than all
/// the rest; flows that one chain opened share an identity, and it is verified once for all of them.
#[derive(Debug, Default)]
pub struct Proved(HashMap<(usize, IpAddr), Proof>);

#[derive(Debug)]
struct Proof {
    /// Kept, so that its address is nobody else's meanwhile.
    _asked: Arc<Identity>,
    found: Result<Arc<Identity>, Refusal>,
}

impl Proved {
    /// How many there were to be proved.
    pub fn identities(&self) -> usize {
        self.0.len()
    }
}

impl Judge {
    /// Whether a flow may go on.
    pub fn judge_open(&self, subject: &Subject) -> Result<(), Reason> {
        self.judge_beside(subject, &mut Proved::default())
    }

    /// As `judge_open`, for one of many.
    pub fn judge_beside(&self, subject: &Subject, proved: &mut Proved) -> Result<(), Reason> {
        let snapshot = self.snapshot().ok_or(Reason::Unavailable)?;
        if !snapshot.policy.enabled {
            return Err(Reason::Unavailable);
        }
        let moment = self.moment(&snapshot);
        let key = (Arc::as_ptr(&subject.identity).addr(), subject.source);
        let proof = proved.0.entry(key).or_insert_with(|| Proof {
            _asked: Arc::clone(&subject.identity),
            found: snapshot
                .directory
                .renew(&subject.identity, subject.source, moment),
        });
        let identity = proof.found.as_ref().map_err(|refusal| match refusal {
            Refusal::Disabled => Reason::AgentDisabled,
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
        let decision = judge_subject(&snapshot, identity, subject, &[], moment);
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
            Some(address) => {
                let own = self.own().ok_or(Reason::Unavailable)?;
                may_dial(&snapshot, &own, identity, subject, *address, moment)
            }
            None => Ok(()),
        }
    }
}
