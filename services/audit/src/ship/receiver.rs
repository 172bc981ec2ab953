//! The store's side. Each batch is on disk before it is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Frame, Hello, ShipError, VERSION, Welcome, off_thread, protocol};
use crate::event::is_name;
use crate::store::{OWN, Store, StoreError};

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
    receive_telling(stream, store, allowed, || std::future::ready(())).await
}

/// As `receive`; `stored` is called behind each batch.
pub async fn receive_telling<S, F>(
    stream: S,
    store: &Arc<Store>,
    allowed: impl Fn(&str) -> bool,
    stored: impl Fn() -> F,
) -> Result<(), ShipError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    let (mut from, mut to) = tokio::io::split(stream);
    let greeting = tokio::time::timeout(GREETING, Frame::receive(&mut from))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let Hello {
        gateway,
        queue,
        gone,
        ..
    } = match greeting {
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
    let (admitting, name) = (Arc::clone(store), gateway.clone());
    let admitted = off_thread(move || admitting.admit(&name, &queue, gone)).await?;
    let (mut turn, highest) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => return refuse(&mut to, error.to_string()).await,
    };
    Frame::Welcome(Welcome { highest }).send(&mut to).await?;
    loop {
        let events = match Frame::receive(&mut from).await? {
            None => return Ok(()),
            Some(Frame::Batch(events)) => events,
            Some(other) => return Err(protocol(format!("{other:?} for a batch"))),
        };
        let keeping = Arc::clone(store);
        let (back, done) = off_thread(move || {
            let done = keeping.append_in_turn(&mut turn, &events);
            (turn, done)
        })
        .await?;
        turn = back;
        match done {
            Ok(highest) => {
                Frame::Ack(highest).send(&mut to).await?;
                stored().await;
            }
            Err(error) => {
                tracing::error!("storing events of {gateway}: {error}");
                let of_the_shipper = matches!(error, StoreError::Shipper(_));
                let refused = refuse(&mut to, error.to_string()).await;
                // The store's own troubles are told by the store.
                return if of_the_shipper { refused } else { Ok(()) };
            }
        }
    }
}

async fn refuse(to: &mut (impl AsyncWrite + Unpin), words: String) -> Result<(), ShipError> {
    Frame::Refusal(words.clone()).send(to).await?;
    Err(ShipError::Refused(words))
}
