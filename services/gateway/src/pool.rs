//! Connections to servers that have answered and may be used again: by the same agent, for the same host, at an address that
//! is judged anew each time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::wire::target::Host;

/// Of each worker.
const MOST: usize = 1024;
const MOST_OF_KEY: usize = 8;
/// Servers seldom wait longer for the next request.
const KEPT: Duration = Duration::from_secs(30);

/// An agent never gets a connection that another one has used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub agent: Arc<str>,
    pub host: Host,
    pub port: u16,
}

#[derive(Debug)]
pub struct Kept {
    pub stream: TcpStream,
    pub address: SocketAddr,
    since: Instant,
}

#[derive(Debug, Default)]
pub struct Pool(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<Key, Vec<Kept>>,
    count: usize,
}

impl Pool {
    /// The one that was used last; none that has said something unasked or ended meanwhile.
    pub fn take(&self, key: &Key) -> Option<Kept> {
        let mut inner = self.inner();
        let Inner { kept, count } = &mut *inner;
        let of_key = kept.get_mut(key)?;
        let found = loop {
            let Some(candidate) = of_key.pop() else {
                break None;
            };
            *count -= 1;
            if candidate.since.elapsed() < KEPT && is_quiet(&candidate.stream) {
                break Some(candidate);
            }
        };
        if of_key.is_empty() {
            kept.remove(key);
        }
        found
    }

    pub fn put(&self, key: Key, stream: TcpStream, address: SocketAddr) {
        let mut inner = self.inner();
        let Inner { kept, count } = &mut *inner;
        if *count >= MOST {
            return;
        }
        let of_key = kept.entry(key).or_default();
        if of_key.len() < MOST_OF_KEY {
            of_key.push(Kept {
                stream,
                address,
                since: Instant::now(),
            });
            *count += 1;
        }
    }

    /// To be called now and then.
    pub fn forget_old(&self) {
        let mut inner = self.inner();
        let Inner { kept, count } = &mut *inner;
        kept.retain(|_, of_key| {
            let before = of_key.len();
            of_key.retain(|kept| kept.since.elapsed() < KEPT);
            *count -= before - of_key.len();
            !of_key.is_empty()
        });
    }

    /// After a change of policy nothing old is used again.
    pub fn forget_all(&self) {
        *self.inner() = Inner::default();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
