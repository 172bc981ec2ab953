//! HTTP/2 on the TLS listener: each CONNECT stream is a tunnel of its own, judged like any other. Nothing else is spoken
//! there: plain requests go over HTTP/1.1.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderName, PROXY_AUTHORIZATION};
use hyper::{Method, Request, Response};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::{Connection, connect, tunnel};
use crate::denial::Denial;
use crate::http2_stream::Http2Stream;
use crate::judge::{Asked, End, Kind, Seat, Shown};
use crate::request_id::RequestId;
use crate::stream::Stream;
use crate::wire::fields::{FieldError, check_host};
use crate::wire::target::Authority;
use crate::worker::{Place, Worker};

const MOST_STREAMS: u32 = 256;
const LONGEST_HEADERS: u32 = 32 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// What all streams of a connection share.
struct Shared {
    source: std::net::IpAddr,
    certificates: Option<Arc<[CertificateDer<'static>]>>,
    place: Mutex<Place>,
    seat: Seat,
    streams: AtomicUsize,
}

/// What a stream counts as; given back when it ends.
struct OfStream {
    shared: Arc<Shared>,
    /// None: the one of the connection itself.
    _place: Option<Place>,
}

impl Drop for OfStream {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// None: there are as many connections and streams as there may be.
fn place_of(worker: &Worker, shared: &Arc<Shared>) -> Option<OfStream> {
    let first = shared.streams.fetch_add(1, Ordering::Relaxed) == 0;
    let known = || {
        let place = shared.place.lock().unwrap_or_else(PoisonError::into_inner);
        place.is_known()
    };
    let place = (!first).then(|| worker.enter_again(known()));
    let full = matches!(place, Some(None));
    let of_stream = OfStream {
        shared: Arc::clone(shared),
        _place: place.flatten(),
    };
    (!full).then_some(of_stream)
}

pub(crate) async fn serve(worker: Arc<Worker>, connection: Connection) {
    let Connection {
        stream,
        source,
        certificates,
        place,
        ..
    } = connection;
    let shared = Arc::new(Shared {
        source,
        certificates,
        place: Mutex::new(place),
        seat: Seat::default(),
        streams: AtomicUsize::new(0),
    });
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(LONGEST_HEADERS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let Ok(Ok(mut connection)) =
        timeout(worker.limits.head, builder.handshake::<_, Bytes>(stream)).await
    else {
        return;
    };
    let mut parting = false;
    loop {
        let next = timeout(worker.limits.between, connection.accept());
        let next = tokio::select! {
            biased;
            next = next => next,
            () = worker.drained(), if !parting => {
                // Open streams go on, and no new one begins.
                parting = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        match next {
            Ok(Some(Ok((request, respond)))) => {
                let (worker, shared) = (Arc::clone(&worker), Arc::clone(&shared));
                tokio::spawn(Box::pin(serve_stream(worker, shared, request, respond)));
            }
            Ok(Some(Err(error))) => {
                tracing::debug!("an HTTP/2 connection of {source}: {error}");
                return;
            }
            Ok(None) => return,
            // No stream is open, and none came.
            Err(_) if Arc::strong_count(&shared) == 1 => return,
            Err(_) => {}
        }
    }
}

async fn serve_stream(
    worker: Arc<Worker>,
    shared: Arc<Shared>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let id = RequestId::fresh();
    let target = match target(&request) {
        Ok(target) => target,
        Err(denial) => {
            worker.judge.record_malformed(id, shared.source, &denial);
            return deny(&worker, id, &denial, &mut respond);
        }
    };
    let Some(own) = place_of(&worker, &shared) else {
        worker.judge.record_turned_away(shared.source);
        return respond.send_reset(h2::Reason::REFUSED_STREAM);
    };
    let shown = Shown {
        header: request
            .headers()
            .get(PROXY_AUTHORIZATION)
            .map(hyper::header::HeaderValue::as_bytes),
        certificates: shared.certificates.as_deref(),
    };
    let asked = Asked {
        id,
        source: shared.source,
        seat: &shared.seat,
        shown,
        host: &target.host,
        port: target.port,
        method: "CONNECT",
        path: None,
        tunnel: true,
        upgrade: false,
    };
    let admission = match worker.judge.admit(asked).await {
        Ok(admission) => admission,
        Err(denial) => return deny(&worker, id, &denial, &mut respond),
    };
    shared
        .place
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .known();
    let listed = worker.flows.list(Arc::clone(&admission.subject));
    let (upstream, address) = match connect::reach(&worker, &listed.flow).await {
        Ok(reached) => reached,
        Err(denial) => {
            connect::end_unreached(admission, &denial);
            return deny(&worker, id, &denial, &mut respond);
        }
    };
    let connected = Instant::now();
    let Ok(send) = respond.send_response(Response::new(()), false) else {
        admission.end(&End {
            kind: Kind::Allowed,
            reason: Some("agent-gone"),
            status: None,
            address: Some(address.ip()),
            bytes_out: 0,
            bytes_in: 0,
            connected: Some(connected),
        });
        return;
    };
    let stream = Stream::Http2(Box::new(Http2Stream::new(request.into_body(), send)));
    let plain = admission.verdict.plain_tunnel;
    let ended = tunnel::run(&worker, &listed, stream, upstream, Vec::new(), plain).await;
    let ended = connect::explained(&worker, &listed.flow, ended).await;
    connect::finish(admission, &listed, &ended, 200, address, connected);
    drop(own);
}

/// Whether this is a CONNECT as it may be, and where to.
fn target(request: &Request<RecvStream>) -> Result<Authority, Denial> {
    let malformed = |error: &dyn std::fmt::Display| Denial::malformed(&error);
    if request.method() != Method::CONNECT {
        return Err(malformed(
            &"over HTTP/2 there is CONNECT alone; use HTTP/1.1 for plain requests",
        ));
    }
    let once = |name: HeaderName, word| {
        let mut values = request.headers().get_all(name).iter();
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(malformed(&FieldError::Repeated(word))),
            (value, None) => Ok(value),
        }
    };
    once(PROXY_AUTHORIZATION, "Proxy-Authorization")?;
    let authority = request
        .uri()
        .authority()
        .map_or("", |authority| authority.as_str());
    let target = Authority::parse(authority).map_err(|error| malformed(&error))?;
    let host = once(HOST, "Host")?.map(hyper::header::HeaderValue::as_bytes);
    check_host(host, &target, None).map_err(|error| malformed(&error))?;
    Ok(target)
}

fn deny(worker: &Worker, id: RequestId, denial: &Denial, respond: &mut SendResponse<Bytes>) {
    let body = denial.body(id, worker.judge.contact().as_deref());
    let mut response = Response::builder()
        .status(denial.status())
        .header("content-type", "application/json")
        .header("cache-control", "no-store");
    if denial.status() == 407 {
        response = response.header("proxy-authenticate", "Basic realm=\"clawgress\"");
    }
    if let Some(seconds) = denial.retry_after() {
        response = response.header("retry-after", seconds);
    }
    // An agent that has gone needs no answer.
    if let Ok(response) = response.body(())
        && let Ok(mut stream) = respond.send_response(response, false)
    {
        let _ = stream.send_data(Bytes::from(body), true);
    }
}
