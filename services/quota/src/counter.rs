//! What one agent, team or project has used, and the limits that hold for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use clawgress_config::access::{Quota, QuotaMode};
use clawgress_config::policy::Period;

use crate::share::Share;
use crate::window::Window;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;

/// What a limit is called in a refusal, for each kind of counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) rps: &'static str,
    pub(crate) rpm: &'static str,
    pub(crate) connections: &'static str,
    pub(crate) bytes: &'static str,
}

#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) names: Names,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    pub(crate) quota: Quota,
    pub(crate) second: Window,
    pub(crate) minute: Window,
    pub(crate) bytes: Window,
    /// Which the bytes are counted in; another one begins at nothing.
    pub(crate) period: Option<Period>,
    pub(crate) connections: u32,
    /// Bytes that went through other gateways in the period that this instant lies in, and in which one that was.
    pub(crate) others: Window,
}

/// What a counter says of one more request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Said {
    /// Nanoseconds until it fits, and what it doesn't fit into.
    pub(crate) wait: Option<(u64, &'static str)>,
    /// It must not be let wait.
    pub(crate) stop: bool,
    /// A limit that only alerts.
    pub(crate) alert: Option<&'static str>,
}

fn length(period: Period) -> u64 {
    period.seconds() * SECOND
}

impl Counter {
    pub(crate) fn new(names: Names, quota: Quota) -> Self {
        let state = State {
            quota,
            second: Window::default(),
            minute: Window::default(),
            bytes: Window::default(),
            period: quota.bytes.map(|(_, period)| period),
            connections: 0,
            others: Window::default(),
        };
        Self {
            names,
            state: Mutex::new(state),
        }
    }

    /// No code that holds the lock can panic half way, so a poisoned one is as good as any.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is let wait comes off the count of each window; else a window takes all of its count along.
    fn carried(&self, limit: Option<u32>, share: Share) -> Option<u64> {
        limit
            .filter(|_| self.quota.mode == QuotaMode::SoftStop)
            .map(|limit| share.of(limit))
    }

    pub(crate) fn advance(&mut self, now: u64, share: Share) {
        let rps = self.carried(self.quota.rps, share);
        let rpm = self.carried(self.quota.rpm, share);
        self.second.advance(now, SECOND, rps);
        self.minute.advance(now, MINUTE, rpm);
        if let Some(period) = self.period {
            self.bytes.advance(now, length(period), None);
            self.others.advance(now, length(period), None);
        }
    }

    /// By all gateways.
    fn bytes_used(&self) -> u64 {
        self.bytes.count().saturating_add(self.others.count())
    }

    /// Judges one more request. Changes nothing.
    pub(crate) fn judge(&self, now: u64, names: Names, share: Share) -> Said {
        let quota = &self.quota;
        let mut said = Said::default();
        let mut full = |wait: u64, limit: &'static str, stop: bool| {
            if wait == 0 {
                return;
            }
            if quota.mode == QuotaMode::AlertOnly {
                said.alert = said.alert.or(Some(limit));
                return;
            }
            said.stop |= stop || quota.mode == QuotaMode::HardStop;
            if said.wait.is_none_or(|(known, _)| known < wait) {
                said.wait = Some((wait, limit));
            }
        };
        if let Some(limit) = quota.rps {
            full(
                self.second.wait(now, SECOND, share.of(limit)),
                names.rps,
                false,
            );
        }
        if let Some(limit) = quota.rpm {
            full(
                self.minute.wait(now, MINUTE, share.of(limit)),
                names.rpm,
                false,
            );
        }
        // Nobody knows when a connection ends, nor does waiting bring bytes back in time.
        if quota
            .connections
            .is_some_and(|limit| u64::from(self.connections) >= share.of(limit))
        {
            full(SECOND, names.connections, true);
        }
        if let Some((limit, period)) = quota.bytes
            && self.bytes_used() >= limit
        {
            full(
                self.bytes.rest(now, length(period)).max(1),
                names.bytes,
                true,
            );
        }
        said
    }

    /// Counts a request and its connection.
    pub(crate) fn take(&mut self) {
        self.second.add(1);
        self.minute.add(1);
        self.connections = self.connections.saturating_add(1);
    }

    pub(crate) fn release(&mut self) {
        self.connections = self.connections.saturating_sub(1);
    }

    /// Counts bytes; whether more may follow.
    pub(crate) fn spend(&mut self, bytes: u64) -> bool {
        self.bytes.add(bytes);
        let over = self
            .quota
            .bytes
            .is_some_and(|(limit, _)| self.bytes_used() >= limit);
        !over || self.quota.mode == QuotaMode::AlertOnly
    }

    pub(crate) fn set_quota(&mut self, quota: Quota) {
        let period = quota.bytes.map(|(_, period)| period);
        // Without a limit for a while the bytes go on being counted.
        if period.is_some() && period != self.period {
            self.bytes = Window::default();
            self.others = Window::default();
            self.period = period;
        }
        self.quota = quota;
    }

    /// Whether it holds nothing that a later quota would have to know.
    pub(crate) fn is_idle(&self, now: u64) -> bool {
        self.connections == 0
            && self.minute.is_past(now, MINUTE)
            && self
                .period
                .is_none_or(|period| self.bytes.is_past(now, length(period)))
    }
}
