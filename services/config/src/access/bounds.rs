//! How large numbers of agents, rules and quotas may be.

/// Priorities beyond would say nothing that these do not.
pub(crate) const MAX_PRIORITY: u32 = 1_000_000;
/// More requests than a machine could serve.
pub(crate) const MAX_RATE: u32 = 10_000_000;
pub(crate) const MAX_CONNECTIONS: u32 = 1_000_000;
/// Seconds: clocks that differ by more are to be set right.
pub(crate) const MAX_LEEWAY: u32 = 300;
