//! What happened: counters over time, and denials one by one. Decides nothing.

pub mod deny_log;
pub mod meters;
pub mod ring;
