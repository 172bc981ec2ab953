//! One question and one answer, each a line of JSON, over a unix socket.
//!
//! Judges no answer beyond its form: whether it is a refusal is the asker's matter.

use std::{path::Path, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use crate::error::{ProbeError, within};

/// Asks once. `doing` is for errors; no more than `longest` bytes of the answer are read.
pub async fn ask<A: DeserializeOwned>(
    socket: &Path,
    doing: &str,
    question: &impl Serialize,
    longest: u64,
    deadline: Duration,
) -> Result<A, ProbeError> {
    ask_one(socket, doing, question, longest, deadline, |_| true).await
}

/// As `ask`, of a server that runs as one of these users; nothing is said to any other.
pub(crate) async fn ask_one<A: DeserializeOwned>(
    socket: &Path,
    doing: &str,
    question: &impl Serialize,
    longest: u64,
    deadline: Duration,
    is_server: impl Fn(u32) -> bool,
) -> Result<A, ProbeError> {
    within(deadline, doing, async {
        let mut line =
            serde_json::to_vec(question).map_err(|error| ProbeError::answer(doing, error))?;
        line.push(b'\n');
        let mut stream = UnixStream::connect(socket)
            .await
            .map_err(ProbeError::io(doing))?;
        let user = stream.peer_cred().map_err(ProbeError::io(doing))?.uid();
        if !is_server(user) {
            let whose = format!("user {user} listens there, whose socket it is not");
            return Err(ProbeError::answer(doing, whose));
        }
        stream
            .write_all(&line)
            .await
            .map_err(ProbeError::io(doing))?;
        let mut answer = Vec::new();
        BufReader::new(stream.take(longest))
            .read_until(b'\n', &mut answer)
            .await
            .map_err(ProbeError::io(doing))?;
        serde_json::from_slice(&answer).map_err(|error| {
            let length = answer.len();
            ProbeError::answer(doing, format!("{length} bytes that are no reply: {error}"))
        })
    })
    .await
}
