//! Talks to the running haproxy over its runtime API: one command a connection.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::front::{self, Places};

const DEADLINE: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: u64 = 16 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    #[error("asking haproxy over {path}: {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
    #[error("asking haproxy over {path}: no answer within {DEADLINE:?}")]
    Silent { path: String },
    #[error("haproxy refuses `{command}`: {said}")]
    Refused { command: String, said: String },
    #[error("haproxy serves the state {found}, it should be {wanted}")]
    OtherState { found: String, wanted: String },
}

/// Sends one command and returns all of the answer.
pub async fn ask(path: &str, command: &str) -> Result<String, FrontError> {
    let failed = |source| FrontError::Io {
        path: path.to_owned(),
        source,
    };
    let talk = async {
        let mut stream = UnixStream::connect(Path::new(path)).await?;
        stream.write_all(command.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    match tokio::time::timeout(DEADLINE, talk).await {
        Err(_) => Err(FrontError::Silent {
            path: path.to_owned(),
        }),
        Ok(answer) => answer.map_err(failed),
    }
}

/// Sends commands that change maps, in their order.
pub async fn command(places: &Places, commands: &[String]) -> Result<(), FrontError> {
    for command in commands {
        let answer = ask(&places.runtime, command).await?;
        if let Some(said) = front::refusal(&answer) {
            return Err(FrontError::Refused {
                command: command.lines().next().unwrap_or_default().to_owned(),
                said: said.chars().take(200).collect(),
            });
        }
    }
    Ok(())
}

/// The state that haproxy says it serves.
pub async fn mark(places: &Places) -> Result<String, FrontError> {
    let answer = ask(&places.runtime, &front::mark_question(places)).await?;
    Ok(front::mark_in(&answer).unwrap_or("none").to_owned())
}

/// Asks until it serves this state.
pub async fn serves(places: &Places, wanted: &str, within: Duration) -> Result<(), FrontError> {
    let end = tokio::time::Instant::now() + within;
    loop {
        let last = match mark(places).await {
            Ok(found) if found == wanted => return Ok(()),
            Ok(found) => FrontError::OtherState {
                found,
                wanted: wanted.to_owned(),
            },
            Err(error) => error,
        };
        if tokio::time::Instant::now() >= end {
            return Err(last);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
