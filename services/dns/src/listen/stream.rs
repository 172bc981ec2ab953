//! Connections. Each is served one question after the other; their number is bounded, in all, of each principal and of
//! each source. One that says nothing is closed, and none lasts: whoever has more to ask comes again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::Door;
use crate::engine::{Begun, Engine};
use crate::flights::lower;
use crate::question::LONGEST;

/// For a whole question to arrive, and for an answer to be taken.
const IDLE: Duration = Duration::from_secs(10);
/// However much is said.
const LONGEST_LIFE: Duration = Duration::from_secs(60);
const MOST_QUESTIONS: usize = 256;
/// Out of descriptors: those who are connected go first.
const EXHAUSTED: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub total: usize,
    pub of_principal: usize,
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
    principals: HashMap<u16, usize>,
    sources: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Place {
    streams: Arc<Streams>,
    principal: u16,
    source: IpAddr,
}

impl Streams {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: Mutex::default(),
        })
    }

    fn admit(self: &Arc<Self>, principal: u16, source: IpAddr) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_principal = open.principals.get(&principal).copied().unwrap_or(0);
        let of_source = open.sources.get(&source).copied().unwrap_or(0);
        if open.total >= self.limits.total
            || of_principal >= self.limits.of_principal
            || of_source >= self.limits.of_source
        {
            return None;
        }
        open.total += 1;
        open.principals.insert(principal, of_principal + 1);
        open.sources.insert(source, of_source + 1);
        Some(Place {
            streams: Arc::clone(self),
            principal,
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
        lower(&mut open.principals, &self.principal);
        lower(&mut open.sources, &self.source);
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
        // Nobody that is known, or over the bound: closed at once, the asker has UDP.
        let principal = engine.principal(door.asker(source));
        let Some(place) = principal.and_then(|principal| streams.admit(principal, source)) else {
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
    let end = Instant::now() + LONGEST_LIFE;
    for _ in 0..MOST_QUESTIONS {
        let by = end.min(Instant::now() + IDLE);
        let whole = timeout_at(by, question(&mut stream, &mut buffer)).await??;
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
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn a_principal_with_many_addresses_leaves_places_for_others() {
        let streams = Streams::new(Limits {
            total: 10,
            of_principal: 6,
            of_source: 2,
        });
        let source = |n: u128| IpAddr::V6(Ipv6Addr::from((0xfd00_u128 << 112) + n));
        let mut places: Vec<Place> = (0..100)
            .filter_map(|n| streams.admit(1, source(n)))
            .collect();
        assert_eq!(places.len(), 6);
        assert!(streams.admit(2, source(1000)).is_some());
        places.pop();
        assert!(streams.admit(1, source(1000)).is_some());
        places.clear();
        let open = streams.open.lock().unwrap();
        assert!(open.total == 0 && open.principals.is_empty() && open.sources.is_empty());
    }
}
