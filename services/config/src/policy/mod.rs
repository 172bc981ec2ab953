//! The policy as data: what policy.json says, typed and canonical, whichever way it was written.
//!
//! Pure. Nothing here knows how a policy is enforced.

pub(crate) mod check;
mod domain;
mod json;
mod model;
mod name;
pub(crate) mod parts;
pub(crate) mod tree;
pub(crate) mod words;

pub use domain::DomainPattern;
pub use json::{MAX_POLICY_BYTES, NEWEST_VERSION, PolicyReading};
pub use model::{
    Allow, Cap, Day, Host, Limits, Mtls, Period, Policy, PortRule, Protocol, Proxy, ProxyMode,
    Scope, TimeOfDay, TimeWindow,
};
pub use name::{canonical_name, is_for_policy_zones};
