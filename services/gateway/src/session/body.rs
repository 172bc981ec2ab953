//! Passes a body on as it comes, in the framing that was told and no other, and counts it.
//!
//! At most one buffer of it is in memory; a receiver that is slow slows the sender through its window.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::wire::chunked::{ChunkError, Chunked, Piece, passing_trailers};
use crate::wire::fields::Framing;
use crate::wire::head::Header;

const BUFFER: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the sender went away in the middle of a body")]
    Short,
    #[error("the sender said nothing for too long")]
    Silent,
    #[error(transparent)]
    Chunks(#[from] ChunkError),
    #[error("reading a body: {0}")]
    Read(io::Error),
    #[error("writing a body: {0}")]
    Write(io::Error),
}

/// What was read of a stream and not used yet.
pub(super) struct Source<R> {
    pub stream: R,
    pub ahead: Vec<u8>,
    patience: Duration,
}

impl<R: AsyncRead + Unpin> Source<R> {
    pub(super) fn new(stream: R, ahead: Vec<u8>, patience: Duration) -> Self {
        Self {
            stream,
            ahead,
            patience,
        }
    }

    /// Reads more behind what is there; false: the other side has ended.
    pub(super) async fn more(&mut self) -> Result<bool, BodyError> {
        self.ahead.reserve(BUFFER);
        let read = timeout(self.patience, self.stream.read_buf(&mut self.ahead)).await;
        match read {
            Err(_) => Err(BodyError::Silent),
            Ok(Err(error)) => Err(BodyError::Read(error)),
            Ok(Ok(length)) => Ok(length > 0),
        }
    }
}

/// Where a body goes, behind what is still to be sent before it.
pub(super) struct Sink<'w, W> {
    pub stream: &'w mut W,
    pub out: Vec<u8>,
    /// Chunks are written as chunks only to those who know them.
    pub chunks: bool,
    /// Of the message that the body belongs to.
    headers: &'w [Header<'w>],
    patience: Duration,
}

impl<'w, W: AsyncWrite + Unpin> Sink<'w, W> {
    pub(super) fn new(
        stream: &'w mut W,
        out: Vec<u8>,
        chunks: bool,
        headers: &'w [Header<'w>],
        patience: Duration,
    ) -> Self {
        Self {
            stream,
            out,
            chunks,
            headers,
            patience,
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), BodyError> {
        let written = timeout(self.patience, async {
            self.stream.write_all(&self.out).await?;
            self.stream.flush().await
        });
        match written.await {
            Err(_) => return Err(BodyError::Silent),
            Ok(written) => written.map_err(BodyError::Write)?,
        }
        self.out.clear();
        Ok(())
    }

    async fn data(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        if self.chunks {
            self.out
                .extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        }
        self.out.extend_from_slice(bytes);
        if self.chunks {
            self.out.extend_from_slice(b"\r\n");
        }
        if self.out.len() >= BUFFER {
            self.flush().await
        } else {
            Ok(())
        }
    }

    fn end(&mut self, trailers: &[u8]) {
        if !self.chunks {
            return;
        }
        self.out.extend_from_slice(b"0\r\n");
        for trailer in passing_trailers(trailers, self.headers) {
            self.out.extend_from_slice(trailer.name.as_bytes());
            self.out.extend_from_slice(b": ");
            self.out.extend_from_slice(trailer.value);
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

/// The whole body, and with it whatever stood before it in the sink. `moved` is told of each piece's length.
pub(super) async fn pass<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    source: &mut Source<R>,
    sink: &mut Sink<'_, W>,
    framing: Framing,
    mut moved: impl FnMut(u64),
) -> Result<(), BodyError> {
    match framing {
        Framing::None => {}
        Framing::Length(mut left) => {
            sink.chunks = false;
            while left > 0 {
                if source.ahead.is_empty() {
                    sink.flush().await?;
                    if !source.more().await? {
                        return Err(BodyError::Short);
                    }
                }
                let length = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(source.ahead.len());
                let rest = source.ahead.split_off(length);
                let piece = std::mem::replace(&mut source.ahead, rest);
                sink.data(&piece).await?;
                left -= length as u64;
                moved(length as u64);
            }
        }
        Framing::Chunked => {
            let mut chunked = Chunked::default();
            loop {
                let taken = std::mem::take(&mut source.ahead);
                let mut bytes = taken.as_slice();
                while let Some(piece) = chunked.next(&mut bytes)? {
                    match piece {
                        Piece::Data(data) => {
                            sink.data(data).await?;
                            moved(data.len() as u64);
                        }
                        Piece::End(trailers) => {
                            sink.end(&trailers);
                            source.ahead = bytes.to_vec();
                            return sink.flush().await;
                        }
                    }
                }
                sink.flush().await?;
                if !source.more().await? {
                    return Err(BodyError::Short);
                }
            }
        }
        Framing::UntilClose => loop {
            let piece = std::mem::take(&mut source.ahead);
            sink.data(&piece).await?;
            moved(piece.len() as u64);
            sink.flush().await?;
            if !source.more().await? {
                break;
            }
        },
    }
    sink.flush().await
}
