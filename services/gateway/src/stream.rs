//! The agent's side of a connection, whatever it came over: one type, so that nothing after asks how.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::http2_stream::Http2Stream;

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    /// From the front door.
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    Http2(Box<Http2Stream>),
}

/// A socket whose bytes are not changed on the way, so that the kernel may move them.
#[derive(Debug, Clone, Copy)]
pub enum Bare<'s> {
    Tcp(&'s TcpStream),
    Unix(&'s UnixStream),
}

impl Stream {
    /// None where bytes have to pass through TLS.
    pub fn bare(&self) -> Option<Bare<'_>> {
        match self {
            Self::Tcp(stream) => Some(Bare::Tcp(stream)),
            Self::Unix(stream) => Some(Bare::Unix(stream)),
            Self::Tls(_) | Self::Http2(_) => None,
        }
    }

    /// From now on closing means a reset: nothing that waits in the kernel is sent any more.
    pub fn sever(&mut self) {
        match self {
            Self::Tcp(stream) => sever(stream),
            Self::Tls(stream) => sever(stream.get_ref().0),
            Self::Http2(stream) => stream.sever(),
            Self::Unix(_) => {}
        }
    }
}

pub fn sever(stream: &TcpStream) {
    // Fails only on a socket that is gone already.
    let _ = stream.set_zero_linger();
}

impl Bare<'_> {
    /// Does something with the socket as soon as it may be read; it is asked again when that would have blocked.
    pub fn poll_read_with(
        self,
        cx: &mut Context<'_>,
        mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let acted = match self {
                Bare::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || act(stream.as_fd()))
                }
                Bare::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || act(stream.as_fd()))
                }
            };
            match acted {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                acted => return Poll::Ready(acted),
            }
        }
    }

    pub fn poll_write_with(
        self,
        cx: &mut Context<'_>,
        mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let acted = match self {
                Bare::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || act(stream.as_fd()))
                }
                Bare::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || act(stream.as_fd()))
                }
            };
            match acted {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                acted => return Poll::Ready(acted),
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Http2(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Http2(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Http2(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Http2(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
