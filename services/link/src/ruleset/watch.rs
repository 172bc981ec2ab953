//! The same judgement again and again, at a cost that nobody notices: a ruleset that has not changed since it was judged
//! is what it was.

use super::{GENERATION, Ruleset, TABLE, listed};
use crate::netfilter::{KernelError, Socket, sets};

/// Remembers one verdict, and after how many changes of the kernel's tables it was reached.
#[derive(Debug, Default)]
pub struct Watch {
    last: Option<(u32, Ruleset)>,
}

impl Watch {
    /// As `listed`, which is asked only if anything has changed since the last time. Needs `CAP_NET_ADMIN`.
    pub async fn look(&mut self) -> Result<Ruleset, String> {
        let before = asked(sets::changes).await;
        if let (Ok(changes), Some((seen, verdict))) = (&before, &self.last)
            && changes == seen
        {
            return Ok(verdict.clone());
        }
        self.last = None;
        let verdict = listed().await?;
        // A change while it was being listed belongs to neither.
        let after = asked(sets::changes).await;
        if let Ok(changes) = before
            && after == Ok(changes)
        {
            self.last = Some((changes, verdict.clone()));
        }
        Ok(verdict)
    }
}

/// The generation alone, which takes no longer however large the ruleset is. None: there is no ruleset of ours. An error
/// says nothing of the ruleset.
pub async fn generation() -> Result<Option<u32>, String> {
    asked(|socket| sets::only_number(socket, TABLE, GENERATION)).await
}

/// The kernel lets nobody ask while it takes in a large ruleset, so this is no matter for a thread of the runtime.
async fn asked<T: Send + 'static>(
    question: impl FnOnce(&mut Socket) -> Result<T, KernelError> + Send + 'static,
) -> Result<T, String> {
    let answer = tokio::task::spawn_blocking(move || {
        let mut socket = Socket::open()?;
        question(&mut socket)
    });
    match answer.await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("asking the kernel was cut off".to_owned()),
    }
}
