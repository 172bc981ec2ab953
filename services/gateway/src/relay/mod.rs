//! Moves the bytes of a tunnel that was allowed, both ways, until it ends or is cut.
//!
//! Knows nothing of policy: whoever cuts says so through the flow.

mod direction;
mod pipe;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use tokio::net::TcpStream;

pub use direction::{Direction, End, poll_read_shared};
pub use pipe::Pipes;

use crate::flows::{Cut, Flow};
use crate::stream::Stream;

/// How a tunnel ended.
#[derive(Debug)]
pub enum Ended {
    /// Both sides said that they were done.
    Whole,
    Broken(io::Error),
    Cut(Cut),
}

/// Both directions at once, until both have ended. The bytes that passed are in the flow at every moment.
pub async fn relay(
    mut agent: Stream,
    mut upstream: TcpStream,
    flow: &Arc<Flow>,
    pipes: &Arc<Pipes>,
) -> Ended {
    let (out_before, in_before) = flow.bytes();
    let mut out = Direction::default();
    let mut back = Direction::default();
    let ended = poll_fn(|cx| {
        if let Some(cut) = flow.poll_cut(cx) {
            return Poll::Ready(Ended::Cut(cut));
        }
        let went_out = out.poll(&mut agent, &mut upstream, pipes, cx);
        let came_back = back.poll(&mut upstream, &mut agent, pipes, cx);
        flow.moved(out_before + out.bytes, in_before + back.bytes);
        match (went_out, came_back) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                Poll::Ready(Ended::Broken(error))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ended::Whole),
            (one, other) => {
                if one.is_ready() || other.is_ready() {
                    flow.half_closed();
                }
                Poll::Pending
            }
        }
    })
    .await;
    if !matches!(ended, Ended::Whole) {
        // The other side must not take a broken stream for a whole one.
        agent.sever();
        crate::stream::sever(&upstream);
    }
    ended
}
