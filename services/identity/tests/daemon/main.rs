//! The daemon as it is shipped: its program, its sockets, its files, and a gateway's watch on it.

mod credentials;
mod enrolment;
mod world;
