//! Takes a body off the wire: bounded in size, in time, and in how many are held at once.
//!
//! Knows nothing of what is in it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::daemon::http::refusal::Refusal;

/// A policy of a million names fits.
pub(crate) const LARGEST_POLICY: usize = 64 * 1024 * 1024;
/// Every other call.
pub(crate) const LARGEST: usize = 64 * 1024;

/// A policy larger than this waits for one of few places.
const LARGE: usize = 1024 * 1024;
const LARGE_PLACES: usize = 2;
const SMALL_PLACES: usize = 32;
/// The front cuts off whoever says nothing for fifteen seconds; this ends what trickles.
const DEADLINE: Duration = Duration::from_secs(60);
/// Of a body that is refused for its size: so much is thrown away before the answer, for who has not finished asking
/// does not listen.
const DRAINED: usize = 256 * 1024 * 1024;

/// Places for the bodies that are in memory.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            small: Arc::new(Semaphore::new(SMALL_PLACES)),
            large: Arc::new(Semaphore::new(LARGE_PLACES)),
        }
    }
}

/// A body, and the place that it takes as long as this lives.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

pub(crate) async fn take(
    places: &Places,
    headers: &HeaderMap,
    body: Body,
    largest: usize,
) -> Result<Taken, Refusal> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let reading = async {
        if declared.is_some_and(|length| length > largest) {
            drain(body, 0).await;
            return Err(too_large(largest));
        }
        // Who does not say how much is coming may be sending much.
        let lane = if declared.map_or(largest > LARGE, |length| length > LARGE) {
            &places.large
        } else {
            &places.small
        };
        let Ok(place) = Arc::clone(lane).try_acquire_owned() else {
            drain(body, 0).await;
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "too many callers are sending at this moment; try again in a few seconds",
            )
            .retry_after(2));
        };
        let bytes = collect(body, declared.unwrap_or(0), largest).await?;
        Ok(Taken {
            bytes,
            _place: place,
        })
    };
    tokio::time::timeout(DEADLINE, reading)
        .await
        .unwrap_or_else(|_| {
            Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "request timeout",
                format!(
                    "the body did not arrive within {} seconds",
                    DEADLINE.as_secs()
                ),
            ))
        })
}

async fn collect(mut body: Body, declared: usize, largest: usize) -> Result<Bytes, Refusal> {
    let mut held = Vec::with_capacity(declared);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "unreadable body",
                error.to_string(),
            )
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if held.len() + data.len() > largest {
            let seen = held.len() + data.len();
            drop(held);
            drain(body, seen).await;
            return Err(too_large(largest));
        }
        held.extend_from_slice(&data);
    }
    Ok(held.into())
}

async fn drain(mut body: Body, mut seen: usize) {
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, Bytes::len);
        if seen > DRAINED {
            return;
        }
    }
}

fn too_large(largest: usize) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body too large",
        format!("this endpoint takes at most {largest} bytes; nothing was changed"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(size: usize, declare: bool, largest: usize) -> Result<Taken, Refusal> {
        let mut headers = HeaderMap::new();
        if declare {
            headers.insert(header::CONTENT_LENGTH, size.into());
        }
        take(
            &Places::default(),
            &headers,
            Body::from(vec![b' '; size]),
            largest,
        )
        .await
    }

    #[tokio::test]
    async fn the_limit_holds_with_and_without_a_declared_length() {
        for declare in [true, false] {
            assert_eq!(taken(100, declare, 100).await.unwrap().bytes.len(), 100);
            let refusal = taken(101, declare, 100).await.unwrap_err();
            assert_eq!(refusal.error(), "body too large");
            assert!(refusal.reason().contains("at most 100 bytes"));
        }
    }

    #[tokio::test]
    async fn large_ones_take_their_few_places_and_small_ones_still_pass() {
        let places = Places::default();
        let mut headers = HeaderMap::new();
        let mut held = Vec::new();
        headers.insert(header::CONTENT_LENGTH, (LARGE + 1).into());
        for _ in 0..LARGE_PLACES {
            let body = Body::from(vec![b' '; LARGE + 1]);
            held.push(take(&places, &headers, body, LARGEST_POLICY).await.unwrap());
        }
        let body = Body::from(vec![b' '; LARGE + 1]);
        let refusal = take(&places, &headers, body, LARGEST_POLICY)
            .await
            .unwrap_err();
        assert_eq!(refusal.error(), "busy");
        headers.insert(header::CONTENT_LENGTH, 2.into());
        assert!(
            take(&places, &headers, Body::from("{}"), LARGEST_POLICY)
                .await
                .is_ok()
        );
    }
}
