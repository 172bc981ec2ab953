//! CONNECT: from the request to a tunnel that runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use clawgress_policy::Reason;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Connection, Next, answer, fresh_id, shown, tunnel};
use crate::denial::Denial;
use crate::dial::{DialError, dial};
use crate::flows::{Cut, Flow, Listed};
use crate::judge::{Admission, Asked, End, Kind, Subject};
use crate::relay::Ended;
use crate::resolver::ResolveError;
use crate::wire::fields::{self, Framing, RequestFields};
use crate::wire::head::RequestHead;
use crate::wire::target::{Authority, Host};
use crate::worker::Worker;

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// A tunnel whose other side is reached.
pub(super) struct Opened {
    pub admission: Admission,
    pub listed: Listed,
    pub upstream: TcpStream,
    pub address: SocketAddr,
    pub connected: Instant,
}

/// None: the request was answered otherwise, and the connection goes on. Err: it is over.
pub(super) async fn open(
    worker: &Arc<Worker>,
    connection: &mut Connection,
    head: &RequestHead<'_>,
    found: &RequestFields<'_>,
) -> Result<Option<Opened>, ()> {
    let target = Authority::parse(head.target)
        .map_err(|error| Denial::malformed(&error))
        .and_then(|target| {
            if found.framing != Framing::None {
                return Err(Denial::malformed(&fields::FieldError::BodyOfTunnel));
            }
            fields::check_host(found.host, &target, None)
                .map_err(|error| Denial::malformed(&error))?;
            Ok(target)
        });
    let target = match target {
        Ok(target) => target,
        Err(denial) => {
            answer::refuse(worker, connection, &denial).await;
            return Err(());
        }
    };
    let asked = Asked {
        id: fresh_id(),
        source: connection.source,
        seat: &connection.place.seat,
        shown: shown(connection, found),
        host: &target.host,
        port: target.port,
        method: "CONNECT",
        path: None,
        tunnel: true,
        upgrade: false,
    };
    let id = asked.id;
    // What was sent ahead of an answer was meant for a tunnel that there will not be.
    let keep = found.keep_alive && connection.ahead.is_empty();
    let admission = match worker.judge.admit(asked).await {
        Ok(admission) => admission,
        Err(denial) => {
            let next = answer::deny(worker, connection, id, &denial, keep, false).await;
            return kept(&next);
        }
    };
    connection.place.known();
    let listed = worker.flows.list(Arc::clone(&admission.subject));
    let reached = reach(worker, &listed.flow).await;
    let (mut upstream, address) = match reached {
        Ok(reached) => reached,
        Err(denial) => {
            let next = answer::deny(worker, connection, id, &denial, keep, false).await;
            end_unreached(admission, &denial);
            return kept(&next);
        }
    };
    let connected = Instant::now();
    let told = timeout(worker.limits.head, connection.stream.write_all(ESTABLISHED));
    if !matches!(told.await, Ok(Ok(()))) {
        // Best effort: nobody is there any more.
        let _ = upstream.shutdown().await;
        admission.end(&End {
            kind: Kind::Allowed,
            reason: Some("agent-gone"),
            status: None,
            address: Some(address.ip()),
            bytes_out: 0,
            bytes_in: 0,
            connected: Some(connected),
        });
        return Err(());
    }
    Ok(Some(Opened {
        admission,
        listed,
        upstream,
        address,
        connected,
    }))
}

fn kept(next: &Next) -> Result<Option<Opened>, ()> {
    match next {
        Next::Again => Ok(None),
        Next::Close => Err(()),
    }
}

pub(super) fn end_unreached(admission: Admission, denial: &Denial) {
    admission.end(&End {
        kind: if denial.is_upstream() {
            Kind::Allowed
        } else {
            Kind::Denied
        },
        reason: Some(denial.word()),
        status: Some(denial.status()),
        address: None,
        bytes_out: 0,
        bytes_in: 0,
        connected: None,
    });
}

