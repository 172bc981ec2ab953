//! Who the agents are, what rules bind them, how much they may have: the identity-aware half of the configuration.
//!
//! Like `policy`, it is checked where text is read; what is in the model is canonical. Credentials are never in here.

pub mod model;

pub use model::{
    Access, Action, Agent, AuditSettings, AuthType, Durability, Environment, FailMode, Forward,
    GatewaySettings, IdentityMatch, Issuer, KeySource, Quota, QuotaMode, Quotas, Rule, RuleMode,
    Status, WhenFull,
};
