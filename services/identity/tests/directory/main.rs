//! Who asks, by every kind of credential: what is accepted, and each way in which it is not.

mod certificates;
mod claims;
mod issuers;
mod keys;
mod outside;
mod tokens;
mod vectors;
mod world;
