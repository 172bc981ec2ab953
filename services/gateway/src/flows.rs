//! What is open now, of one worker: so that it can be judged again, counted, listed and cut.
//!
//! A flow is in here from its admission to its end. Cutting sets a word and wakes the flow's task, which closes both
//! sides and ends the flow's event; nothing is torn away under it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use clawgress_policy::Reason;

use crate::judge::Subject;

/// Why a flow was cut from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// No byte for too long.
    Idle,
    /// The gateway ends and the time to drain is over.
    Drained,
    Denied(Reason),
}

pub struct Flow {
    pub subject: Arc<Subject>,
    out: AtomicU64,
    back: AtomicU64,
    /// Seconds of the worker's clock at the last sign of life.
    active: AtomicU32,
    half_closed: AtomicBool,
    /// 0: not cut.
    cut: AtomicU8,
    waker: Mutex<Option<Waker>>,
    clock: Arc<Clock>,
}

/// Seconds since the worker began, moved on by its sweep: cheap to read at every piece.
#[derive(Debug, Default)]
pub struct Clock(AtomicU32);

#[derive(Default)]
pub struct Flows {
    open: Mutex<HashMap<u64, Arc<Flow>>>,
    next: AtomicU64,
    pub clock: Arc<Clock>,
}

/// Takes the flow out again, however its task ends.
pub struct Listed {
    pub flow: Arc<Flow>,
    number: u64,
    home: Arc<Flows>,
}

impl Clock {
    pub fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn tick(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

const IDLE: u8 = 254;
const DRAINED: u8 = 255;

impl Cut {
    fn code(self) -> u8 {
        match self {
            Self::Idle => IDLE,
            Self::Drained => DRAINED,
            Self::Denied(reason) => {
                let at = Reason::ALL.iter().position(|other| *other == reason);
                at.and_then(|at| u8::try_from(at + 1).ok())
                    .unwrap_or(DRAINED)
            }
        }
    }

    fn of(code: u8) -> Option<Self> {
        match code {
            0 => None,
            IDLE => Some(Self::Idle),
            DRAINED => Some(Self::Drained),
            at => Some(
                Reason::ALL
                    .get(usize::from(at) - 1)
                    .map_or(Self::Drained, |reason| Self::Denied(*reason)),
            ),
        }
    }
}

impl Flow {
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.out.load(Ordering::Relaxed),
            self.back.load(Ordering::Relaxed),
        )
    }

    /// Sums since the flow began. A flow has one task, so nobody else writes them.
    pub fn moved(&self, out: u64, back: u64) {
        self.out.store(out, Ordering::Relaxed);
        self.back.store(back, Ordering::Relaxed);
        self.active.store(self.clock.now(), Ordering::Relaxed);
    }

    pub fn more_out(&self, bytes: u64) {
        self.out.fetch_add(bytes, Ordering::Relaxed);
        self.active.store(self.clock.now(), Ordering::Relaxed);
    }

    pub fn more_back(&self, bytes: u64) {
        self.back.fetch_add(bytes, Ordering::Relaxed);
        self.active.store(self.clock.now(), Ordering::Relaxed);
    }

    pub fn half_closed(&self) {
        self.half_closed.store(true, Ordering::Relaxed);
    }

    pub fn cut(&self, cut: Cut) {
        // The first reason stays.
        let _ = self
            .cut
            .compare_exchange(0, cut.code(), Ordering::Release, Ordering::Relaxed);
        if let Some(waker) = self.waker().take() {
            waker.wake();
        }
    }

    pub fn is_cut(&self) -> Option<Cut> {
        Cut::of(self.cut.load(Ordering::Acquire))
    }

    /// None: not cut, and the task is woken when that changes.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Option<Cut> {
        let mut waker = self.waker();
        if !waker
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        self.is_cut()
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flows {
    pub fn list(self: &Arc<Self>, subject: Arc<Subject>) -> Listed {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let flow = Arc::new(Flow {
            subject,
            out: AtomicU64::new(0),
            back: AtomicU64::new(0),
            active: AtomicU32::new(self.clock.now()),
            half_closed: AtomicBool::new(false),
            cut: AtomicU8::new(0),
            waker: Mutex::new(None),
            clock: Arc::clone(&self.clock),
        });
        self.open().insert(number, Arc::clone(&flow));
        Listed {
            flow,
            number,
            home: Arc::clone(self),
        }
    }

    pub fn len(&self) -> usize {
        self.open().len()
    }

    pub fn is_empty(&self) -> bool {
        self.open().is_empty()
    }

    /// A copy: what is done with a flow must not hold up the ones that come and go.
    pub fn all(&self) -> Vec<Arc<Flow>> {
        self.open().values().map(Arc::clone).collect()
    }

    pub fn cut_all(&self, cut: Cut) {
        for flow in self.all() {
            flow.cut(cut);
        }
    }

    /// Cuts each flow that has been silent for longer than its limit, in seconds.
    pub fn cut_idle(&self, limit: u32, limit_of_half_closed: u32) {
        let now = self.clock.now();
        for flow in self.all() {
            let limit = if flow.half_closed.load(Ordering::Relaxed) {
                limit.min(limit_of_half_closed)
            } else {
                limit
            };
            if now.saturating_sub(flow.active.load(Ordering::Relaxed)) > limit {
                flow.cut(Cut::Idle);
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Flow>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.home.open().remove(&self.number);
    }
}