/// Resolves, judges each address, and dials what is left.
pub(super) async fn reach(worker: &Worker, flow: &Flow) -> Result<(TcpStream, SocketAddr), Denial> {
    let subject = &flow.subject;
    worker.judge.count(subject).await.map_err(Denial::of)?;
    let good = addresses(worker, subject).await?;
    let dialled = dial(&good, subject.port, worker.limits.connect).await;
    let (stream, address) = dialled.map_err(|error| {
        tracing::info!(request_id = %subject.id, host = %subject.host, "not reached: {error}");
        Denial::upstream("unreachable", matches!(error, DialError::Silent(_)))
    })?;
    subject.dialled.store(Some(Arc::new(address.ip())));
    if let Err(error) = subject.connected(&stream, address) {
        tracing::info!(request_id = %subject.id, host = %subject.host, "not reached: {error}");
        return Err(Denial::upstream("unreachable", false));
    }
    worker.judge.count(subject).await.map_err(Denial::of)?;
    // A change while it was being dialled found nothing to cut yet.
    match flow.is_cut() {
        Some(Cut::Denied(reason)) => Err(Denial::of(reason)),
        Some(_) => Err(Denial::of(Reason::Unavailable)),
        None => Ok((stream, address)),
    }
}

/// The addresses of the destination that may be dialled.
pub(super) async fn addresses(
    worker: &Worker,
    subject: &Subject,
) -> Result<Vec<std::net::IpAddr>, Denial> {
    // It is listed by now: what changed before, while it waited to be admitted, cut nothing.
    worker.judge.judge_open(subject).map_err(Denial::of)?;
    let judged = match &subject.host {
        Host::Name(name) => {
            let found = worker.resolver.addresses(name).await.map_err(|error| {
                Denial::upstream(Reason::Unresolved.word(), error == ResolveError::Silent)
            })?;
            worker.judge.addresses(subject, &found)
        }
        Host::Address(address) => worker.judge.addresses(subject, &[*address]),
    };
    judged.map_err(Denial::of)
}

/// Until the tunnel ends, and then the end of its event.
pub(super) async fn run(worker: &Arc<Worker>, connection: Connection, opened: Opened) {
    let Opened {
        admission,
        listed,
        upstream,
        address,
        connected,
    } = opened;
    let plain = admission.verdict.plain_tunnel;
    let Connection {
        stream,
        ahead,
        place,
        ..
    } = connection;
    let ended = tunnel::run(worker, &listed, stream, upstream, ahead, plain).await;
    let ended = explained(worker, &listed.flow, ended).await;
    finish(admission, &listed, &ended, 200, address, connected);
    drop(place);
}

/// A connection that has changed its protocol: what it carries now is not looked at.
pub(super) async fn run_upgraded(worker: &Arc<Worker>, connection: Connection, opened: Opened) {
    let Opened {
        admission,
        listed,
        upstream,
        address,
        connected,
    } = opened;
    let Connection { stream, place, .. } = connection;
    let ended = crate::relay::relay(stream, upstream, &listed.flow, &worker.pipes).await;
    let ended = explained(worker, &listed.flow, ended).await;
    finish(admission, &listed, &ended, 101, address, connected);
    drop(place);
}

/// A flow that breaks may have been cut by the kernel.
pub(super) async fn explained(worker: &Worker, flow: &Flow, ended: Ended) -> Ended {
    match ended {
        Ended::Broken(error) => match worker.judge.why_broken(&flow.subject).await {
            Some(reason) => Ended::Cut(Cut::Denied(reason)),
            None => Ended::Broken(error),
        },
        ended => ended,
    }
}

pub(super) fn finish(
    admission: Admission,
    listed: &Listed,
    ended: &Ended,
    status: u16,
    address: SocketAddr,
    connected: Instant,
) {
    let (bytes_out, bytes_in) = listed.flow.bytes();
    let (kind, reason) = match ended {
        Ended::Whole => (Kind::Allowed, None),
        Ended::Broken(_) => (Kind::Allowed, Some("broken")),
        Ended::Cut(Cut::Idle) => (Kind::Allowed, Some("idle")),
        Ended::Cut(Cut::Drained) => (Kind::Allowed, Some("drained")),
        Ended::Cut(Cut::Denied(reason)) => (Kind::Denied, Some(reason.word())),
    };
    admission.end(&End {
        kind,
        reason,
        status: Some(status),
        address: Some(address.ip()),
        bytes_out,
        bytes_in,
        connected: Some(connected),
    });
}
