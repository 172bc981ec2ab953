//! A plain HTTP request: judged, sent on in one plain form, its answer brought back.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use clawgress_policy::{Reason, canonical_path};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::body::BodyError;
use super::connect::{Opened, addresses, end_unreached, explained, finish, reach};
use super::exchange::{Answered, Exchange, Failed, Fault, exchange};
use super::tunnel::{Stopped, guarded};
use super::{Connection, Next, answer, fresh_id, rewrite, shown};
use crate::denial::Denial;
use crate::flows::{Cut, Listed};
use crate::judge::{Admission, Asked, End, Kind};
use crate::pool::Key;
use crate::relay::Ended;
use crate::stream::sever;
use crate::wire::fields::{self, Framing, RequestFields};
use crate::wire::head::RequestHead;
use crate::wire::target::Absolute;
use crate::worker::Worker;

pub(super) enum Done {
    Next(Next),
    Upgraded(Box<Opened>),
}

/// A request that may go, in the form in which it goes.
struct Ready<'r> {
    admission: Admission,
    listed: Listed,
    head: Vec<u8>,
    key: Key,
    fields: &'r RequestFields<'r>,
}

pub(super) async fn serve(
    worker: &Arc<Worker>,
    connection: &mut Connection,
    head: &RequestHead<'_>,
    found: &RequestFields<'_>,
) -> Done {
    let target = Absolute::parse(head.target)
        .map_err(|error| Denial::malformed(&error))
        .and_then(|target| {
            fields::check_host(found.host, &target.authority, Some(80))
                .map_err(|error| Denial::malformed(&error))?;
            let path = canonical_path(target.path()).map_err(|error| Denial::malformed(&error))?;
            Ok((target, path))
        });
    let (target, path) = match target {
        Ok(target) => target,
        Err(denial) => {
            answer::refuse(worker, connection, &denial).await;
            return Done::Next(Next::Close);
        }
    };
    let websocket = found
        .upgrade
        .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    // Every other protocol is left out: a server may do without, and none of them could be judged.
    let fields = RequestFields {
        upgrade: found.upgrade.filter(|_| websocket),
        ..*found
    };
    let asked = Asked {
        id: fresh_id(),
        source: connection.source,
        seat: &connection.place.seat,
        shown: shown(connection, &fields),
        host: &target.authority.host,
        port: target.authority.port,
        method: head.method,
        path: Some(&path),
        tunnel: false,
        upgrade: websocket,
    };
    let id = asked.id;
    let keep = fields.keep_alive && fields.framing == Framing::None;
    let without_body = head.method == "HEAD";
    let admission = match worker.judge.admit(asked).await {
        Ok(admission) => admission,
        Err(denial) => {
            return Done::Next(
                answer::deny(worker, connection, id, &denial, keep, without_body).await,
            );
        }
    };
    connection.place.known();
    let ready = Ready {
        key: Key {
            agent: Arc::clone(&admission.subject.identity.agent_id),
            host: target.authority.host.clone(),
            port: target.authority.port,
        },
        // What was judged is what is sent; the query was not judged, and is sent as it came.
        head: rewrite::request(head, &fields, &target.authority, &sent_path(&path, &target)),
        listed: worker.flows.list(Arc::clone(&admission.subject)),
        admission,
        fields: &fields,
    };
    pass_on(worker, connection, head, ready).await
}

fn sent_path<'p>(path: &'p str, target: &Absolute<'p>) -> Cow<'p, str> {
    match target.path_and_query.split_once('?') {
        None => Cow::Borrowed(path),
        Some((_, query)) => Cow::Owned(format!("{path}?{query}")),
    }
}

async fn pass_on(
    worker: &Arc<Worker>,
    connection: &mut Connection,
    head: &RequestHead<'_>,
    ready: Ready<'_>,
) -> Done {
    let fields = ready.fields;
    let request = Exchange {
        head: &ready.head,
        headers: &head.headers,
        method: head.method,
        framing: fields.framing,
        version: head.version,
        keep_alive: fields.keep_alive && !worker.is_draining(),
        upgrade: fields.upgrade,
        patience: worker.limits.answer,
    };
    // A request that may be repeated is, once, if a kept connection turns out to be dead.
    let repeatable =
        fields.framing == Framing::None && matches!(head.method, "GET" | "HEAD" | "OPTIONS");
    let mut fresh_only = false;
    loop {
        let (mut server, address, kept) =
            match server_for(worker, &ready, repeatable && !fresh_only).await {
                Ok(server) => server,
                Err(denial) => {
                    let keep = fields.keep_alive && fields.framing == Framing::None;
                    let next = answer::deny(
                        worker,
                        connection,
                        ready.admission.subject.id,
                        &denial,
                        keep,
                        head.method == "HEAD",
                    )
                    .await;
                    end_unreached(ready.admission, &denial);
                    return Done::Next(next);
                }
            };
        let connected = Instant::now();
        let flow = &ready.listed.flow;
        let done = exchange(
            &request,
            &mut connection.stream,
            &mut connection.ahead,
            &mut server,
            flow,
        )
        .await;
        match done {
            Ok(answered) if answered.upgraded.is_some() => {
                return upgraded(
                    worker, connection, ready, server, address, connected, answered,
                )
                .await;
            }
            Ok(answered) => {
                let is_counted = worker.judge.is_counted(&ready.admission.subject);
                end(
                    ready.admission,
                    &ready.listed,
                    Kind::Allowed,
                    None,
                    Some(answered.status),
                    address,
                    connected,
                );
                if answered.server_stays && !is_counted {
                    worker.pool.put(ready.key, server, address);
                }
                return Done::Next(if answered.agent_stays {
                    Next::Again
                } else {
                    close(connection).await
                });
            }
            Err(failed)
                if kept
                    && failed.unheard
                    && !fresh_only
                    && matches!(failed.fault, Fault::Gone | Fault::Body(_)) =>
            {
                fresh_only = true;
            }
            Err(failed) => {
                sever(&server);
                return failure(worker, connection, ready, &failed, address, connected).await;
            }
        }
    }
}

