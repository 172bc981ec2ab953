//! From a queue to the store over any stream of bytes: batches, acknowledged when they are on disk there, each event
//! once whatever is cut in between. Who the peer is, the stream's maker has to know. One connection of a queue at a
//! time: the newest has the turn. Neither side believes numbers that would make it let go of an event.
//!
//! ```text
//! frame      0  1  kind; 1  4  length of the content, little-endian; 5 .. content
//! 1 hello    → JSON {"version":1,"gateway":…,"queue":…,"gone":…}: up to `gone` the queue has nothing any more
//! 2 welcome  ← JSON {"highest":…}: what the store has of this queue; missing ones that are gone included
//! 3 batch    → events: sequence (8), length (4), text; ascending
//! 4 ack      ← sequence (8): up to it, all is on disk
//! 5 refusal  ← words; the connection ends
//! ```

mod receiver;
mod shipper;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::disk::DiskError;
use crate::queue::Queued;

pub use receiver::{receive, receive_telling};
pub use shipper::{drain, keep_shipping, ship};

const VERSION: u32 = 1;
/// Texts of a batch; one more event may be begun below it.
const BATCH: usize = 512 * 1024;
/// Many more than fit into a batch of events as they are.
const MOST_EVENTS: usize = 32 * 1024;
const LONGEST_FRAME: usize = 2 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error("shipping audit events: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Queue(#[from] DiskError),
    #[error("the audit service refuses events: {0}")]
    Refused(String),
    #[error("the peer does not speak the shipping protocol: {0}")]
    Protocol(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    version: u32,
    gateway: String,
    queue: String,
    #[serde(default)]
    gone: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Welcome {
    highest: u64,
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ShipError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(std::io::Error::other)?)
}

#[derive(Debug)]
enum Frame {
    Hello(Hello),
    Welcome(Welcome),
    Batch(Vec<Queued>),
    Ack(u64),
    Refusal(String),
}

fn protocol(what: impl Into<String>) -> ShipError {
    ShipError::Protocol(what.into())
}

// The form is that of `map_err`.
#[allow(clippy::needless_pass_by_value)]
fn bad_json(error: serde_json::Error) -> ShipError {
    protocol(error.to_string())
}

impl Frame {
    fn encode(&self) -> Result<Vec<u8>, ShipError> {
        let mut bytes = vec![0; 5];
        let kind = match self {
            Self::Hello(hello) => {
                serde_json::to_writer(&mut bytes, hello).map_err(bad_json)?;
                1
            }
            Self::Welcome(welcome) => {
                serde_json::to_writer(&mut bytes, welcome).map_err(bad_json)?;
                2
            }
            Self::Batch(events) => {
                for event in events {
                    bytes.extend_from_slice(&event.sequence.to_le_bytes());
                    bytes.extend_from_slice(&(event.text.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(&event.text);
                }
                3
            }
            Self::Ack(sequence) => {
                bytes.extend_from_slice(&sequence.to_le_bytes());
                4
            }
            Self::Refusal(words) => {
                bytes.extend_from_slice(words.as_bytes());
                5
            }
        };
        let length = (bytes.len() - 5) as u32;
        bytes[0] = kind;
        bytes[1..5].copy_from_slice(&length.to_le_bytes());
        Ok(bytes)
    }

    fn decode(kind: u8, content: &[u8]) -> Result<Self, ShipError> {
        Ok(match kind {
            1 => Self::Hello(serde_json::from_slice(content).map_err(bad_json)?),
            2 => Self::Welcome(serde_json::from_slice(content).map_err(bad_json)?),
            3 => {
                let events = events(content);
                Self::Batch(events.ok_or_else(|| protocol("a batch that is cut or too many"))?)
            }
            4 => Self::Ack(u64::from_le_bytes(
                content
                    .try_into()
                    .map_err(|_| protocol("an acknowledgement of another length"))?,
            )),
            5 => Self::Refusal(String::from_utf8_lossy(content).into_owned()),
            other => return Err(protocol(format!("a frame of kind {other}"))),
        })
    }

    async fn send(&self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), ShipError> {
        stream.write_all(&self.encode()?).await?;
        Ok(stream.flush().await?)
    }

    /// None: the peer has closed between two frames.
    async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Self>, ShipError> {
        let kind = match stream.read_u8().await {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            kind => kind?,
        };
        let length = stream.read_u32_le().await? as usize;
        if length > LONGEST_FRAME {
            return Err(protocol(format!("a frame of {length} bytes")));
        }
        let mut content = Vec::new();
        // Grows with what arrives, not with what is announced.
        stream.take(length as u64).read_to_end(&mut content).await?;
        if content.len() < length {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        Self::decode(kind, &content).map(Some)
    }
}

/// For fuzzing: reads any bytes as a frame, the first one being its kind, and tells how many events were in it.
pub fn survey(bytes: &[u8]) -> usize {
    match bytes
        .split_first()
        .map(|(kind, content)| Frame::decode(*kind, content))
    {
        Some(Ok(Frame::Batch(events))) => events.len(),
        _ => 0,
    }
}

fn events(mut content: &[u8]) -> Option<Vec<Queued>> {
    let mut events = Vec::new();
    while !content.is_empty() {
        if events.len() == MOST_EVENTS {
            return None;
        }
        let (sequence, rest) = content.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        events.push(Queued {
            sequence: u64::from_le_bytes(*sequence),
            text: text.to_vec(),
        });
        content = rest;
    }
    Some(events)
}

#[cfg(test)]
mod tests;
