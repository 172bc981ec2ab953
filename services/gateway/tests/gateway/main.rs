//! A running gateway between real agents and real servers.

mod bad;
mod bounds;
mod change;
mod counted;
mod events;
mod lab;
mod origin;
mod requests;
mod smuggling;
mod tls;
mod world;
