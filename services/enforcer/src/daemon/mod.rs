//! The daemon around the plan: state, sockets, clock, and the loop that keeps a revision in force.

mod applied;
mod back;
mod blocked;
mod candidate;
mod caps;
mod carry;
mod clock;
pub mod config;
mod control;
mod counted;
mod discipline;
mod enforce;
mod flows;
mod keeper;
mod numbers;
mod observe;
mod quotas;
mod resolver;
mod serve;
mod shared;
mod socket;
mod steps;
mod trail;

pub use serve::serve;
