//! Connects to one of several addresses, each judged before: the families take turns, and a slow one does not keep the
//! next from being tried.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};

/// How long an attempt has before the next address is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// Attempts for one request, however many addresses a name has.
const MOST: usize = 6;

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("connecting: no address to connect to")]
    Nothing,
    #[error("connecting: none of the addresses answered within {0:?}")]
    Silent(Duration),
    #[error("connecting to {address}: {source}")]
    Refused {
        address: SocketAddr,
        source: io::Error,
    },
}

type Attempt = Pin<Box<dyn Future<Output = Result<(TcpStream, SocketAddr), DialError>> + Send>>;

pub async fn dial(
    addresses: &[IpAddr],
    port: u16,
    patience: Duration,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let dialled = timeout(patience, async {
        if let [only] = addresses {
            return connect(SocketAddr::new(*only, port)).await;
        }
        race(&in_turns(addresses), port).await
    });
    dialled.await.map_err(|_| DialError::Silent(patience))?
}

/// One address of each family after the other, the other family's first one never further back than second.
fn in_turns(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let (mut first, mut second): (Vec<IpAddr>, Vec<IpAddr>) =
        addresses.iter().rev().copied().partition(IpAddr::is_ipv6);
    let mut turns = Vec::with_capacity(MOST);
    while turns.len() < MOST {
        match first.pop().or_else(|| second.pop()) {
            Some(address) => turns.push(address),
            None => break,
        }
        std::mem::swap(&mut first, &mut second);
    }
    turns
}

async fn race(turns: &[IpAddr], port: u16) -> Result<(TcpStream, SocketAddr), DialError> {
    let mut left = turns.iter();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut next_at = Box::pin(sleep_until(Instant::now()));
    let mut last = DialError::Nothing;
    poll_fn(|cx| {
        loop {
            let mut failed = false;
            let mut at = 0;
            while let Some(attempt) = attempts.get_mut(at) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(connected)) => return Poll::Ready(Ok(connected)),
                    Poll::Ready(Err(error)) => {
                        last = error;
                        failed = true;
                        drop(attempts.swap_remove(at));
                    }
                    Poll::Pending => at += 1,
                }
            }
            // A failure is no reason to wait out the head start.
            if !failed && !attempts.is_empty() && next_at.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match left.next() {
                Some(address) => {
                    attempts.push(Box::pin(connect(SocketAddr::new(*address, port))));
                    next_at.as_mut().reset(Instant::now() + HEAD_START);
                }
                None if attempts.is_empty() => {
                    return Poll::Ready(Err(std::mem::replace(&mut last, DialError::Nothing)));
                }
                None if failed => {}
                None => return Poll::Pending,
            }
        }
    })
    .await
}

async fn connect(address: SocketAddr) -> Result<(TcpStream, SocketAddr), DialError> {
    let refused = |source| DialError::Refused { address, source };
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
    .map_err(refused)?;
    socket.set_nodelay(true).map_err(refused)?;
    let stream = socket.connect(address).await.map_err(refused)?;
    Ok((stream, address))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn the_families_take_turns() {
        let four = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let six = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        assert_eq!(
            in_turns(&[four(1), four(2), four(3), six(1)]),
            [six(1), four(1), four(2), four(3)]
        );
        assert_eq!(
            in_turns(&[four(1), six(1), six(2)]),
            [six(1), four(1), six(2)]
        );
        assert_eq!(in_turns(&[four(7); 20]).len(), MOST);
    }

    #[tokio::test]
    async fn what_answers_is_found_behind_what_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let refusing: IpAddr = "127.0.0.9".parse().unwrap();
        let good: IpAddr = "127.0.0.1".parse().unwrap();
        // The listener has 127.0.0.1 alone, so the other address refuses at once.
        let (_, address) = dial(&[refusing, good], port, Duration::from_secs(5))
            .await
            .unwrap();
        assert_eq!(address.ip(), good);
        let error = dial(&[refusing], port, Duration::from_secs(5))
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("connecting to 127.0.0.9"),
            "{error}"
        );
        assert!(matches!(
            dial(&[], port, Duration::from_secs(5)).await,
            Err(DialError::Nothing)
        ));
    }
}
