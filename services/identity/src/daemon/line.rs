//! Unix sockets on which one JSON line is asked and one answered: bounded in time, length and number of callers.

use std::fs::Permissions;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

const MOST_CALLERS: usize = 64;
const DEADLINE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// The directory's group may connect; who is answered is decided at each call.
pub(super) fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    let bind = || {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    bind().with_context(|| format!("listening on {}", socket.display()))
}

/// Serves for as long as it is polled. The handler gets the caller's user id and the line.
pub(super) async fn serve<H, F, R>(listener: UnixListener, longest: u64, handler: H)
where
    H: Fn(u32, Vec<u8>) -> F + Clone + Send + 'static,
    F: Future<Output = R> + Send,
    R: Serialize + Send,
{
    let places = Arc::new(Semaphore::new(MOST_CALLERS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("accepting a caller: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let handler = handler.clone();
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(DEADLINE, one(stream, longest, handler)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("a caller: {error}"),
                Err(_) => tracing::warn!("a caller took longer than {DEADLINE:?} and is cut off"),
            }
        });
    }
}

async fn one<H, F, R>(mut stream: UnixStream, longest: u64, handler: H) -> io::Result<()>
where
    H: Fn(u32, Vec<u8>) -> F,
    F: Future<Output = R>,
    R: Serialize,
{
    let uid = stream.peer_cred()?.uid();
    let mut line = Vec::new();
    BufReader::new((&mut stream).take(longest))
        .read_until(b'\n', &mut line)
        .await?;
    let mut reply = serde_json::to_vec(&handler(uid, line).await)?;
    reply.push(b'\n');
    stream.write_all(&reply).await
}
