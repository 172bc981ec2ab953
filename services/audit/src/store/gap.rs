//! Gaps: what of an event shows whether its queue goes on without one, and the notice that tells of one.

use serde::Deserialize;

use super::OWN;
use crate::event::{Decision, Text};

/// Why a notice tells that events of a queue are not in the store: `path` names the queue, `folded` says how many.
pub(crate) const MISSING: &str = "missing";

/// What of a line counts here.
#[derive(Debug, Deserialize)]
pub(crate) struct Facts<'a> {
    #[serde(borrow)]
    gateway: Text<'a>,
    #[serde(borrow)]
    queue: Text<'a>,
    pub(crate) sequence: u64,
    decision: Decision,
    #[serde(borrow, default)]
    reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    path: Option<Text<'a>>,
    #[serde(default)]
    folded: Option<u64>,
}

impl Facts<'_> {
    pub(crate) fn of_queue(&self) -> String {
        format!("{}/{}", self.gateway, self.queue)
    }

    /// The queue of which so many are missing before its next event. Only the store itself can say so.
    pub(crate) fn missing(&self) -> Option<(&str, u64)> {
        let told = self.gateway == OWN
            && self.decision == Decision::Notice
            && self.reason.as_deref() == Some(MISSING);
        told.then_some((self.path.as_deref()?, self.folded?))
    }
}
