//! The policy engine: what a revision means, as a pure index that every path asks. The daemon beside it is the API.
//!
//! No clock and no I/O: both are arguments. The one exception is the revision's own file.

pub mod address;
pub mod class;
pub mod clock;
pub mod index;
pub mod inside;
pub mod reason;
pub mod revision;
pub mod rules;
pub mod window;

pub use clock::Moment;
pub use index::{
    CompiledScope, Counted, Identity, Index, IndexError, NameVerdict, Principal, PrincipalId,
    PrincipalKind, Ruled,
};
pub use reason::Reason;
pub use revision::{Card, LanCard, Logging, Network, Revision, RevisionError};
pub use rules::{
    Considered, Decision, Host, Ports, Reach, Request, Rules, RulesError, canonical_path,
};
pub use window::{Window, Zone};
