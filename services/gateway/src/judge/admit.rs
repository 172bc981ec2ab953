//! Whether a request may go, in one order for every form of request: who, what, how much, and then written down.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use clawgress_audit::queue::Ticket;
use clawgress_identity::{Identity, Presented, Refusal, presented_of_header};
use clawgress_policy::{self as policy, Decision, Reason};
use clawgress_quota::{self as quota, Ledger, Reservation};
use rustls::pki_types::CertificateDer;

use super::agents::{Open, Seat};
use super::events::begun;
use super::folded::Kind;
use super::{Judge, Own, Snapshot, Subject, now_ns};
use crate::denial::Denial;
use crate::metrics::Metrics;
use crate::request_id::RequestId;
use crate::wire::target::Host;

/// A request, as far as it has been read.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub id: RequestId,
    pub source: IpAddr,
    /// Of the connection that it came over.
    pub seat: &'a Seat,
    pub shown: Shown<'a>,
    pub host: &'a Host,
    pub port: u16,
    pub method: &'a str,
    /// Canonical. None: it can't be seen.
    pub path: Option<&'a str>,
    pub tunnel: bool,
    /// It wants to change its protocol.
    pub upgrade: bool,
}

/// What a request shows of who it is. A header says more than the connection it came over.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    pub header: Option<&'a [u8]>,
    pub certificates: Option<&'a [CertificateDer<'static>]>,
}

/// A request that may go. Dropped without an end, its event says that it was interrupted.
pub struct Admission {
    pub subject: Arc<Subject>,
    pub verdict: Verdict,
    pub(super) ticket: Ticket,
    pub(super) ledger: Arc<Ledger>,
    pub(super) metrics: Arc<Metrics>,
    /// A quota had it wait.
    pub(super) delayed: bool,
    pub began: Instant,
}

/// What was decided, kept beyond the snapshot that it was decided on.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub policy_id: Box<str>,
    pub label: Option<Box<str>>,
    pub plain_tunnel: bool,
}

impl Judge {
    pub async fn admit(&self, asked: Asked<'_>) -> Result<Admission, Denial> {
        let began = Instant::now();
        let current = self.snapshot();
        let Some(snapshot) = current.as_ref().filter(|now| now.policy.enabled) else {
            let denial = Denial::of(Reason::Unavailable);
            self.record_denial(current.as_deref(), &asked, None, None, &denial);
            return Err(denial);
        };
        let moment = self.moment(snapshot);
        let identity = match identify(snapshot, &asked, moment) {
            Ok(identity) => identity,
            Err(refusal) => {
                let denial = Denial::without_identity(refusal.word());
                self.record_denial(Some(snapshot), &asked, None, None, &denial);
                return Err(denial);
            }
        };
        if self.blocked.load().holds(&identity.agent_id) {
            let denial = Denial::of(Reason::Blocked);
            self.record_denial(Some(snapshot), &asked, Some(&identity), None, &denial);
            return Err(denial);
        }
        let decision = decide(snapshot, &identity, &asked, &[], moment);
        if let Some(denial) = denial_of(&decision, asked.upgrade) {
            let who = Some(&*identity);
            self.record_denial(Some(snapshot), &asked, who, Some(&decision), &denial);
            return Err(denial);
        }
        let (reservation, open, wait) = match self.reserve(snapshot, &identity, asked.seat) {
            Ok(reserved) => reserved,
            Err(denial) => {
                let who = Some(&*identity);
                self.record_denial(Some(snapshot), &asked, who, Some(&decision), &denial);
                return Err(denial);
            }
        };
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        let event = begun(Some(snapshot), &asked, Some(&identity), Some(&decision));
        let ticket = match self.queue.begin_durably(&event).await {
            Ok(ticket) => ticket,
            Err(refused) => {
                tracing::warn!(request_id = %asked.id, agent_id = %identity.agent_id, "recording a request: {refused}");
                let denial = Denial::of(Reason::Unavailable);
                self.metrics.denied(denial.word());
                self.fold(Some(&identity), &asked, Kind::Queue, &denial);
                return Err(denial);
            }
        };
        let verdict = Verdict {
            policy_id: decision.policy_id.into(),
            label: decision.label.map(Into::into),
            plain_tunnel: decision.plain_tunnel,
        };
        let subject = Arc::new(Subject {
            id: asked.id,
            identity,
            source: asked.source,
            host: asked.host.clone(),
            port: asked.port,
            method: asked.method.into(),
            path: asked.path.map(Into::into),
            tunnel: asked.tunnel,
            plain: AtomicBool::new(false),
            upgraded: asked.upgrade,
            dialled: ArcSwapOption::empty(),
            leg: Mutex::default(),
            counted: ArcSwapOption::empty(),
            reservation,
            settled: AtomicU64::new(0),
            _open: open,
        });
        Ok(Admission {
            subject,
            verdict,
            ticket,
            ledger: Arc::clone(&self.ledger),
            metrics: Arc::clone(&self.metrics),
            delayed: wait.is_some(),
            began,
        })
    }

