//! The audit trail of flows: each that the kernel or the front denied, and each that ended, with who and why. What is
//! told here has happened: the kernel judges packets by itself. What does not fit into the queue is counted, and told
//! when there is room again.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::Path;

use clawgress_audit::event::{Begun, Decision, Micros, Outcome, Source};
use clawgress_audit::queue::{OpenError, Queue, Reader, Refused, Settings, WhenFull};
use clawgress_policy::{Host, Principal, Reason};

use super::config::Audit;
use super::shared::InForce;

/// What the audit service calls this queue.
pub(super) const SHIPPER: &str = "enforcer";

pub(super) struct Trail(Queue);

/// A flow, as far as whoever tells of it knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) source: Source,
    /// The principal's name; empty: nobody's.
    pub(super) principal: &'a str,
    pub(super) client: IpAddr,
    pub(super) name: Option<&'a str>,
    pub(super) address: Option<IpAddr>,
    pub(super) port: Option<u16>,
    pub(super) request_id: Option<&'a str>,
    /// None: it was let through.
    pub(super) reason: Option<Reason>,
    /// From the agent, and to it.
    pub(super) bytes: Option<(u64, u64)>,
    pub(super) lasted_ms: Option<u64>,
    pub(super) status: Option<u16>,
}

impl Trail {
    pub(super) fn open(directory: &Path, audit: &Audit) -> Result<Self, OpenError> {
        let settings = Settings {
            when_full: WhenFull::DropCounted,
            max_bytes: audit.queue_bytes,
            share_per_agent: audit.queue_bytes_per_agent,
            ..Settings::default()
        };
        Queue::open(directory, settings).map(Self)
    }

    /// For whoever ships it.
    pub(super) fn reader(&self) -> Reader {
        self.0.reader()
    }

    pub(super) fn tell(&self, in_force: Option<&InForce>, told: &Told<'_>) {
        if let Err(error) = self.record(in_force, told) {
            tracing::warn!(
                "a flow of {} is not on the audit trail: {error}",
                told.principal
            );
        }
    }

    fn record(&self, in_force: Option<&InForce>, told: &Told<'_>) -> Result<(), Refused> {
        let index = in_force.map(|in_force| &*in_force.index);
        let who = index.and_then(|index| index.by_name(told.principal));
        let decision = in_force
            .zip(who)
            .and_then(|(in_force, who)| decided(in_force, who, told));
        let agent = who.and_then(|who| who.agent.as_deref());
        let text = |text: &'_ str| Some(Cow::Owned(text.to_owned()));
        let would_deny = decision.and_then(|decision| decision.would_deny);
        let begun = Begun {
            timestamp: Micros::now(),
            request_id: Cow::Borrowed(told.request_id.unwrap_or_default()),
            source: told.source,
            agent_id: Some(told.principal)
                .filter(|name| !name.is_empty())
                .map(Cow::Borrowed),
            team_id: agent.and_then(|agent| text(&agent.team_id)),
            project_id: agent.and_then(|agent| text(&agent.project_id)),
            environment: agent.and_then(|agent| text(&agent.environment)),
            client_address: text(&told.client.to_string()),
            destination_host: told.name.map(Cow::Borrowed),
            destination_port: told.port,
            policy_id: decision.map(|decision| Cow::Borrowed(decision.policy_id)),
            policy_version: decision.map(|decision| decision.version),
            revision: index.map(clawgress_policy::Index::revision),
            enforcement_mode: text(if would_deny.is_some() {
                "report"
            } else {
                "enforce"
            }),
            enforce_would_deny: would_deny.map(Cow::Borrowed),
            label: decision
                .and_then(|decision| decision.label)
                .map(Cow::Borrowed),
            alert: decision.is_some_and(|decision| decision.alert),
            ..Begun::default()
        };
        let outcome = Outcome {
            decision: match told.reason {
                None => Decision::Allow,
                Some(_) => Decision::Deny,
            },
            reason: told.reason.map(|reason| Cow::Borrowed(reason.word())),
            status: told.status.filter(|status| *status != 0),
            destination_address: told.address.and_then(|address| text(&address.to_string())),
            bytes_out: told.bytes.map(|(out, _)| out),
            bytes_in: told.bytes.map(|(_, back)| back),
            duration_ms: told.lasted_ms,
            ..Outcome::default()
        };
        self.0.whole(&begun, &outcome)
    }
}

/// The rule or list that the present revision decides such a flow by; None where that is not what was decided then.
fn decided<'i>(
    in_force: &'i InForce,
    who: &Principal,
    told: &Told<'_>,
) -> Option<clawgress_policy::Decision<'i>> {
    let host = match (told.name, told.address) {
        (Some(name), _) => Host::Name(name),
        (None, Some(address)) => Host::Address(address),
        (None, None) => return None,
    };
    let resolved: &[IpAddr] = match (&told.address, told.name) {
        (Some(address), Some(_)) => std::slice::from_ref(address),
        _ => &[],
    };
    let index = &in_force.index;
    let decision = index.decide_unseen(who, host, told.port?, resolved, in_force.moment);
    (decision.allowed == told.reason.is_none()).then_some(decision)
}
