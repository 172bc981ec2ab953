//! What clawgress-dns and clawgress-enforcer say to each other, over one SOCK_SEQPACKET connection that the resolver
//! keeps open. Every message is one JSON document in one packet.
//!
//! The resolver never touches the kernel: it asks for pins and answers an agent only after they were made.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Where the enforcer listens; owner clawgress-enforcer, group clawgress-dns, mode 0660.
pub const SOCKET: &str = "/run/clawgress/enforcer/pins.sock";

/// No message is longer.
pub const LONGEST_MESSAGE: usize = 64 * 1024;

/// From the resolver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum FromResolver {
    /// Make these addresses reachable for `principal` under `name`, for at least `seconds`.
    Pin(Pin),
    /// The revision that was asked for is loaded (or why not); from now on answers follow it.
    Loaded {
        revision: u64,
        error: Option<String>,
    },
    /// What happened since the last such message; once a second, and only what is not zero.
    Counted { counts: Vec<Count> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Chosen by the resolver; the answer carries it.
    pub id: u64,
    /// The revision under which the name was allowed. Of an older one nothing is pinned.
    pub revision: u64,
    /// Name of the principal (`agent-1`, `lan/eth1`); `sni` for a lookup of the front on behalf of a checked flow.
    pub principal: String,
    /// The name that the agent asked for, canonical; not what a CNAME led to.
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub seconds: u32,
}

/// How often something happened to one principal and one registered domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub principal: String,
    /// The rule's name where one matched, else the registered domain asked for; `other` when the table is full.
    pub domain: String,
    pub queries: u64,
    pub cache_hits: u64,
    /// By reason.
    pub denied: Vec<(String, u64)>,
}

/// From the enforcer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum FromEnforcer {
    /// Load this revision from its file; answer with `Loaded`. Sent first on every new connection, too.
    Load { revision: u64, file: String },
    /// Compile this revision from its file and keep it: a `Load` of it is likely to follow. None: it is not. No answer.
    Prepare { next: Option<(u64, String)> },
    /// Forget every policy: answer REFUSED with the reason `unavailable` from now on.
    Unload,
    /// The answer to a pin.
    Pinned { id: u64, error: Option<String> },
    /// Names that are over their cap or back under it, and whether the clock may be trusted; replaces what was said before.
    State {
        over_cap: Vec<(String, String)>,
        clock_trusted: bool,
    },
    /// Whom the kill switch holds: everybody, or these principals. The first of several replaces what was said before,
    /// and the others add to it.
    Blocked {
        first: bool,
        all: bool,
        principals: Vec<String>,
    },
}
