//! Nothing but tests lives here: `tests/dependencies.rs` guards licences, duplicates and bans by `ci/deny.toml`;
//! `tests/sources.rs` guards the habits of the sources.
