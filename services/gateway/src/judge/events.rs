//! What is written down of a request: one event, begun before anything leaves and ended when it is over.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Instant;

use clawgress_audit::event::{Begun, Decision as Decided, Micros, Outcome, Source};
use clawgress_config::access::AuthType;
use clawgress_identity::Identity;
use clawgress_policy::Decision;

use super::{Admission, Asked, Judge, Snapshot, settle, since_1970};
use crate::denial::Denial;
use crate::wire::target::Host;

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    pub kind: Kind,
    /// A word, where there is more to say than that all went well.
    pub reason: Option<&'a str>,
    pub status: Option<u16>,
    pub address: Option<IpAddr>,
    pub bytes_out: u64,
    pub bytes_in: u64,
    /// When the other side was reached.
    pub connected: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Allowed,
    /// Admitted, and then denied by what only showed later (address, hello, change of policy).
    Denied,
}

impl Snapshot {
    /// What is known of a request before anything is done about it.
    pub(super) fn begun<'e>(
        &self,
        asked: &Asked<'e>,
        identity: Option<&'e Identity>,
        decision: Option<&Decision<'e>>,
    ) -> Begun<'e> {
        Begun {
            timestamp: timestamp(),
            request_id: Cow::Owned(asked.id.to_string()),
            source: Source::Proxy,
            agent_id: identity.map(|who| Cow::Borrowed(&*who.agent_id)),
            team_id: identity.map(|who| Cow::Borrowed(&*who.team_id)),
            project_id: identity.map(|who| Cow::Borrowed(&*who.project_id)),
            environment: identity.map(|who| Cow::Borrowed(&*who.environment)),
            auth_type: identity.map(|who| Cow::Borrowed(auth_word(who.auth_type))),
            credential: identity.map(|who| Cow::Borrowed(&*who.credential.0)),
            workload_fingerprint: identity
                .and_then(|who| who.workload_fingerprint.as_deref())
                .map(Cow::Borrowed),
            client_address: Some(Cow::Owned(asked.source.to_string())),
            destination_host: Some(match asked.host {
                Host::Name(name) => Cow::Borrowed(&**name),
                Host::Address(address) => Cow::Owned(address.to_string()),
            }),
            destination_port: Some(asked.port),
            path: asked.path.map(Cow::Borrowed),
            http_method: Some(Cow::Borrowed(asked.method)),
            policy_id: decision.map(|decision| Cow::Borrowed(decision.policy_id)),
            policy_version: decision.map(|decision| decision.version),
            revision: Some(self.policy.revision),
            enforcement_mode: decision.map(|decision| {
                Cow::Borrowed(if decision.would_deny.is_some() {
                    "report"
                } else {
                    "enforce"
                })
            }),
            enforce_would_deny: decision
                .and_then(|decision| decision.would_deny)
                .map(Cow::Borrowed),
            label: decision
                .and_then(|decision| decision.label)
                .map(Cow::Borrowed),
            alert: decision.is_some_and(|decision| decision.alert),
        }
    }
}

impl Judge {
    /// A denial stands whether or not it can be written down; that it could not is told.
    pub(super) fn record_denial(
        &self,
        snapshot: &Snapshot,
        asked: &Asked<'_>,
        identity: Option<&Identity>,
        decision: Option<&Decision<'_>>,
        denial: &Denial,
    ) {
        let begun = snapshot.begun(asked, identity, decision);
        let outcome = Outcome {
            decision: Decided::Deny,
            reason: Some(Cow::Borrowed(denial.word())),
            status: Some(denial.status()),
            quota_applied: denial.limit().map(Cow::Borrowed),
            ..Outcome::default()
        };
        if let Err(refused) = self.queue.whole(&begun, &outcome) {
            tracing::warn!("recording a denial: {refused}");
        }
    }
}

impl Admission {
    /// Ends the request's event.
    pub fn end(self, end: &End<'_>) {
        // What is beyond a quota is refused the next request; this one is over.
        let _ = settle(&self.ledger, &self.subject, end.bytes_out + end.bytes_in);
        let latency = end
            .connected
            .map(|at| at.duration_since(self.began).as_secs_f64() * 1e3);
        let applied = self
            .subject
            .reservation
            .over()
            .or(self.delayed.then_some("soft-stop"));
        self.ticket.end(&Outcome {
            quota_applied: applied.map(Cow::Borrowed),
            decision: match end.kind {
                Kind::Allowed => Decided::Allow,
                Kind::Denied => Decided::Deny,
            },
            reason: end.reason.map(Cow::Borrowed),
            status: end.status,
            destination_address: end.address.map(|address| Cow::Owned(address.to_string())),
            latency_ms: latency,
            bytes_out: Some(end.bytes_out),
            bytes_in: Some(end.bytes_in),
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).ok(),
            ..Outcome::default()
        });
    }
}

fn auth_word(kind: AuthType) -> &'static str {
    match kind {
        AuthType::ApiKey => "api_key",
        AuthType::Jwt => "jwt",
        AuthType::Certificate => "certificate",
    }
}

fn timestamp() -> Micros {
    Micros(i64::try_from(since_1970().as_micros()).unwrap_or(i64::MAX))
}
