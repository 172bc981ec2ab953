//! Audit: what an event is, how it survives from the moment of a decision until it lies in a store that shows every
//! gap and every edit, and how it is found again.
//!
//! The way of an event: [`queue`] (written ahead at the gateway) → [`ship`] (acknowledged, each once) → [`store`]
//! (hash-chained segments, signed checkpoints) → [`query`], [`forward`]. [`verify`] needs nothing but the store's files.
//!
//! Nothing here decides about traffic. What can't be recorded is refused or counted, never lost in silence.

pub mod alerts;
pub mod api;
pub mod checksum;
pub mod config;
pub mod daemon;
pub mod disk;
pub mod event;
pub mod forward;
pub mod metrics;
pub mod query;
pub mod queue;
pub mod ship;
pub mod store;
pub mod verify;
