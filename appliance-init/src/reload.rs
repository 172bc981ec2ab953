//! Reloads named or haproxy when the enforcer asks for it: systemd obeys root alone, and the enforcer is not root.
//!
//! Only the enforcer's own user is heard, and only the two words of `clawgress_link::reload`.

use std::time::Duration;

use anyhow::{Context, Result};
use clawgress_link::reload::{Daemon, LONGEST_LINE};
use clawgress_link::units;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::{accounts, bus, paths::Paths};

const ENFORCER: &str = "clawgress-enforcer";
/// For saying one word, and for hearing one.
const PATIENCE: Duration = Duration::from_secs(1);
/// For systemd's job.
const JOB: Duration = Duration::from_secs(20);

/// Answers for ever, one caller after the other: reloads must not overtake each other.
pub(crate) async fn serve(paths: Paths, listener: UnixListener) {
    let mut system: Option<zbus::Connection> = None;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let outcome = answer(&paths, stream, &mut system).await;
                if let Err(error) = outcome {
                    eprintln!("{error:#}");
                }
            }
            Err(error) => {
                let path = paths.reload_socket();
                eprintln!("accepting a connection on {}: {error}", path.display());
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

async fn answer(
    paths: &Paths,
    mut stream: UnixStream,
    system: &mut Option<zbus::Connection>,
) -> Result<()> {
    let peer = stream.peer_cred().context("asking who wants a reload")?;
    let (reader, mut writer) = stream.split();
    // Heard out even if refused: closing a socket with unread bytes would take the answer along.
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LONGEST_LINE));
    timeout(PATIENCE, reader.read_line(&mut line))
        .await
        .context("waiting for the name of a daemon")??;
    let word = permitted(paths, peer.uid()).and_then(|()| {
        Daemon::of_word(line.trim_end())
            .ok_or_else(|| "only named and haproxy can be reloaded".to_owned())
    });
    let text = match word {
        Err(why) => why,
        Ok(daemon) => match reload(daemon, system).await {
            Ok(()) => "ok".to_owned(),
            // One line: the answer ends where the line does.
            Err(error) => format!("{error:#}").replace('\n', " "),
        },
    };
    let text: String = text.chars().take(500).collect();
    timeout(PATIENCE, writer.write_all(format!("{text}\n").as_bytes()))
        .await
        .context("answering a reload")??;
    Ok(())
}

fn permitted(paths: &Paths, uid: u32) -> Result<(), String> {
    if accounts::user(paths, ENFORCER) == Some(uid) {
        Ok(())
    } else {
        Err(format!(
            "only {ENFORCER} may ask for a reload, not user {uid}"
        ))
    }
}

async fn reload(daemon: Daemon, system: &mut Option<zbus::Connection>) -> Result<()> {
    let connection = match system.take() {
        Some(connection) => connection,
        None => bus::connect().await?,
    };
    units::reload(&connection, daemon.unit(), JOB)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    // Kept only while it works.
    *system = Some(connection);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::server;

    fn paths(user: u32) -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        fs::create_dir_all(paths.run()).unwrap();
        fs::create_dir_all(paths.users().parent().unwrap()).unwrap();
        let text = format!("root:x:0:0::/:/bin/sh\n{ENFORCER}:x:{user}:{user}::/:/bin/false\n");
        fs::write(paths.users(), text).unwrap();
        (dir, paths)
    }

    async fn said(paths: &Paths) -> String {
        let listener = server::listen(paths, &paths.reload_socket()).unwrap();
        let serving = tokio::spawn(serve(paths.clone(), listener));
        let mut stream = UnixStream::connect(paths.reload_socket()).await.unwrap();
        stream.write_all(b"sshd\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        serving.abort();
        answer
    }

    #[tokio::test]
    async fn a_stranger_is_refused_whatever_it_says() {
        let (_dir, paths) = paths(nix::unistd::geteuid().as_raw() + 1);
        assert!(
            said(&paths)
                .await
                .contains("only clawgress-enforcer may ask")
        );
    }

    #[tokio::test]
    async fn no_other_unit_can_be_named() {
        let (_dir, paths) = paths(nix::unistd::geteuid().as_raw());
        assert_eq!(
            said(&paths).await,
            "only named and haproxy can be reloaded\n"
        );
    }
}
