//! The store's side. Each batch is on disk before it is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Frame, Hello, ShipError, VERSION, Welcome, protocol};
use crate::event::is_name;
use crate::store::{OWN, Store};

/// A peer that has connected has to say who it is.
const GREETING: Duration = Duration::from_secs(10);

/// Takes events until the peer closes. `allowed` judges the name that the peer gives itself.
pub async fn receive<S>(
    stream: S,
    store: &Arc<Store>,
    allowed: impl Fn(&str) -> bool,
) -> Result<(), ShipError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from, mut to) = tokio::io::split(stream);
    let greeting = tokio::time::timeout(GREETING, Frame::receive(&mut from))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let Hello { gateway, queue, .. } = match greeting {
        None => return Ok(()),
        Some(Frame::Hello(hello)) if hello.version == VERSION => hello,
        Some(Frame::Hello(hello)) => {
            let words = format!(
                "version {} of the protocol; this side speaks {VERSION}",
                hello.version
            );
            return refuse(&mut to, words).await;
        }
        Some(other) => return Err(protocol(format!("{other:?} for a greeting"))),
    };
    if !is_name(&gateway) || !is_name(&queue) || gateway == OWN || !allowed(&gateway) {
        return refuse(&mut to, format!("this peer may not ship as '{gateway}'")).await;
    }
    let highest = store.highest(&gateway, &queue);
    Frame::Welcome(Welcome { highest }).send(&mut to).await?;
    loop {
        let events = match Frame::receive(&mut from).await? {
            None => return Ok(()),
            Some(Frame::Batch(events)) => events,
            Some(other) => return Err(protocol(format!("{other:?} for a batch"))),
        };
        if !events.is_sorted_by(|one, other| one.sequence < other.sequence) {
            return Err(protocol("events out of order"));
        }
        let (keeping, of, lane) = (Arc::clone(store), gateway.clone(), queue.clone());
        let stored = tokio::task::spawn_blocking(move || keeping.append(&of, &lane, &events))
            .await
            .map_err(std::io::Error::other)?;
        match stored {
            Ok(highest) => Frame::Ack(highest).send(&mut to).await?,
            Err(error) => {
                tracing::error!("storing events of {gateway}: {error}");
                return refuse(&mut to, error.to_string()).await;
            }
        }
    }
}

async fn refuse(to: &mut (impl AsyncWrite + Unpin), words: String) -> Result<(), ShipError> {
    Frame::Refusal(words.clone()).send(to).await?;
    Err(ShipError::Refused(words))
}
