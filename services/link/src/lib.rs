//! What every daemon of the appliance needs to know about its neighbours: is the ruleset loaded, does named deny,
//! does the front answer, what does systemd say. Each module asks one neighbour one question and proves the answer.
//!
//! Nothing here decides what to do with an answer, restarts anything on its own, or keeps state between questions.

pub mod admin;
pub mod agents;
pub mod agents_resolver;
pub mod bundle;
pub mod ca;
pub mod control;
pub mod counted;
pub mod deny_lines;
pub mod durable;
pub mod enrol;
pub mod error;
pub mod front;
pub mod health;
pub mod hex;
pub mod line;
pub mod lookup;
pub mod mtls;
pub mod netfilter;
pub mod pins;
pub mod reload;
pub mod resolver;
pub mod ruleset;
pub mod seal;
pub mod service;
pub mod services;
pub mod terminal;
pub mod units;
pub mod unix_http;

pub use error::ProbeError;