    /// How much: of this gateway's connections, and of the quotas.
    fn reserve(
        &self,
        snapshot: &Snapshot,
        identity: &Identity,
        seat: &Seat,
    ) -> Result<(Reservation, Arc<Open>, Option<Duration>), Denial> {
        let most = snapshot.policy.settings.connections_per_agent;
        let open = seat
            .take(&self.agents, &identity.agent_id, most)
            .ok_or_else(|| Denial::over_quota("connections-per-agent", Duration::from_secs(1)))?;
        let subject = quota::Subject {
            agent: &identity.agent_id,
            team: &identity.team_id,
            project: &identity.project_id,
        };
        match self.ledger.reserve(&subject, now_ns()) {
            quota::Outcome::Admit(reservation) => Ok((reservation, open, None)),
            quota::Outcome::Delay(wait, reservation) => Ok((reservation, open, Some(wait))),
            quota::Outcome::Refuse { retry_after, limit } => {
                Err(Denial::over_quota(limit, retry_after))
            }
        }
    }

    /// Which of a name's addresses may be dialled; none is a denial. Rules that deny networks see them here.
    pub fn addresses(&self, subject: &Subject, resolved: &[IpAddr]) -> Result<Vec<IpAddr>, Reason> {
        let Some(snapshot) = self.snapshot() else {
            return Err(Reason::Unavailable);
        };
        let moment = self.moment(&snapshot);
        let own = self.own().ok_or(Reason::Unavailable)?;
        let mut reason = Reason::Unresolved;
        let mut good = Vec::with_capacity(resolved.len());
        for address in resolved {
            let who = &subject.identity;
            match may_dial(&snapshot, &own, who, subject, *address, moment) {
                Ok(()) => good.push(*address),
                Err(why) => reason = why,
            }
        }
        if good.is_empty() {
            Err(reason)
        } else {
            Ok(good)
        }
    }
}

fn identify(
    snapshot: &Snapshot,
    asked: &Asked<'_>,
    moment: policy::Moment,
) -> Result<Arc<Identity>, Refusal> {
    let resolve =
        |presented: &Presented<'_>| snapshot.directory.resolve(presented, asked.source, moment);
    match (asked.shown.header, asked.shown.certificates) {
        (Some(value), _) => resolve(&presented_of_header(value)?.presented()),
        (None, Some(chain)) => resolve(&Presented::Certificate(chain)),
        (None, None) => Err(Refusal::NoCredential),
    }
}

fn decide<'s>(
    snapshot: &'s Snapshot,
    identity: &Identity,
    asked: &Asked<'_>,
    resolved: &[IpAddr],
    moment: policy::Moment,
) -> Decision<'s> {
    let request = request(identity, asked.source, asked.host, asked.port, resolved);
    let request = policy::Request {
        method: Some(asked.method),
        path: asked.path,
        tunnel: asked.tunnel,
        ..request
    };
    snapshot
        .policy
        .rules
        .decide(&snapshot.policy.index, &request, moment)
}

fn request<'r>(
    identity: &'r Identity,
    source: IpAddr,
    host: &'r Host,
    port: u16,
    resolved: &'r [IpAddr],
) -> policy::Request<'r> {
    policy::Request {
        agent_id: &identity.agent_id,
        team_id: &identity.team_id,
        project_id: &identity.project_id,
        environment: &identity.environment,
        source,
        host: match host {
            Host::Name(name) => policy::Host::Name(name),
            Host::Address(address) => policy::Host::Address(*address),
        },
        port,
        method: None,
        path: None,
        tunnel: false,
        resolved,
    }
}

/// As a flow's subject is judged, whatever it was admitted by.
pub(super) fn judge_subject<'s>(
    snapshot: &'s Snapshot,
    identity: &Identity,
    subject: &Subject,
    resolved: &[IpAddr],
    moment: policy::Moment,
) -> Decision<'s> {
    let request = request(
        identity,
        subject.source,
        &subject.host,
        subject.port,
        resolved,
    );
    let request = policy::Request {
        method: Some(&subject.method),
        path: subject.path.as_deref(),
        tunnel: subject.tunnel,
        ..request
    };
    snapshot
        .policy
        .rules
        .decide(&snapshot.policy.index, &request, moment)
}

pub(super) fn may_dial(
    snapshot: &Snapshot,
    own: &Own,
    identity: &Identity,
    subject: &Subject,
    address: IpAddr,
    moment: policy::Moment,
) -> Result<(), Reason> {
    if snapshot.policy.is_near(address, own) || snapshot.policy.is_unnamed_inside(address) {
        return Err(Reason::PrivateAddress);
    }
    let decision = judge_subject(snapshot, identity, subject, &[address], moment);
    if !decision.allowed {
        return Err(decision.reason.unwrap_or(Reason::Revised));
    }
    // What is named inside may be reached by whom that name is for, and not by a name that merely leads there.
    if clawgress_policy::address::is_inside(address) && matches!(subject.host, Host::Name(_)) {
        let literal = Host::Address(address);
        let request = policy::Request {
            method: Some(&subject.method),
            path: subject.path.as_deref(),
            tunnel: subject.tunnel,
            ..request(identity, subject.source, &literal, subject.port, &[])
        };
        if !snapshot
            .policy
            .rules
            .decide(&snapshot.policy.index, &request, moment)
            .allowed
        {
            return Err(Reason::PrivateAddress);
        }
    }
    Ok(())
}

fn denial_of(decision: &Decision<'_>, wants_upgrade: bool) -> Option<Denial> {
    let reason = if !decision.allowed {
        decision.reason.unwrap_or(Reason::NotAllowlisted)
    } else if wants_upgrade && !decision.upgrade {
        Reason::Protocol
    } else {
        return None;
    };
    Some(Denial::of(reason).by(decision.policy_id, decision.label))
}
