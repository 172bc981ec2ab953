//! Questions of another box: the policy service there, proved by its certificate, asks at the door where events come in.
//! What it sends first tells which of the two it wants.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use clawgress_link::mtls::Role;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_rustls::server::TlsStream;

use super::Peer;

/// A stream of which the first byte has been looked at.
pub struct Peeked<S> {
    first: Option<u8>,
    seen: u8,
    stream: S,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S: AsyncRead + Unpin> Peeked<S> {
    pub async fn of(mut stream: S) -> io::Result<Self> {
        let first = stream.read_u8().await?;
        Ok(Self {
            first: Some(first),
            seen: first,
            stream,
            _place: None,
        })
    }

    /// HTTP begins with a letter, shipping with the kind of a frame.
    pub fn is_question(&self) -> bool {
        self.seen.is_ascii_uppercase()
    }

    /// Its place among the connections is kept for as long as it lives.
    #[must_use]
    pub fn holding(self, place: OwnedSemaphorePermit) -> Self {
        Self {
            _place: Some(place),
            ..self
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Peeked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Peeked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

type Question = (Peeked<TlsStream<TcpStream>>, Role);

/// Hands proved connections to the router.
pub struct Asking(mpsc::Receiver<Question>);

impl Asking {
    pub fn new(questions: mpsc::Receiver<Question>) -> Self {
        Self(questions)
    }
}

impl Listener for Asking {
    type Io = Peeked<TlsStream<TcpStream>>;
    type Addr = Role;

    async fn accept(&mut self) -> (Self::Io, Role) {
        match self.0.recv().await {
            Some(question) => question,
            // The door is closed, and with it everything ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Role> {
        Ok(Role::Audit)
    }
}

impl Connected<IncomingStream<'_, Asking>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Asking>) -> Self {
        Self::Service(*stream.remote_addr())
    }
}
