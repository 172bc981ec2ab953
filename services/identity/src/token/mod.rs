//! Signed tokens (JWT): reading, verifying, and issuing short-lived ones.
//!
//! A token never decides how it is verified: issuer, algorithm and key are the configuration's.

mod issue;
mod keys;
mod strict;
mod verify;

pub use issue::{Grant, SigningKey, SigningKeyError};
pub use keys::{Algorithm, KeySet, PublicKey};
pub use verify::{Claims, Expected, Signed, Token};
