//! One direction of a tunnel: reads what is there, writes it, keeps what the other side has no room for.
//!
//! Small pieces are copied through the worker's one buffer, long runs are spliced. Between two pieces a direction holds
//! no memory at all, so that a tunnel at rest costs its two sockets and little else. At most one bufferful waits: while
//! it does, nothing more is read, and the sender's own window fills.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::pipe::{Pipe, Pipes};
use crate::stream::{Bare, Stream};

const BUFFER: usize = 64 * 1024;
/// A read of so much says that more is coming.
const RUN: usize = 32 * 1024;
/// A splice of less says that the run is over.
const STILL_A_RUN: usize = 8 * 1024;
/// Rounds before the other tunnels of this worker have their turn.
const ROUNDS: usize = 16;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// One end of a tunnel.
pub trait End: AsyncRead + AsyncWrite + Unpin {
    fn bare(&self) -> Option<Bare<'_>>;
}

impl End for Stream {
    fn bare(&self) -> Option<Bare<'_>> {
        Stream::bare(self)
    }
}

impl End for TcpStream {
    fn bare(&self) -> Option<Bare<'_>> {
        Some(Bare::Tcp(self))
    }
}

#[derive(Debug, Default)]
pub struct Direction {
    held: Vec<u8>,
    /// How much of what is held has been sent.
    sent: usize,
    pipe: Option<Pipe>,
    in_run: bool,
    ended: bool,
    shut: bool,
    /// How many have been sent on.
    pub bytes: u64,
}

/// Reads once into the worker's buffer and hands over what came; empty: the other side has ended.
pub fn poll_read_shared<T>(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    act: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    SHARED.with_borrow_mut(|shared| {
        let mut buffer = ReadBuf::new(shared);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(act(buffer.filled())))
    })
}

impl Direction {
    /// With bytes that came before and may be sent.
    pub fn beginning_with(held: Vec<u8>) -> Self {
        Self {
            held,
            ..Self::default()
        }
    }

    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Moves what can be moved now. Ready: this direction has ended and the other side was told.
    pub fn poll<F: End, T: End>(
        &mut self,
        from: &mut F,
        to: &mut T,
        pipes: &Arc<Pipes>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..ROUNDS {
            ready!(self.poll_send_held(to, cx))?;
            if let Some(pipe) = &mut self.pipe
                && let (Some(source), Some(sink)) = (from.bare(), to.bare())
            {
                while pipe.held > 0 {
                    let moved = ready!(sink.poll_write_with(cx, |fd| pipe.empty(fd)))?;
                    if moved == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    self.bytes += moved as u64;
                }
                if !self.ended {
                    match source.poll_read_with(cx, |fd| pipe.fill(fd)) {
                        Poll::Ready(Ok(0)) => self.ended = true,
                        Poll::Ready(Ok(moved)) => {
                            self.in_run = moved >= STILL_A_RUN;
                            continue;
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            // A sender in full flight is back in a moment; until then the pipe is somebody else's.
                            self.pipe = None;
                            return Poll::Pending;
                        }
                    }
                }
                self.pipe = None;
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                // A socket that is gone already has ended, too.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.shut = true;
                return Poll::Ready(Ok(()));
            }
            if self.in_run && from.bare().is_some() && to.bare().is_some() {
                self.pipe = pipes.take();
                if self.pipe.is_some() {
                    continue;
                }
            }
            ready!(self.poll_copy(from, to, cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_send_held<T: AsyncWrite + Unpin>(
        &mut self,
        to: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.held.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let sent = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
            self.bytes += sent as u64;
        }
        if self.sent > 0 {
            self.held = Vec::new();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// One piece, through memory.
    fn poll_copy<F: End, T: End>(
        &mut self,
        from: &mut F,
        to: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        SHARED.with_borrow_mut(|shared| {
            let mut buffer = ReadBuf::new(shared);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            self.in_run = bytes.len() >= RUN;
            let mut sent = 0;
            while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
                match Pin::new(&mut *to).poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(more)) => {
                        sent += more;
                        self.bytes += more as u64;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.held.extend_from_slice(rest);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}