/// The agent has its answer; it is told that there will not be another one here.
async fn close(connection: &mut Connection) -> Next {
    // Best effort: it may be gone.
    let _ = connection.stream.shutdown().await;
    Next::Close
}

/// A kept connection whose address is still good, or a new one.
async fn server_for(
    worker: &Worker,
    ready: &Ready<'_>,
    may_be_kept: bool,
) -> Result<(TcpStream, SocketAddr, bool), Denial> {
    let subject = &ready.admission.subject;
    // One whose bytes count is nobody else's, and every one of them counts from its beginning.
    let may_be_kept = may_be_kept && !worker.judge.is_counted(subject);
    if may_be_kept && let Some(kept) = worker.pool.take(&ready.key) {
        let good = addresses(worker, subject).await?;
        if good.contains(&kept.address.ip())
            && subject.connected(&kept.stream, kept.address).is_ok()
        {
            // A limit may have come into force since this one was taken.
            if !worker.judge.is_counted(subject) {
                subject.dialled.store(Some(Arc::new(kept.address.ip())));
                return Ok((kept.stream, kept.address, true));
            }
            subject.parted();
        }
    }
    let (stream, address) = reach(worker, &ready.listed.flow).await?;
    Ok((stream, address, false))
}

async fn upgraded(
    worker: &Worker,
    connection: &mut Connection,
    ready: Ready<'_>,
    server: TcpStream,
    address: SocketAddr,
    connected: Instant,
    answered: Answered,
) -> Done {
    let Ready {
        admission, listed, ..
    } = ready;
    let mut server = server;
    let flow = &listed.flow;
    let (of_server, of_agent) = (
        answered.upgraded.unwrap_or_default(),
        std::mem::take(&mut connection.ahead),
    );
    // Both may have spoken the new protocol already.
    let passed = async {
        guarded(flow, connection.stream.write_all(&of_server)).await?;
        flow.more_back(of_server.len() as u64);
        guarded(flow, server.write_all(&of_agent)).await?;
        flow.more_out(of_agent.len() as u64);
        Ok::<(), Stopped>(())
    };
    if let Err(stopped) = passed.await {
        connection.stream.sever();
        sever(&server);
        let ended = explained(worker, flow, Ended::from(stopped)).await;
        finish(admission, &listed, &ended, 101, address, connected);
        return Done::Next(Next::Close);
    }
    Done::Upgraded(Box::new(Opened {
        admission,
        listed,
        upstream: server,
        address,
        connected,
    }))
}

async fn failure(
    worker: &Worker,
    connection: &mut Connection,
    ready: Ready<'_>,
    failed: &Failed,
    address: SocketAddr,
    connected: Instant,
) -> Done {
    let id = ready.admission.subject.id;
    tracing::info!(request_id = %id, server = %address, "not passed on whole: {}", failed.fault);
    let broken = match &failed.fault {
        Fault::Body(BodyError::Read(_) | BodyError::Write(_)) | Fault::Gone => {
            worker.judge.why_broken(&ready.admission.subject).await
        }
        _ => None,
    };
    let (kind, denial) = match &failed.fault {
        Fault::Cut(Cut::Denied(reason)) => (Kind::Denied, Denial::of(*reason)),
        Fault::Cut(_) => (Kind::Allowed, Denial::of(Reason::Unavailable)),
        Fault::Body(BodyError::Chunks(error)) if !failed.told => {
            (Kind::Denied, Denial::malformed(error))
        }
        Fault::Body(BodyError::Silent) => (Kind::Allowed, Denial::upstream("silent", true)),
        Fault::Body(_) | Fault::Gone => match broken {
            Some(reason) => (Kind::Denied, Denial::of(reason)),
            None => (Kind::Allowed, Denial::upstream("broken", false)),
        },
        Fault::Head(_) | Fault::Field(_) | Fault::Unasked => {
            (Kind::Allowed, Denial::upstream("malformed-answer", false))
        }
    };
    end(
        ready.admission,
        &ready.listed,
        kind,
        Some(denial.word()),
        Some(denial.status()),
        address,
        connected,
    );
    if failed.told {
        // Half an answer must not look like a whole one.
        connection.stream.sever();
    } else {
        answer::deny(worker, connection, id, &denial, false, false).await;
    }
    Done::Next(Next::Close)
}

fn end(
    admission: Admission,
    listed: &Listed,
    kind: Kind,
    reason: Option<&str>,
    status: Option<u16>,
    address: SocketAddr,
    connected: Instant,
) {
    let (bytes_out, bytes_in) = listed.flow.bytes();
    admission.end(&End {
        kind,
        reason,
        status,
        address: Some(address.ip()),
        bytes_out,
        bytes_in,
        connected: Some(connected),
    });
}
