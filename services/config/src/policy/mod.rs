//! The policy as data: what policy.json says, typed and canonical, whichever way it was written.
//!
//! Pure. Nothing here knows how a policy is enforced.

mod domain;
mod model;

pub use domain::DomainPattern;
pub use model::{
    Allow, Cap, Day, Host, Limits, Mtls, Period, Policy, PortRule, Protocol, Proxy, ProxyMode,
    Scope, TimeOfDay, TimeWindow,
};
