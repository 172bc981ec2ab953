//! A running gateway between real agents and real servers.

mod bounds;
mod change;
mod events;
mod lab;
mod requests;
mod tls;
mod world;
