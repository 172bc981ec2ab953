//! The same judgement again and again, at a cost that nobody notices: a ruleset that has not changed since it was judged
//! is what it was.

use super::{GENERATION, Ruleset, TABLE, measure};
use crate::netfilter::{KernelError, Socket, sets};

/// Remembers one verdict, and after how many changes of the kernel's tables it was reached.
#[derive(Debug, Default)]
pub struct Watch {
    last: Option<(u32, Ruleset)>,
}

impl Watch {
    /// As `measure`, which is asked only if anything has changed since the last time. Needs `CAP_NET_ADMIN`.
    pub async fn look(&mut self) -> Ruleset {
        let before = asked(sets::changes).await;
        if let (Some(changes), Some((seen, verdict))) = (before, &self.last)
            && changes == *seen
        {
            return verdict.clone();
        }
        let verdict = measure().await;
        // A change while it was being listed belongs to neither.
        let after = asked(sets::changes).await;
        self.last = before
            .filter(|_| before == after)
            .map(|changes| (changes, verdict.clone()));
        verdict
    }
}

/// The generation alone, which takes no longer however large the ruleset is. None: there is no ruleset of ours.
pub async fn generation() -> Option<u32> {
    asked(|socket| sets::only_number(socket, TABLE, GENERATION))
        .await
        .flatten()
}

/// The kernel lets nobody ask while it takes in a large ruleset, so this is no matter for a thread of the runtime.
async fn asked<T: Send + 'static>(
    question: impl FnOnce(&mut Socket) -> Result<T, KernelError> + Send + 'static,
) -> Option<T> {
    let answer = tokio::task::spawn_blocking(move || {
        let mut socket = Socket::open()?;
        question(&mut socket)
    });
    match answer.await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!("{error}");
            None
        }
        Err(_) => None,
    }
}
