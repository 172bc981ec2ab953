//! The socket on which others of the group `clawgress` learn what the kernel holds right now.
//!
//! It reads nothing from whoever connects: the connection is the question. One measurement at a time.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clawgress_link::ruleset::{self, Ruleset};
use clawgress_link::seal::Measured;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::{accounts, paths::Paths, seal};

/// For taking the answer: nobody may keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens a socket at this path. Only root and the group may connect.
pub(crate) fn listen(paths: &Paths, path: &Path) -> Result<UnixListener> {
    let _ = fs::remove_file(path);
    let listener =
        UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
    if let Some(group) = accounts::group(paths, "clawgress") {
        chown(path, None, Some(group))
            .with_context(|| format!("giving {} to group clawgress", path.display()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("setting the mode of {}", path.display()))?;
    Ok(listener)
}

/// Answers for ever.
pub(crate) async fn serve(paths: Paths, listener: UnixListener) {
    let mut kernel = ruleset::Watch::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let measured = Measured {
                    ruleset: kernel.look().await.unwrap_or_else(Ruleset::absent),
                    forwarding: seal::forwarding(&paths),
                };
                let _ = timeout(PATIENCE, answer(stream, &measured)).await;
            }
            Err(error) => {
                eprintln!(
                    "accepting a connection on {}: {error}",
                    paths.socket().display()
                );
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, measured: &Measured) -> Result<()> {
    let json = serde_json::to_vec(measured)?;
    stream.write_all(&json).await?;
    stream.shutdown().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_answer_is_what_link_reads() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        fs::create_dir_all(paths.run()).unwrap();
        let listener = listen(&paths, &paths.socket()).unwrap();
        assert_eq!(
            fs::metadata(paths.socket()).unwrap().permissions().mode() & 0o777,
            0o660
        );
        let serving = tokio::spawn(serve(paths.clone(), listener));
        let measured = clawgress_link::seal::ask(&paths.socket(), Duration::from_secs(30))
            .await
            .unwrap();
        assert!(!measured.forwarding.ipv4 && !measured.ruleset.detail.is_empty());
        serving.abort();
    }
}
