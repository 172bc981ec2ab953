//! How the enforcer, which may not command systemd, gets named and haproxy to read their files again: it asks
//! appliance-init, one word a connection, and hears when systemd's job has ended.
//!
//! Only two units can be named, and only a reload be asked for.

use std::{path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use crate::error::{ProbeError, within};

/// Where appliance-init listens.
pub const SOCKET: &str = "/run/clawgress/reload.sock";

/// Nothing that is said here is longer.
pub const LONGEST_LINE: u64 = 1024;

/// What may be reloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    Named,
    Haproxy,
}

impl Daemon {
    pub fn word(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Haproxy => "haproxy",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Named => "named.service",
            Self::Haproxy => "haproxy.service",
        }
    }

    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Named, Self::Haproxy]
            .into_iter()
            .find(|daemon| daemon.word() == word)
    }
}

/// Asks for a reload and waits until it is done.
pub async fn ask(socket: &Path, daemon: Daemon, deadline: Duration) -> Result<(), ProbeError> {
    let doing = format!(
        "asking appliance-init on {} to reload {}",
        socket.display(),
        daemon.word()
    );
    within(deadline, &doing, async {
        let mut stream = UnixStream::connect(socket)
            .await
            .map_err(ProbeError::io(&doing))?;
        stream
            .write_all(format!("{}\n", daemon.word()).as_bytes())
            .await
            .map_err(ProbeError::io(&doing))?;
        let mut answer = String::new();
        BufReader::new(stream.take(LONGEST_LINE))
            .read_line(&mut answer)
            .await
            .map_err(ProbeError::io(&doing))?;
        match answer.trim_end() {
            "ok" => Ok(()),
            "" => Err(ProbeError::answer(&doing, "it hung up without a word")),
            why => Err(ProbeError::answer(&doing, why)),
        }
    })
    .await
}
