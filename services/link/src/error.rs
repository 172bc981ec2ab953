//! Why a probe could not prove what it was asked to prove. Every text says what was being done to whom.
//!
//! An answer that arrives but proves nothing is an error like silence is: a probe has no third outcome.

use std::{future::Future, time::Duration};

/// A probe that did not end in proof.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nothing came back in time.
    #[error("{doing}: no answer within {} ms", deadline.as_millis())]
    Deadline { doing: String, deadline: Duration },
    /// The operating system refused: a missing socket, a closed port, an unreadable file.
    #[error("{doing}: {source}")]
    Io {
        doing: String,
        source: std::io::Error,
    },
    /// An answer came, and it is not the one that proves health.
    #[error("{doing}: {why}")]
    Answer { doing: String, why: String },
    /// systemd or the message bus answered with an error.
    #[error("{doing}: {source}")]
    Bus {
        doing: String,
        source: Box<zbus::Error>,
    },
}

impl ProbeError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "errors and literals alike are handed over by value at the call"
    )]
    pub(crate) fn answer(doing: impl Into<String>, why: impl ToString) -> Self {
        Self::Answer {
            doing: doing.into(),
            why: why.to_string(),
        }
    }

    pub(crate) fn bus<E: Into<zbus::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::Bus {
            doing,
            source: Box::new(source.into()),
        }
    }
}

/// Runs one probe against the clock; `doing` becomes the head of the error text.
pub(crate) async fn within<T>(
    deadline: Duration,
    doing: &str,
    probe: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    tokio::time::timeout(deadline, probe)
        .await
        .unwrap_or_else(|_| {
            Err(ProbeError::Deadline {
                doing: doing.to_owned(),
                deadline,
            })
        })
}
