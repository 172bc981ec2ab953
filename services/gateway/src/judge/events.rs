//! What is written down of a request: one event, begun before anything leaves and ended when it is over.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Instant;

use clawgress_audit::event::{Begun, Decision as Decided, Micros, Outcome, Source};
use clawgress_config::access::AuthType;
use clawgress_identity::Identity;
use clawgress_policy::{Decision, Reason};

use super::folded::{Kind as Folding, Unread};
use super::{Admission, Asked, Judge, Snapshot, settle, since_1970};
use crate::denial::Denial;
use crate::request_id::RequestId;
use crate::wire::target::Host;

/// There are as many connections as there may be, of all or of one source.
const TURNED_AWAY: &str = "connections";

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

/// What is known of a request before anything is done about it.
pub(super) fn begun<'e>(
    snapshot: Option<&Snapshot>,
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
        revision: snapshot.map(|snapshot| snapshot.policy.revision),
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

impl Judge {
    /// A denial stands whether or not it can be written down now; what the queue has no room for is counted and told later.
    pub(super) fn record_denial(
        &self,
        snapshot: Option<&Snapshot>,
        asked: &Asked<'_>,
        identity: Option<&Identity>,
        decision: Option<&Decision<'_>>,
        denial: &Denial,
    ) {
        self.metrics.denied(denial.word());
        // Who has no identity could fill the log as fast as the network.
        if let Some(who) = identity {
            tracing::info!(
                request_id = %asked.id,
                client = %asked.source,
                agent_id = &*who.agent_id,
                host = %asked.host,
                port = asked.port,
                reason = denial.word(),
                "denied"
            );
        }
        let begun = begun(snapshot, asked, identity, decision);
        let outcome = Outcome {
            decision: Decided::Deny,
            reason: Some(Cow::Borrowed(denial.word())),
            status: Some(denial.status()),
            quota_applied: denial.limit().map(Cow::Borrowed),
            ..Outcome::default()
        };
        if self.queue.whole(&begun, &outcome).is_err() {
            self.fold(identity, asked, Folding::Queue, denial);
        }
    }

    /// A denial for which the queue has no room of its own.
    pub(super) fn fold(
        &self,
        identity: Option<&Identity>,
        asked: &Asked<'_>,
        kind: Folding,
        denial: &Denial,
    ) {
        self.note(&Unread {
            kind,
            id: asked.id,
            source: asked.source,
            reason: Cow::Borrowed(denial.word()),
            status: Some(denial.status()),
            credential: identity.map(|who| &*who.credential.0),
        });
    }

    /// A request that could not be understood: who sent it and what was wrong, and no guess at what it meant.
    pub fn record_malformed(&self, id: RequestId, source: IpAddr, denial: &Denial) {
        self.metrics.denied(Reason::MalformedRequest.word());
        self.note(&Unread {
            kind: Folding::Malformed,
            id,
            source,
            reason: Cow::Borrowed(denial.word()),
            status: Some(denial.status()),
            credential: None,
        });
    }

    /// A connection for which there was no place.
    pub fn record_turned_away(&self, source: IpAddr) {
        self.metrics.denied(TURNED_AWAY);
        self.note(&Unread {
            kind: Folding::Connections,
            id: RequestId::fresh(),
            source,
            reason: Cow::Borrowed(TURNED_AWAY),
            status: None,
            credential: None,
        });
    }

    pub(super) fn record_jump(&self, seconds: i64) {
        let begun = Begun {
            timestamp: timestamp(),
            request_id: Cow::Owned(RequestId::fresh().to_string()),
            source: Source::Admin,
            revision: self.revision(),
            alert: true,
            ..Begun::default()
        };
        let outcome = Outcome {
            decision: Decided::Notice,
            reason: Some(Cow::Owned(format!("clock-jump: {seconds} s"))),
            ..Outcome::default()
        };
        if let Err(refused) = self.queue.whole(&begun, &outcome) {
            tracing::error!("recording that the clock was set by {seconds} s: {refused}");
        }
    }

    fn note(&self, unread: &Unread<'_>) {
        self.folded.note(&self.queue, self.revision(), unread);
    }

    /// To be called once a second, and before the end.
    pub fn tell_folded(&self) {
        self.folded.tell(&self.queue, self.revision());
    }

    fn revision(&self) -> Option<u64> {
        let snapshot = self.snapshot.load();
        snapshot.as_ref().map(|snapshot| snapshot.policy.revision)
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
        match end.kind {
            Kind::Allowed => self.metrics.allowed(end.reason, latency),
            Kind::Denied => self.metrics.denied(end.reason.unwrap_or_default()),
        }
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

pub(super) fn timestamp() -> Micros {
    Micros(i64::try_from(since_1970().as_micros()).unwrap_or(i64::MAX))
}
