//! A running gateway between real agents and real servers.

mod lab;
mod requests;
mod tls;
mod world;
