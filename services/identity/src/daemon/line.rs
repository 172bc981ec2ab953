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

/// Serves for as long as it is polled. The handler gets the caller's user id and the line. Who may not ask is answered
/// without being heard, and takes no place among the callers.
pub(super) async fn serve<H, F, R>(
    listener: UnixListener,
    longest: u64,
    may: impl Fn(u32) -> bool,
    handler: H,
) where
    H: Fn(u32, Vec<u8>) -> F + Clone + Send + 'static,
    F: Future<Output = R> + Send,
    R: Serialize + Send,
{
    let places = Arc::new(Semaphore::new(MOST_CALLERS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("accepting a caller: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else {
            continue;
        };
        if !may(uid) {
            let handler = handler.clone();
            tokio::spawn(async move {
                // Best effort: it fits into the socket's buffer, or nobody wants it.
                let answered = answer(stream, handler(uid, Vec::new()));
                let _ = tokio::time::timeout(PAUSE, answered).await;
            });
            continue;
        }
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let handler = handler.clone();
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(DEADLINE, one(stream, uid, longest, handler)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("a caller: {error}"),
                Err(_) => tracing::warn!("a caller took longer than {DEADLINE:?} and is cut off"),
            }
        });
    }
}

async fn one<H, F, R>(mut stream: UnixStream, uid: u32, longest: u64, handler: H) -> io::Result<()>
where
    H: Fn(u32, Vec<u8>) -> F,
    F: Future<Output = R>,
    R: Serialize,
{
    let mut line = Vec::new();
    BufReader::new((&mut stream).take(longest))
        .read_until(b'\n', &mut line)
        .await?;
    answer(stream, handler(uid, line)).await
}

async fn answer<R: Serialize>(
    mut stream: UnixStream,
    reply: impl Future<Output = R>,
) -> io::Result<()> {
    let mut reply = serde_json::to_vec(&reply.await)?;
    reply.push(b'\n');
    stream.write_all(&reply).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_may_not_ask_takes_no_place() {
        let scratch = tempfile::tempdir().unwrap();
        let socket = scratch.path().join("sock");
        let listener = listen(&socket).unwrap();
        let may = Arc::new(AtomicBool::new(false));
        let now = Arc::clone(&may);
        tokio::spawn(serve(
            listener,
            100,
            move |_| now.load(Ordering::Relaxed),
            |_, line| async move { line.len() },
        ));
        let mut strangers = Vec::new();
        for _ in 0..2 * MOST_CALLERS {
            let mut stranger = UnixStream::connect(&socket).await.unwrap();
            let mut answer = [0; 2];
            stranger.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"0\n", "answered, and not heard");
            strangers.push(stranger);
        }
        may.store(true, Ordering::Relaxed);
        let mut caller = UnixStream::connect(&socket).await.unwrap();
        caller.write_all(b"four\n").await.unwrap();
        let mut answer = [0; 2];
        let answered = caller.read_exact(&mut answer);
        let answered = tokio::time::timeout(DEADLINE / 10, answered).await;
        assert!(answered.is_ok(), "strangers have the places");
        assert_eq!(&answer, b"5\n");
    }
}
