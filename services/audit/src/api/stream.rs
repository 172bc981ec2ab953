//! Answers that are as long as the trail: read a page at a time, as fast as the caller takes them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::mpsc;

use crate::query::{Filter, Query, Tail, page};
use crate::store::{Line, Place, Store};

/// Pages that wait for a slow caller.
const AHEAD: usize = 2;
const PAGE: usize = 1000;

pub(super) struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(context)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn text(lines: &[Line]) -> Bytes {
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(line.json.as_bytes());
        text.push(b'\n');
    }
    text.into()
}

/// What there is now, oldest first. A stream that ends early is not closed as it should be: the caller sees it is cut.
pub(super) fn export(store: Arc<Store>, filter: Filter, after: Option<Place>) -> Lines {
    let (to, lines) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut query = Query {
            filter,
            limit: PAGE,
            after: after.map(|place| place.to_string()),
            newest_first: false,
        };
        loop {
            match page(&store, &query) {
                Ok(found) => {
                    if !found.lines.is_empty() && to.blocking_send(text(&found.lines)).is_err() {
                        return;
                    }
                    match found.next {
                        Some(next) => query.after = Some(next.to_string()),
                        None => return,
                    }
                }
                Err(error) => {
                    tracing::error!("exporting events: {error}");
                    let line = serde_json::json!({"error": "cut off", "reason": error.to_string()});
                    let _ = to.blocking_send(format!("{line}\n").into());
                    return;
                }
            }
        }
    });
    Lines(lines)
}

/// What comes, until the caller goes.
pub(super) fn tail(store: Arc<Store>, filter: Filter, after: Option<Place>) -> Lines {
    let (to, lines) = mpsc::channel(AHEAD);
    let mut tail = Tail::new(&store, filter, after);
    tokio::spawn(async move {
        loop {
            let reading = Arc::clone(&store);
            let read = tokio::task::spawn_blocking(move || {
                let lines = tail.next(&reading);
                (tail, lines)
            });
            let Ok((back, Ok(found))) = read.await else {
                return;
            };
            tail = back;
            if !found.is_empty() {
                if to.send(text(&found)).await.is_err() {
                    return;
                }
                continue;
            }
            tokio::select! {
                () = to.closed() => return,
                more = tail.more() => if !more { return },
            }
        }
    });
    Lines(lines)
}
