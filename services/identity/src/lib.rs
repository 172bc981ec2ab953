//! Who asks: agents' credentials (API keys, signed tokens, client certificates), what each proves, and their revocation.
//!
//! The library judges without I/O: it is given a snapshot, the committed revision's agents and the moment. The daemon
//! beside it keeps the credentials. No source address is ever an identity here.

pub mod admin;
pub mod api_key;
pub mod certificate;
pub mod directory;
pub mod identity;
pub mod missed;
pub mod presented;
pub mod refusal;
pub mod snapshot;
pub mod text;
pub mod token;

mod cache;

pub use api_key::CredentialKey;
pub use directory::Directory;
pub use identity::{CredentialId, Identity};
pub use presented::{Presented, Shown, presented_of_header};
pub use refusal::Refusal;
pub use snapshot::Snapshot;
