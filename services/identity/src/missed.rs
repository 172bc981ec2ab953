//! A gateway's way to say which issuers' keys it misses: one report over TLS between services.
//!
//! The service bounds how often it acts on that; who reports need not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clawgress_link::mtls::{self, Credentials, Role};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::admin::{AskError, MISSED, Missed};

const DEADLINE: Duration = Duration::from_secs(3);

/// Returns when the service has heard it.
pub async fn tell(
    own: &Arc<Credentials>,
    service: SocketAddr,
    missed: &Missed,
) -> Result<(), AskError> {
    let answer = |error: &dyn std::fmt::Display| AskError::Talk {
        socket: service.to_string(),
        why: error.to_string(),
    };
    let connector = mtls::client(own, &[Role::Identity]).map_err(|error| answer(&error))?;
    let body = serde_json::to_vec(missed).map_err(|error| answer(&error))?;
    let telling = async {
        let stream = TcpStream::connect(service)
            .await
            .map_err(|error| answer(&error))?;
        let stream = connector
            .connect(ServerName::IpAddress(service.ip().into()), stream)
            .await
            .map_err(|error| answer(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| answer(&error))?;
        // Ends with the sender.
        tokio::spawn(async move { connection.await.ok() });
        let request = Request::post(MISSED)
            .header("host", "clawgress")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| answer(&error))?;
        let told = sender
            .send_request(request)
            .await
            .map_err(|error| answer(&error))?;
        match told.status() {
            StatusCode::NO_CONTENT => Ok(()),
            other => Err(answer(&format!("it answered {other}"))),
        }
    };
    match tokio::time::timeout(DEADLINE, telling).await {
        Ok(told) => told,
        Err(_) => Err(answer(&format!(
            "no answer within {} s",
            DEADLINE.as_secs()
        ))),
    }
}
