//! What of a rule is left to look at once identity and destination match: port, method, path, window.

use std::cell::OnceCell;

use clawgress_config::access::{Action, RuleMode, is_below, without_parameters};

use super::{Host, Request, build::Rule};
use crate::address::{is_inside, reaches_inside};
use crate::index::sources::plain_address;
use crate::{Moment, Reason, Window, Zone};

pub(super) const CONNECT: &str = "CONNECT";
/// DNS, plain and encrypted.
pub(super) const DNS: [u16; 2] = [53, 853];

/// Whether the rest of a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    Port,
    Method,
    Path,
    /// It is for agents, and this is none.
    Nobody,
    /// An address inside, which it holds only along with the world.
    Inside,
    /// Its window is all that is in the way.
    Shut(Reason),
}

/// The moment, and what the clock on the wall shows then: looked up at most once in a decision.
pub(super) struct Clock<'z> {
    zone: &'z Zone,
    moment: Moment,
    wall: OnceCell<Option<i64>>,
}

impl<'z> Clock<'z> {
    pub(super) fn at(zone: &'z Zone, moment: Moment) -> Self {
        Self {
            zone,
            moment,
            wall: OnceCell::new(),
        }
    }

    /// While the clock can't be trusted, what allows is shut and what denies is not.
    fn judge(&self, window: Window, denies: bool) -> Result<(), Reason> {
        if !self.moment.trusted {
            return if denies {
                Ok(())
            } else {
                Err(Reason::ClockUntrusted)
            };
        }
        let wall = *self.wall.get_or_init(|| self.zone.wall(self.moment.now));
        match wall {
            Some(wall) if window.shows(wall) => Ok(()),
            _ => Err(Reason::OutsideWindow),
        }
    }
}

impl Rule {
    pub(super) fn fit(&self, request: &Request<'_>, clock: &Clock<'_>) -> Fit {
        if !self.ports.is_empty() && self.ports.binary_search(&request.port).is_err() {
            return Fit::Port;
        }
        // Names are asked of the box alone, whichever way a question takes.
        if !self.denies() && DNS.contains(&request.port) {
            return Fit::Port;
        }
        self.fit_at_its_ports(request, clock)
    }

    /// Whatever the port is.
    pub(super) fn fit_at_its_ports(&self, request: &Request<'_>, clock: &Clock<'_>) -> Fit {
        // `*` is any agent. It is not whoever is known by an address alone, unless that is to be denied.
        if !self.denies() && self.group.is_some() && request.agent_id.is_empty() {
            return Fit::Nobody;
        }
        if !self.denies() && !self.means_inside(request) {
            return Fit::Inside;
        }
        if !self.method_fits(request) {
            return Fit::Method;
        }
        if !self.path_fits(request) {
            return Fit::Path;
        }
        match self.window.map(|window| clock.judge(window, self.denies())) {
            Some(Err(reason)) => Fit::Shut(reason),
            _ => Fit::Yes,
        }
    }

    /// Whoever writes a rule for every destination, or for `0.0.0.0/0`, means the world: not what is inside, such as a
    /// cloud's metadata. False: the request is for such an address, and none of the rule's networks is about it.
    fn means_inside(&self, request: &Request<'_>) -> bool {
        let Host::Address(address) = request.host else {
            return true;
        };
        let address = plain_address(address);
        !is_inside(address)
            || self
                .networks
                .iter()
                .any(|network| network.contains(address) && !reaches_inside(network))
    }

    fn method_fits(&self, request: &Request<'_>) -> bool {
        if self.methods.is_empty() {
            return true;
        }
        let names = |wanted: &str| self.methods.iter().any(|method| &**method == wanted);
        match request.method {
            _ if request.tunnel => names(CONNECT) || self.denies_unseen(),
            Some(method) => names(method),
            None => self.denies_unseen(),
        }
    }

    fn path_fits(&self, request: &Request<'_>) -> bool {
        if self.prefixes.is_empty() {
            return true;
        }
        match request.path {
            Some(path) if !request.tunnel => {
                let below = |path: &str| self.prefixes.iter().any(|prefix| is_below(path, prefix));
                // Servers read parameters of segments in two ways: what denies holds for either, what allows for both.
                let bare = without_parameters(path);
                match self.action {
                    Action::Deny => below(path) || below(&bare),
                    Action::Allow => below(path) && below(&bare),
                }
            }
            _ => self.denies_unseen(),
        }
    }

    /// Whether it denies requests by something that a tunnel hides.
    fn denies_unseen(&self) -> bool {
        let by_method = self.methods.iter().any(|method| &**method != CONNECT);
        self.denies() && (by_method || !self.prefixes.is_empty())
    }

    /// Whether what can't be judged is denied by it. In mode report it would let pass instead.
    fn denies(&self) -> bool {
        self.action == Action::Deny && self.mode == RuleMode::Enforce
    }
}
