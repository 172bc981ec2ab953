//! The queue's side: sends what is durable, forgets what is acknowledged. One batch is under way at a time, so what
//! waits, waits on disk.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{BATCH, Frame, Hello, ShipError, VERSION, Welcome, off_thread, protocol};
use crate::queue::{Beside, Reader};

/// How long the store may take to put one batch on disk before the connection is given up.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked for lanes whose processes are gone.
const ORPHANS_EVERY: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Ships until the connection ends; an error says how. With `until_empty` also when everything has been shipped.
pub async fn ship<S>(
    stream: S,
    reader: &mut Reader,
    gateway: &str,
    until_empty: bool,
) -> Result<(), ShipError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from, mut to) = tokio::io::split(stream);
    let hello = Hello {
        version: VERSION,
        gateway: gateway.to_owned(),
        queue: reader.queue(),
        gone: reader.gone(),
    };
    Frame::Hello(hello).send(&mut to).await?;
    let mut shipped = match answer(&mut from).await? {
        Frame::Welcome(Welcome { highest }) => highest,
        other => return Err(protocol(format!("{other:?} for a greeting"))),
    };
    if shipped > reader.last() {
        return Err(protocol(format!(
            "the audit service has events up to {shipped} of the queue {}, and it goes to {}: an older copy of the queue was put back; move its directory away, and a new queue begins",
            reader.queue(),
            reader.last()
        )));
    }
    reader.acknowledge(shipped);
    reader.rewind();
    loop {
        let events = reader.read(shipped, BATCH)?;
        let Some(last) = events.last().map(|event| event.sequence) else {
            if until_empty {
                return Ok(());
            }
            tokio::select! {
                () = reader.more() => continue,
                // Nothing is expected from the peer now: whatever comes, the connection is of no use any more.
                frame = Frame::receive(&mut from) => {
                    return Err(match frame? {
                        None => std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into(),
                        Some(Frame::Refusal(words)) => ShipError::Refused(words),
                        Some(other) => protocol(format!("{other:?} out of turn")),
                    });
                }
            }
        };
        Frame::Batch(events).send(&mut to).await?;
        match answer(&mut from).await? {
            Frame::Ack(sequence) if sequence >= last => {
                shipped = last;
                reader.acknowledge(shipped);
            }
            other => return Err(protocol(format!("{other:?} for a batch up to {last}"))),
        }
    }
}

async fn answer(from: &mut (impl AsyncRead + Unpin)) -> Result<Frame, ShipError> {
    let frame = tokio::time::timeout(PATIENCE, Frame::receive(from))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    match frame {
        None => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        Some(Frame::Refusal(words)) => Err(ShipError::Refused(words)),
        Some(frame) => Ok(frame),
    }
}

/// Ships for ever, connecting anew whenever it has to; meanwhile the queue keeps what comes. Lanes of processes that are
/// gone are shipped to their ends beside it.
pub async fn keep_shipping<S, F>(connect: impl FnMut() -> F, mut reader: Reader, gateway: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = std::io::Result<S>>,
{
    let connect = Mutex::new(connect);
    // Only to make the connection's future; that is awaited without the lock.
    let connect = || (connect.lock().unwrap_or_else(PoisonError::into_inner))();
    let beside = reader.beside();
    tokio::join!(
        keep_own(&connect, &mut reader, gateway),
        keep_orphans(&connect, beside, gateway)
    );
}

async fn keep_own<S, F>(connect: &impl Fn() -> F, reader: &mut Reader, gateway: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = std::io::Result<S>>,
{
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let began = tokio::time::Instant::now();
        let ended = match connect().await {
            Ok(stream) => ship(stream, reader, gateway, false).await,
            Err(error) => Err(error.into()),
        };
        if began.elapsed() > LONGEST_PAUSE {
            (pause, told) = (FIRST_PAUSE, false);
        }
        // Told once for each outage, not at each attempt.
        if let Err(error) = ended
            && !std::mem::replace(&mut told, true)
        {
            tracing::warn!("{error}; events wait in the queue until the audit service takes them");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn keep_orphans<S, F>(connect: &impl Fn() -> F, beside: Beside, gateway: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = std::io::Result<S>>,
{
    let mut told = false;
    loop {
        match drain_orphans(connect, &beside, gateway).await {
            Ok(()) => told = false,
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!("shipping a lane whose process is gone: {error}; tried again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(ORPHANS_EVERY).await;
    }
}

async fn drain_orphans<S, F>(
    connect: &impl Fn() -> F,
    beside: &Beside,
    gateway: &str,
) -> Result<(), ShipError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = std::io::Result<S>>,
{
    let looking = beside.clone();
    for lane in off_thread(move || looking.orphans()).await?? {
        // Nothing is opened in vain: opening ends what had begun.
        let stream = connect().await?;
        let settings = beside.settings;
        let queue = off_thread(move || lane.open(settings))
            .await?
            .map_err(std::io::Error::other)?;
        drain(stream, queue, gateway).await?;
    }
    Ok(())
}

/// Ships a lane whose process is gone, to its end.
pub async fn drain<S>(
    stream: S,
    queue: crate::queue::Queue,
    gateway: &str,
) -> Result<bool, ShipError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reader = queue.reader();
    ship(stream, &mut reader, gateway, true).await?;
    drop(reader);
    Ok(queue.discard()?)
}
