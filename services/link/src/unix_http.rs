//! One POST to a neighbour's unix socket: answered whole, or piece by piece while it is still being written.
//!
//! Judges no answer: a refusal is an answer like any other. An answer that was cut off is an error, never a short one.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, task::JoinHandle};

use crate::error::ProbeError;

/// An answer that has begun. Dropped, the connection ends.
pub struct Answer {
    pub status: u16,
    body: Incoming,
    doing: String,
    connection: JoinHandle<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Answer {
    /// The next piece; none: it has ended as it should.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, ProbeError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| {
                ProbeError::answer(&self.doing, format!("the answer was cut off: {error}"))
            })?;
            if let Ok(bytes) = frame.into_data()
                && !bytes.is_empty()
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// All of it; more than `most` bytes are an error.
    pub async fn whole(&mut self, most: usize) -> Result<Vec<u8>, ProbeError> {
        let mut text = Vec::new();
        while let Some(bytes) = self.piece().await? {
            if text.len() + bytes.len() > most {
                let why = format!("the answer is larger than {most} bytes");
                return Err(ProbeError::answer(&self.doing, why));
            }
            text.extend_from_slice(&bytes);
        }
        Ok(text)
    }
}

/// Sends a JSON body, and returns when the head of the answer is there. `doing` is for errors; the caller bounds the time.
pub async fn send(
    socket: &Path,
    doing: &str,
    path: &str,
    body: Vec<u8>,
) -> Result<Answer, ProbeError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(ProbeError::io(doing))?;
    let request = Request::post(path)
        .header("host", "clawgress")
        .header("content-type", "application/json")
        .header("connection", "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| ProbeError::answer(doing, error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ProbeError::answer(doing, error))?;
    // Ended by `Answer`, or below, so that a deadline leaves no task behind.
    let mut connection = Unfinished(Some(tokio::spawn(async move {
        // Whoever reads the answer learns of its end.
        connection.await.ok();
    })));
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| ProbeError::answer(doing, error))?;
    let status = response.status().as_u16();
    let Some(connection) = connection.0.take() else {
        return Err(ProbeError::answer(doing, "the connection is gone"));
    };
    Ok(Answer {
        status,
        body: response.into_body(),
        doing: doing.to_owned(),
        connection,
    })
}

struct Unfinished(Option<JoinHandle<()>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.abort();
        }
    }
}
