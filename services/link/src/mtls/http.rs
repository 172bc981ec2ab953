//! HTTP/1.1 between the box's services: bounded in connections, handshakes and heads. What is asked is the caller's.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::{Role, peer_role};

/// Gateways and services at once; who comes beyond that waits in the kernel's queue.
const MOST_CONNECTIONS: usize = 512;
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEAD: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// Serves for as long as it is polled. The handler is told who asks.
pub async fn serve<H, F>(listener: TcpListener, acceptor: TlsAcceptor, handler: H)
where
    H: Fn(Role, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors: trying again at once would only burn the processor.
                tracing::warn!("accepting a service's connection: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        tokio::spawn(async move {
            let _place = place;
            one(stream, acceptor, handler).await;
        });
    }
}

async fn one<H, F>(stream: TcpStream, acceptor: TlsAcceptor, handler: H)
where
    H: Fn(Role, Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    // Answers are single writes; waiting for more to send only delays them.
    stream.set_nodelay(true).ok();
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::warn!("a service's handshake failed: {error}"),
        Err(_) => return tracing::warn!("a service's handshake took longer than {HANDSHAKE:?}"),
    };
    let Some(role) = peer_role(stream.get_ref().1) else {
        return;
    };
    let service = service_fn(|request| {
        let answer = handler(role, request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // How a connection ends says nothing that an answer did not say.
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}
