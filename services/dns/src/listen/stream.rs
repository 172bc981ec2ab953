//! Connections. Each is served one question after the other; their number is bounded, in all and of each source, and
//! one that says nothing is closed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Door;
use crate::engine::{Begun, Engine};
use crate::question::LONGEST;

/// For a whole question to arrive, and for an answer to be taken.
const IDLE: Duration = Duration::from_secs(10);
/// Out of descriptors: those who are connected go first.
const EXHAUSTED: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub total: usize,
    pub of_source: usize,
}

/// The connections of all doors together.
#[derive(Debug)]
pub struct Streams {
    limits: Limits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    sources: HashMap<IpAddr, usize>,
}

struct Place {
    streams: Arc<Streams>,
    source: IpAddr,
}

impl Streams {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: Mutex::default(),
        })
    }

    fn admit(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = open.sources.get(&source).copied().unwrap_or(0);
        if open.total >= self.limits.total || of_source >= self.limits.of_source {
            return None;
        }
        open.total += 1;
        open.sources.insert(source, of_source + 1);
        Some(Place {
            streams: Arc::clone(self),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .streams
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(count) = open.sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.sources.remove(&self.source);
            }
        }
    }
}

pub(super) async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    streams: Arc<Streams>,
    door: Door,
) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            }
        };
        let source = from.ip().to_canonical();
        // Over the bound: closed at once, the asker has UDP.
        let Some(place) = streams.admit(source) else {
            continue;
        };
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            // However it ends, the asker is the one who loses by it.
            let _ = converse(stream, &engine, door, source).await;
            drop(place);
        });
    }
}

async fn converse(
    mut stream: TcpStream,
    engine: &Arc<Engine>,
    door: Door,
    source: IpAddr,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let whole = timeout(IDLE, question(&mut stream, &mut buffer)).await??;
        if !whole {
            return Ok(());
        }
        let answer = match engine.begin(&buffer, door.asker(source), true) {
            Begun::Silence => return Ok(()),
            Begun::Answer(answer) => answer,
            Begun::Waits(waiting) => engine.finish(waiting).await,
        };
        let Ok(length) = u16::try_from(answer.len()) else {
            return Ok(());
        };
        let framed = [&length.to_be_bytes(), answer.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

/// Reads a question; false if what is announced is none.
async fn question(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    let length = usize::from(stream.read_u16().await?);
    if length == 0 || length > LONGEST {
        return Ok(false);
    }
    buffer.resize(length, 0);
    stream.read_exact(buffer).await?;
    Ok(true)
}
