//! Answers that the gateway makes itself.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{Connection, Next, read_more};
use crate::denial::Denial;
use crate::request_id::RequestId;
use crate::worker::Worker;

/// What an agent may still be sending while it is told no is read and forgotten, so that it gets to read the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

/// Answers a request that is no request, and ends the connection.
pub(super) async fn refuse(worker: &Worker, connection: &mut Connection, denial: &Denial) {
    let id = RequestId::fresh();
    worker.judge.record_malformed(id, connection.source, denial);
    deny(worker, connection, id, denial, false, false).await;
}

/// `keep`: nothing of the request is unread, so another one may follow.
pub(super) async fn deny(
    worker: &Worker,
    connection: &mut Connection,
    id: RequestId,
    denial: &Denial,
    keep: bool,
    without_body: bool,
) -> Next {
    let contact = worker.judge.contact();
    let bytes = denial.answer(id, contact.as_deref(), keep, without_body);
    let written = timeout(worker.limits.head, connection.stream.write_all(&bytes)).await;
    match written {
        Ok(Ok(())) if keep => Next::Again,
        Ok(Ok(())) => {
            linger(connection).await;
            Next::Close
        }
        _ => Next::Close,
    }
}

async fn linger(connection: &mut Connection) {
    if connection.stream.shutdown().await.is_err() {
        return;
    }
    let gone = timeout(LINGER, async {
        let mut bytes = Vec::new();
        let mut total = 0;
        while total < LINGER_BYTES && read_more(&mut connection.stream, &mut bytes).await {
            total += bytes.len();
            bytes.clear();
        }
    });
    // Long enough either way.
    let _ = gone.await;
}
