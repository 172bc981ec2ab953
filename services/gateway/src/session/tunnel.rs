//! A tunnel from its 200 on: its first bytes are judged, then it is relayed.
//!
//! Nothing of the agent's goes out before it was judged.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering;
use std::task::Poll;

use clawgress_policy::Reason;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::flows::{Cut, Flow, Listed};
use crate::relay::{Ended, poll_read_shared, relay};
use crate::stream::{Stream, sever};
use crate::wire::inspect::Inspection;
use crate::worker::Worker;

/// Why the beginning was the end.
pub(super) enum Stopped {
    Gone,
    Broken(io::Error),
    Cut(Cut),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Stopped> for Ended {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Gone => Self::Whole,
            Stopped::Broken(error) => Self::Broken(error),
            Stopped::Cut(cut) => Self::Cut(cut),
        }
    }
}

impl From<Reason> for Stopped {
    fn from(reason: Reason) -> Self {
        Self::Cut(Cut::Denied(reason))
    }
}

/// `plain`: something else than TLS may pass.
pub(super) async fn run(
    worker: &Worker,
    listed: &Listed,
    mut agent: Stream,
    mut upstream: TcpStream,
    early: Vec<u8>,
    plain: bool,
) -> Ended {
    let flow = &listed.flow;
    let stopped = match begin(flow, &mut agent, &mut upstream, early, plain).await {
        Ok(()) => return relay(agent, upstream, flow, &worker.pipes).await,
        Err(stopped) => stopped,
    };
    if !matches!(stopped, Stopped::Gone) {
        agent.sever();
        sever(&upstream);
    }
    stopped.into()
}

enum Piece {
    OfAgent(Vec<u8>),
    OfServer(Vec<u8>),
}

/// Passes what may pass until nothing is left to judge.
async fn begin(
    flow: &Flow,
    agent: &mut Stream,
    upstream: &mut TcpStream,
    early: Vec<u8>,
    plain: bool,
) -> Result<(), Stopped> {
    let mut inspection = Inspection::default();
    let mut held = Vec::new();
    let mut next = (!early.is_empty()).then_some(Piece::OfAgent(early));
    let (mut out, mut back) = (0, 0);
    loop {
        let piece = match next.take() {
            Some(piece) => piece,
            None => next_piece(flow, agent, upstream, plain || inspection.is_begun()).await?,
        };
        match piece {
            Piece::OfAgent(bytes) => {
                let untouched = held.is_empty() && !inspection.is_begun();
                let not_tls = plain && untouched && Inspection::is_tls(&bytes) == Some(false);
                let withheld = if not_tls {
                    flow.subject.plain.store(true, Ordering::Relaxed);
                    0
                } else {
                    inspection.of_client(&bytes, &flow.subject.host)?
                };
                if held.is_empty() {
                    held = bytes;
                } else {
                    held.extend_from_slice(&bytes);
                }
                let rest = held.split_off(held.len().saturating_sub(withheld));
                if !held.is_empty() {
                    guarded(flow, upstream.write_all(&held)).await?;
                    out += held.len() as u64;
                }
                held = rest;
                flow.moved(out, back);
                if not_tls || inspection.is_over() {
                    return Ok(());
                }
            }
            Piece::OfServer(bytes) => {
                if inspection.is_begun() {
                    inspection.of_server(&bytes);
                }
                guarded(flow, agent.write_all(&bytes)).await?;
                back += bytes.len() as u64;
                flow.moved(out, back);
                if inspection.is_over() {
                    return Ok(());
                }
            }
        }
    }
}

async fn next_piece(
    flow: &Flow,
    agent: &mut Stream,
    upstream: &mut TcpStream,
    hear_server: bool,
) -> Result<Piece, Stopped> {
    let copied = |bytes: &[u8]| bytes.to_vec();
    let piece = poll_fn(|cx| {
        if let Some(cut) = flow.poll_cut(cx) {
            return Poll::Ready(Err(Stopped::Cut(cut)));
        }
        if hear_server && let Poll::Ready(read) = poll_read_shared(upstream, cx, copied) {
            return Poll::Ready(read.map(Piece::OfServer).map_err(Stopped::Broken));
        }
        poll_read_shared(agent, cx, copied)
            .map(|read| read.map(Piece::OfAgent).map_err(Stopped::Broken))
    })
    .await?;
    match &piece {
        // Half a beginning is none.
        Piece::OfAgent(bytes) | Piece::OfServer(bytes) if bytes.is_empty() => Err(Stopped::Gone),
        _ => Ok(piece),
    }
}

/// Stops waiting when the flow is cut.
pub(super) async fn guarded<T>(
    flow: &Flow,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, Stopped> {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        if let Some(cut) = flow.poll_cut(cx) {
            return Poll::Ready(Err(Stopped::Cut(cut)));
        }
        work.as_mut()
            .poll(cx)
            .map(|done| done.map_err(Stopped::Broken))
    })
    .await
}
