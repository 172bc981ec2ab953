//! One fetch over HTTPS: the address looked up at the box's own resolver and judged before it is dialled, the server
//! checked against its authorities, and the answer bounded in time and size. No redirect is followed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clawgress_config::access::{Endpoint, KeySource};
use clawgress_link::{durable, lookup};
use clawgress_policy::address::{is_inside, is_never_meant};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Source;

/// Of a distribution's `ca-certificates`.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const LARGEST_ROOTS: u64 = 16 * 1024 * 1024;
/// As a set of keys may have.
const LARGEST: usize = 256 * 1024;
const LOOKUP: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(4);
/// For all of it.
const WHOLE: Duration = Duration::from_secs(15);

/// Whether an address may be dialled. `literal`: the configuration itself has it.
pub(crate) type Permits = fn(IpAddr, bool) -> Result<(), &'static str>;

/// What is inside has to be named by its address.
pub(crate) fn may_serve(address: IpAddr, literal: bool) -> Result<(), &'static str> {
    if is_never_meant(address) {
        return Err("is this machine, everybody, or an IPv4 address in disguise");
    }
    if is_inside(address) && !literal {
        return Err("is inside; write it into the URL if it is meant");
    }
    Ok(())
}

#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(super) resolver: Option<SocketAddr>,
    pub(super) permits: Permits,
}

impl Client {
    pub(crate) fn new(resolver: Option<SocketAddr>) -> Self {
        Self {
            resolver,
            permits: may_serve,
        }
    }

    pub(crate) async fn fetch(&self, source: &Source) -> Result<String, String> {
        let failed = |why: String| format!("fetching {}: {why}", source.url);
        match tokio::time::timeout(WHOLE, self.whole(source)).await {
            Ok(fetched) => fetched.map_err(failed),
            Err(_) => Err(failed(format!("it took longer than {} s", WHOLE.as_secs()))),
        }
    }

    async fn whole(&self, source: &Source) -> Result<String, String> {
        let server = KeySource::Url(source.url.clone())
            .endpoint()
            .ok_or("it is no URL")?;
        let (scheme, rest) = source.url.split_once("://").ok_or("it is no URL")?;
        if scheme != "https" {
            return Err("keys are fetched over https alone".to_owned());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let connector = connector(source.ca.as_deref()).await?;
        let stream = self.connect(&server).await?;
        let name = ServerName::try_from(server.host.clone()).map_err(|error| error.to_string())?;
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| format!("TLS with {}: {error}", server.host))?;
        let request = Request::get(path)
            .header(HOST, authority)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(USER_AGENT, "clawgress-identity")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let answered = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| error.to_string())?;
            if answer.status() != StatusCode::OK {
                return Err(format!("it answers {}", answer.status()));
            }
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            String::from_utf8(body.to_vec()).map_err(|_| "its answer is no text".to_owned())
        };
        tokio::pin!(answered, connection);
        // The connection is driven until the answer is there; one that ends before that says why.
        tokio::select! {
            biased;
            answer = &mut answered => answer,
            ended = &mut connection => match ended {
                Err(error) => Err(error.to_string()),
                Ok(()) => answered.await,
            },
        }
    }

    async fn connect(&self, server: &Endpoint) -> Result<TcpStream, String> {
        let literal = server.address();
        let addresses = if let Some(address) = literal {
            vec![address]
        } else {
            let resolver = self
                .resolver
                .ok_or("identity.toml names no resolver; write one, as in 127.0.0.1:53")?;
            let found = lookup::addresses(resolver, &server.host, LOOKUP).await;
            found.map_err(|error| error.to_string())?
        };
        let mut last = format!("{} has no address", server.host);
        for address in addresses {
            if let Err(why) = (self.permits)(address, literal.is_some()) {
                last = format!("{address} {why}");
                continue;
            }
            let dialled = TcpStream::connect((address, server.port));
            match tokio::time::timeout(CONNECT, dialled).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = format!("{address}: {error}"),
                Err(_) => last = format!("{address}: no connection within {} s", CONNECT.as_secs()),
            }
        }
        Err(last)
    }
}

async fn connector(ca: Option<&str>) -> Result<TlsConnector, String> {
    let pem = match ca {
        Some(pem) => pem.as_bytes().to_vec(),
        None => tokio::task::spawn_blocking(|| {
            durable::read(Path::new(SYSTEM_ROOTS), LARGEST_ROOTS)
                .map_err(|error| error.to_string())?
                .ok_or_else(|| format!("{SYSTEM_ROOTS} is not there; name authorities by key-ca"))
        })
        .await
        .map_err(|error| error.to_string())??,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("its authorities: {error:?}"))?;
        // Of a whole bundle some may be of a kind that is not known here.
        let added = roots.add(certificate);
        if ca.is_some() {
            added.map_err(|error| format!("its authorities: {error}"))?;
        }
    }
    if roots.is_empty() {
        return Err("there is no certificate among its authorities; write a PEM file".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
