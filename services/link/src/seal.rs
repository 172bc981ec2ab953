//! Asks appliance-init what it measures of the kernel right now: ruleset and forwarding. It alone has the right to
//! list nftables; everybody else learns it here, over a socket that only the group `clawgress` may open.
//!
//! Sends nothing: the connection itself is the question.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, net::UnixStream};

use crate::{
    error::{ProbeError, within},
    ruleset::Ruleset,
};

/// Where appliance-init listens.
pub const SOCKET: &str = "/run/clawgress/init.sock";

/// Far above any honest answer, far below what would hurt.
const LARGEST_ANSWER: u64 = 64 * 1024;

/// One measurement, taken when the connection was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    pub ruleset: Ruleset,
    pub forwarding: Forwarding,
}

/// Whether the kernel forwards packets at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// Connects, reads the one document, and lets go.
pub async fn ask(socket: &Path, deadline: Duration) -> Result<Measured, ProbeError> {
    let doing = format!("asking appliance-init on {}", socket.display());
    within(deadline, &doing, async {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(ProbeError::io(&doing))?;
        let mut answer = Vec::new();
        stream
            .take(LARGEST_ANSWER)
            .read_to_end(&mut answer)
            .await
            .map_err(ProbeError::io(&doing))?;
        serde_json::from_slice(&answer).map_err(|error| {
            ProbeError::answer(
                &doing,
                format!("{} bytes that are no measurement: {error}", answer.len()),
            )
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt, net::UnixListener};

    const SECOND: Duration = Duration::from_secs(1);

    async fn answered_with(answer: &'static [u8]) -> Result<Measured, ProbeError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("init.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        let measured = ask(&path, SECOND).await;
        server.await.unwrap();
        measured
    }

    #[tokio::test]
    async fn reads_the_document_of_the_contract() {
        let measured = answered_with(
            br#"{"ruleset":{"loaded":true,"generation":0,"input":"drop","forward":"drop","output":"drop","detail":"sealed"},
                 "forwarding":{"ipv4":false,"ipv6":false}}"#,
        )
        .await
        .unwrap();
        assert!(measured.ruleset.loaded);
        assert_eq!(
            measured.forwarding,
            Forwarding {
                ipv4: false,
                ipv6: false
            }
        );
    }

    #[tokio::test]
    async fn half_a_document_is_no_measurement() {
        let error = answered_with(br#"{"ruleset":{"loaded":true"#)
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("25 bytes that are no measurement"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_missing_socket_is_named() {
        let error = ask(Path::new("/nonexistent/init.sock"), SECOND)
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("asking appliance-init on /nonexistent/init.sock:"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("init.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let error = ask(&path, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, ProbeError::Deadline { .. }), "{error}");
    }
}
