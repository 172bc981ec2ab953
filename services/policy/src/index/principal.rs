//! Who may be behind a source address, and what that one may reach, apart from names.
//!
//! Data only: it is compiled in `build` and judged in `Index`.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use clawgress_config::{
    Cidr,
    policy::{Cap, DomainPattern, Mtls, PortRule, Protocol},
};

use crate::address::{is_inside, reaches_inside};

use super::{rows::ScopeNumber, sources::plain_address};
use crate::window::Window;

pub use crate::rules::Ruled;

/// Number of a principal: 1.. in the order of their names. Valid within one `Index` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalId(pub u16);

impl std::fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A host of the policy, an agent with addresses of its own, or everybody else on a LAN card.
#[derive(Debug, Clone)]
pub struct Principal {
    pub id: PrincipalId,
    /// The host's name, the agent's id, or `lan/<card>`.
    pub name: String,
    pub kind: PrincipalKind,
    /// Whom rules that name agents, teams, projects or environments are for. None: they are not for this one.
    pub agent: Option<Arc<Identity>>,
    /// Disjoint: what belongs to a more specific source is cut out. Ascending, IPv4 first.
    pub sources: Vec<Cidr>,
    pub scope: Arc<CompiledScope>,
    /// What rules mean for it before any destination is known. None: no rule is for it.
    pub ruled: Option<Arc<Ruled>>,
    /// By pattern.
    pub(super) caps: Vec<(DomainPattern, Cap)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrincipalKind {
    Host,
    /// Has the scope of the host in whose source its own ones lie, and with it that host's caps and limit; of none: the
    /// global scope. Rules bind it before that.
    Agent {
        host: Option<String>,
    },
    /// Has the global scope, and no caps.
    Lan {
        card: String,
    },
}

/// What rules know an agent by, beside its id, which is its principal's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub team_id: String,
    pub project_id: String,
    pub environment: String,
    /// It reaches nothing.
    pub disabled: bool,
}

impl Principal {
    pub fn is_lan(&self) -> bool {
        matches!(self.kind, PrincipalKind::Lan { .. })
    }

    pub fn is_disabled(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.disabled)
    }

    /// Nothing but the lists speaks of it.
    pub(super) fn is_unruled(&self) -> bool {
        self.ruled.is_none() && !self.is_disabled()
    }

    /// Whether whoever reads names on the wire judges what this one sends to a TCP port: some name may pass there.
    pub fn is_on_wire(&self, port: u16) -> bool {
        let by_rules = self
            .ruled
            .as_ref()
            .is_some_and(|ruled| ruled.opens.contains(port));
        self.scope.judges_names_on_the_wire && (self.scope.has_tcp(port) || by_rules)
    }
}

/// A scope without its names: those are asked of the index.
///
/// A host has its own scope alone. Its windows replace the global ones, so that a host without any has none at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledScope {
    /// Whether it is the one that all LAN principals share.
    pub global: bool,
    /// Networks that may be reached by address.
    pub ips: Vec<Cidr>,
    /// With what is meant where none is written; never 53.
    pub ports: BTreeSet<PortRule>,
    /// Port 443 is judged by the TLS hello's name, port 80 by the Host header.
    pub judges_names_on_the_wire: bool,
    /// The next gateway, `name-or-address:port`.
    pub backend: Option<String>,
    pub mtls: Option<Mtls>,
    /// Encloses all but the names that have a window of their own.
    pub window: Option<Window>,
    /// Of the global scope: the ceiling over all principals together. Of a host's: its own limit below that.
    pub egress_kbps: Option<u32>,
    pub(super) number: ScopeNumber,
    /// `proxy.domains` is another list than `allow.domains`.
    pub(super) has_own_wire_list: bool,
}

impl CompiledScope {
    pub fn has_tcp(&self, port: u16) -> bool {
        let protocol = Protocol::Tcp;
        self.ports.contains(&PortRule { port, protocol })
    }

    /// Whether a network of the policy holds this address. One about the world (`0.0.0.0/0`) does not hold what is
    /// inside.
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = plain_address(address);
        let inside = is_inside(address);
        self.ips
            .iter()
            .any(|network| network.contains(address) && !(inside && reaches_inside(network)))
    }
}
