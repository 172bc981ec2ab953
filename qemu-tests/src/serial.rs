//! Owns the waiting on a serial console: what has been said, what is hoped for, until when.
//! It must never wait without a deadline, and a time-out always shows what the console said last.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::transcript::Transcript;

/// How many lines of the console a time-out shows.
const CONTEXT_LINES: usize = 40;

/// Shortest time between two looks at the text.
const POLL: Duration = Duration::from_millis(20);

struct State {
    transcript: Transcript,
    /// Up to where waiting has consumed the text.
    cursor: usize,
    ended: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The console of one VM, from power-on.
pub struct Serial {
    shared: Arc<Shared>,
    input: Mutex<ChildStdin>,
}

impl Serial {
    /// Reads the console in a thread of its own, so that nothing said is lost while nobody waits.
    pub fn new(input: ChildStdin, mut output: ChildStdout, log: File, power_on: Instant) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                transcript: Transcript::new(log, power_on),
                cursor: 0,
                ended: false,
            }),
            changed: Condvar::new(),
        });
        let reader = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 4096];
            loop {
                let count = output.read(&mut buffer).unwrap_or(0);
                let mut state = lock(&reader.state);
                if count == 0 {
                    state.transcript.finish();
                    state.ended = true;
                } else {
                    state.transcript.push(&buffer[..count]);
                }
                reader.changed.notify_all();
                if state.ended {
                    return;
                }
            }
        });
        Self {
            shared,
            input: Mutex::new(input),
        }
    }

    pub fn send(&self, text: &str) -> Result {
        let mut input = lock(&self.input);
        input
            .write_all(text.as_bytes())
            .and_then(|()| input.flush())
            .map_err(|source| Error::other(format!("typing on the serial console: {source}")))
    }

    /// Waits until the console says `pattern` after what was last waited for.
    pub fn wait_for(&self, pattern: &str, limit: Duration) -> Result {
        self.wait_for_any(&[pattern], limit).map(drop)
    }

    /// Waits for the first of several patterns and returns which; text before it is consumed.
    pub fn wait_for_any(&self, patterns: &[&str], limit: Duration) -> Result<usize> {
        let wanted = patterns
            .iter()
            .map(|pattern| format!("{pattern:?}"))
            .collect::<Vec<_>>()
            .join(" or ");
        self.wait_until(&wanted, limit, |text| {
            patterns
                .iter()
                .enumerate()
                .filter_map(|(index, pattern)| {
                    let at = text.find(pattern)?;
                    Some((at + pattern.len(), index))
                })
                .min()
        })
    }

    /// Waits until `matcher`, given the text not yet consumed, answers how much to consume and a value.
    pub fn wait_until<T>(
        &self,
        wanted: &str,
        limit: Duration,
        mut matcher: impl FnMut(&str) -> Option<(usize, T)>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut state = lock(&self.shared.state);
        loop {
            let cursor = state.cursor;
            if let Some((length, value)) = matcher(&state.transcript.text()[cursor..]) {
                state.cursor += length;
                return Ok(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                let how = if state.ended {
                    "the machine has powered off"
                } else {
                    "time is up"
                };
                return Err(Error::TimedOut {
                    wanted: format!("{wanted} on the serial console"),
                    waited_s: limit.saturating_sub(left).as_secs(),
                    context: format!(
                        " ({how}); its last lines:\n{}",
                        state.transcript.last_lines(CONTEXT_LINES)
                    ),
                });
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            // The console arrives in drops; looking at each would cost more than the machine has.
            drop(state);
            std::thread::sleep(POLL);
            state = lock(&self.shared.state);
        }
    }

    /// Everything said since power-on.
    pub fn text(&self) -> String {
        lock(&self.shared.state).transcript.text().to_owned()
    }

    /// What was said and not yet consumed; consumes it.
    pub fn take(&self) -> String {
        let mut state = lock(&self.shared.state);
        let fresh = state.transcript.text()[state.cursor..].to_owned();
        state.cursor += fresh.len();
        fresh
    }

    pub fn last_lines(&self) -> String {
        lock(&self.shared.state)
            .transcript
            .last_lines(CONTEXT_LINES)
    }
}

/// A panic elsewhere must not hide the console: the text is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
