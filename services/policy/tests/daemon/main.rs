//! The daemon as a process, over real sockets, with an enforcer that answers as told in place of the one that needs a
//! kernel of its own.

mod bad_input;
mod health;
mod keys;
mod policies;
mod records;
mod service;
