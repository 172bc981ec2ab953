//! One connection of an agent: its requests, one after the other.
//!
//! A request is read whole up to its body before anything is done about it; the next one is not looked at before this one
//! is over, so that requests sent ahead wait in the agent's own window. What can't be understood ends the connection.

mod answer;
mod body;
mod connect;
mod exchange;
mod forward;
pub(crate) mod http2;
mod rewrite;
mod tunnel;

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use crate::denial::Denial;
use crate::judge::Shown;
use crate::relay::poll_read_shared;
use crate::request_id::RequestId;
use crate::stream::Stream;
use crate::wire::fields::{self, RequestFields};
use crate::wire::head::{HeadError, RequestHead, end_of_head};
use crate::worker::{Place, Worker};

/// Whose connection it is.
pub struct Connection {
    pub stream: Stream,
    pub source: IpAddr,
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
    /// Counted for as long as the connection lives.
    pub place: Place,
    /// Read, and not used yet.
    pub ahead: Vec<u8>,
}

impl Connection {
    pub fn new(stream: Stream, source: IpAddr, place: Place) -> Self {
        Self {
            stream,
            source,
            certificates: None,
            place,
            ahead: Vec::new(),
        }
    }
}

/// What becomes of a connection after a request.
enum Next {
    Again,
    Close,
}

pub async fn serve(worker: Arc<Worker>, mut connection: Connection) {
    let limits = worker.limits;
    let mut patience = limits.head;
    loop {
        let mut head = std::mem::take(&mut connection.ahead);
        let fresh = connection.place.is_fresh();
        let read = read_head(&worker, &mut connection.stream, &mut head, patience, fresh);
        let end = match read.await {
            Ok(Some(end)) => end,
            // Half a head and silence: somebody who wants to be waited for.
            Ok(None) if !head.is_empty() => {
                let denial = Denial::malformed(&"the head did not come to its end");
                let id = fresh_id();
                worker
                    .judge
                    .record_malformed(id, connection.source, &denial);
                return;
            }
            Ok(None) => return,
            Err(error) => {
                return answer::refuse(&worker, &mut connection, &Denial::malformed(&error)).await;
            }
        };
        connection.ahead = head.split_off(end);
        let parsed = RequestHead::parse(&head)
            .map_err(|error| Denial::malformed(&error))
            .and_then(|head| {
                let fields =
                    fields::of_request(&head).map_err(|error| Denial::malformed(&error))?;
                Ok((head, fields))
            });
        let (request, fields) = match parsed {
            Ok(parsed) => parsed,
            Err(denial) => return answer::refuse(&worker, &mut connection, &denial).await,
        };
        if request.method == "CONNECT" {
            let opened = connect::open(&worker, &mut connection, &request, &fields).await;
            match opened {
                Ok(Some(opened)) => {
                    drop(request);
                    drop(head);
                    return connect::run(&worker, connection, opened).await;
                }
                Ok(None) => {}
                Err(()) => return,
            }
        } else {
            // Large, and a tunnel must not pay for it.
            let next = Box::pin(forward::serve(&worker, &mut connection, &request, &fields)).await;
            match next {
                forward::Done::Next(Next::Again) => {}
                forward::Done::Next(Next::Close) => return,
                forward::Done::Upgraded(opened) => {
                    drop(request);
                    drop(head);
                    return connect::run_upgraded(&worker, connection, *opened).await;
                }
            }
        }
        connection.place.used();
        patience = limits.between;
        if worker.is_draining() {
            return;
        }
    }
}

fn shown<'c>(connection: &'c Connection, fields: &RequestFields<'c>) -> Shown<'c> {
    Shown {
        header: fields.authorization,
        certificates: connection.certificates.as_deref(),
    }
}

fn fresh_id() -> RequestId {
    RequestId::fresh()
}

/// Where the head ends in what was read. None: the agent went away, or had nothing more to say in time.
async fn read_head(
    worker: &Worker,
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    patience: Duration,
    fresh: bool,
) -> Result<Option<usize>, HeadError> {
    if bytes.is_empty() {
        let first = timeout(patience, read_more(stream, bytes));
        let came = tokio::select! {
            biased;
            came = first => came,
            // Nothing of a next request is here: a good moment to part.
            () = worker.drained(), if !fresh => return Ok(None),
        };
        if !matches!(came, Ok(true)) {
            return Ok(None);
        }
    }
    // A head that is there already costs no timer.
    if let Some(end) = end_of_head(bytes, 0)? {
        return Ok(Some(end));
    }
    let more = timeout(worker.limits.head, async {
        loop {
            let seen = bytes.len();
            if !read_more(stream, bytes).await {
                return Ok(None);
            }
            if let Some(end) = end_of_head(bytes, seen)? {
                return Ok(Some(end));
            }
        }
    });
    more.await.unwrap_or(Ok(None))
}

async fn read_more(stream: &mut Stream, bytes: &mut Vec<u8>) -> bool {
    let read = poll_fn(|cx| {
        poll_read_shared(stream, cx, |new| {
            bytes.extend_from_slice(new);
            !new.is_empty()
        })
    });
    read.await.unwrap_or(false)
}
