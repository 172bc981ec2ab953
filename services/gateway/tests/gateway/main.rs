//! A running gateway between real agents and real servers.

mod bounds;
mod change;
mod events;
mod lab;
mod origin;
mod requests;
mod tls;
mod world;
