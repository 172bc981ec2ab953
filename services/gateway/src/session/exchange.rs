//! One request to a server and its answer back, both bodies at once if there are two.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::body::{BodyError, Sink, Source, pass};
use super::rewrite;
use crate::flows::{Cut, Flow};
use crate::stream::Stream;
use crate::wire::fields::{FieldError, Framing, of_response};
use crate::wire::head::{HeadError, Header, ResponseHead, Version, end_of_head};

/// Interim answers before the one that counts.
const MOST_INTERIM: usize = 16;

/// A request, ready to be sent.
pub(super) struct Exchange<'e> {
    pub head: &'e [u8],
    /// As they came.
    pub headers: &'e [Header<'e>],
    pub method: &'e str,
    pub framing: Framing,
    /// The agent's version and wish.
    pub version: Version,
    pub keep_alive: bool,
    pub upgrade: Option<&'e [u8]>,
    pub patience: Duration,
}

#[derive(Debug)]
pub(super) struct Answered {
    pub status: u16,
    /// The server's connection may be used again.
    pub server_stays: bool,
    pub agent_stays: bool,
    /// The server has changed protocol, and said this in the new one already.
    pub upgraded: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the answer's head: {0}")]
    Head(#[from] HeadError),
    #[error("the answer's head: {0}")]
    Field(#[from] FieldError),
    #[error("the server ended the connection before its answer")]
    Gone,
    #[error("the server changed its protocol unasked, or told of progress without end")]
    Unasked,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("cut")]
    Cut(Cut),
}

#[derive(Debug)]
pub(super) struct Failed {
    pub fault: Fault,
    /// Nothing at all came of the server: a kept connection may have ended meanwhile.
    pub unheard: bool,
    /// The agent has been told something already.
    pub told: bool,
}

#[derive(Debug, Default)]
struct Progress {
    heard: bool,
    told: bool,
}

/// `ahead` is what was read of the agent after the head, and on return what belongs to its next request.
pub(super) async fn exchange(
    request: &Exchange<'_>,
    agent: &mut Stream,
    ahead: &mut Vec<u8>,
    server: &mut TcpStream,
    flow: &Flow,
) -> Result<Answered, Failed> {
    let mut progress = Progress::default();
    let result = {
        let work = both(request, agent, ahead, server, flow, &mut progress);
        let mut work = std::pin::pin!(work);
        poll_fn(|cx| match flow.poll_cut(cx) {
            Some(cut) => Poll::Ready(Err(Fault::Cut(cut))),
            None => work.as_mut().poll(cx),
        })
        .await
    };
    result.map_err(|fault| Failed {
        fault,
        unheard: !progress.heard,
        told: progress.told,
    })
}

async fn both(
    request: &Exchange<'_>,
    agent: &mut Stream,
    ahead: &mut Vec<u8>,
    server: &mut TcpStream,
    flow: &Flow,
    progress: &mut Progress,
) -> Result<Answered, Fault> {
    if request.framing == Framing::None {
        server
            .write_all(request.head)
            .await
            .map_err(BodyError::Write)?;
        let mut source = Source::new(server, Vec::new(), request.patience);
        return receive(request, &mut source, agent, flow, progress).await;
    }
    let (agent_reads, mut agent_writes) = tokio::io::split(agent);
    let (server_reads, mut server_writes) = server.split();
    let mut body = Source::new(agent_reads, std::mem::take(ahead), request.patience);
    let mut sent = None;
    let answered = {
        let mut source = Source::new(server_reads, Vec::new(), request.patience);
        let mut receiving = std::pin::pin!(receive(
            request,
            &mut source,
            &mut agent_writes,
            flow,
            progress
        ));
        let mut sending = std::pin::pin!(async {
            let mut sink = Sink::new(
                &mut server_writes,
                request.head.to_vec(),
                request.framing == Framing::Chunked,
                request.headers,
                request.patience,
            );
            // The server decides by the head whether it wants the body at all.
            sink.flush().await?;
            pass(&mut body, &mut sink, request.framing, |bytes| {
                flow.more_out(bytes)
            })
            .await
        });
        poll_fn(|cx| {
            if sent.is_none()
                && let Poll::Ready(done) = sending.as_mut().poll(cx)
            {
                sent = Some(done);
            }
            // A server may answer without having read all; and while the body is coming its silence is patience.
            receiving.as_mut().poll(cx)
        })
        .await
    };
    match (answered, sent) {
        (Ok(answered), Some(Ok(()))) => {
            *ahead = body.ahead;
            Ok(answered)
        }
        // What is left of the body is in the way of whatever would follow.
        (Ok(answered), _) => Ok(Answered {
            server_stays: false,
            agent_stays: false,
            ..answered
        }),
        (Err(Fault::Gone), Some(Err(error))) => Err(error.into()),
        (Err(fault), _) => Err(fault),
    }
}

async fn receive<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    request: &Exchange<'_>,
    source: &mut Source<R>,
    agent: &mut W,
    flow: &Flow,
    progress: &mut Progress,
) -> Result<Answered, Fault> {
    for _ in 0..MOST_INTERIM {
        let end = head_of(source, progress).await?;
        let rest = source.ahead.split_off(end);
        let bytes = std::mem::replace(&mut source.ahead, rest);
        let head = ResponseHead::parse(&bytes)?;
        let (framing, server_stays) = of_response(&head, request.method)?;
        if head.status == 101 {
            let protocol = request.upgrade.ok_or(Fault::Unasked)?;
            progress.told = true;
            let text =
                rewrite::response(&head, Framing::None, request.version, true, Some(protocol));
            agent.write_all(&text).await.map_err(BodyError::Write)?;
            agent.flush().await.map_err(BodyError::Write)?;
            let upgraded = Some(std::mem::take(&mut source.ahead));
            return Ok(Answered {
                status: 101,
                server_stays: false,
                agent_stays: false,
                upgraded,
            });
        }
        let interim = head.status < 200;
        if interim && request.version == Version::Http10 {
            continue;
        }
        let readable = framing != Framing::UntilClose
            && !(framing == Framing::Chunked && request.version == Version::Http10);
        let agent_stays = request.keep_alive && readable;
        let text = rewrite::response(&head, framing, request.version, agent_stays, None);
        progress.told = true;
        let chunks = framing == Framing::Chunked && request.version == Version::Http11;
        let mut sink = Sink::new(agent, text, chunks, &head.headers, request.patience);
        pass(source, &mut sink, framing, |bytes| flow.more_back(bytes)).await?;
        if !interim {
            // More than the answer is no answer to anything.
            let server_stays = server_stays && source.ahead.is_empty();
            return Ok(Answered {
                status: head.status,
                server_stays,
                agent_stays,
                upgraded: None,
            });
        }
    }
    Err(Fault::Unasked)
}

async fn head_of<R: AsyncRead + Unpin>(
    source: &mut Source<R>,
    progress: &mut Progress,
) -> Result<usize, Fault> {
    let mut seen = 0;
    loop {
        if let Some(end) = end_of_head(&source.ahead, seen)? {
            return Ok(end);
        }
        seen = source.ahead.len();
        match source.more().await {
            Ok(true) => progress.heard = true,
            // An end, or a reset, instead of an answer.
            Ok(false) | Err(BodyError::Read(_)) => return Err(Fault::Gone),
            Err(error) => return Err(error.into()),
        }
    }
}
