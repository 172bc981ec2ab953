//! Who the agents are, what rules bind them, how much they may have: the identity-aware half of the configuration.
//!
//! Like `policy`, it is checked where text is read; what is in the model is canonical. Credentials are never in here.

pub(crate) mod bounds;
pub(crate) mod check;
mod collector;
mod json;
pub mod model;
pub(crate) mod parts;
mod path;
pub(crate) mod tree;
pub(crate) mod words;

pub use collector::Endpoint;
pub use json::AccessError;
pub use model::{
    Access, Action, Agent, AuditSettings, AuthType, Durability, Environment, FailMode, Forward,
    GatewaySettings, IdentityMatch, Issuer, KeySource, Quota, QuotaMode, Quotas, Rule, RuleMode,
    Status, WhenFull,
};
pub use path::{
    MAX_PATH, PathError, canonical_path, identity_matches, is_below, without_parameters,
};
