//! The flows that the front has let through and that have not ended, each with the name that it was let through for.
//!
//! The kernel judges a flow by its addresses. Where two names share one, only whoever knows the name can tell that a
//! live flow may not go on: so this is asked after every change of revision, window, clock or cap. Pure and bounded.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use clawgress_config::policy::DomainPattern;
use clawgress_policy::{Index, Moment, Reason};

use crate::front::log::{Event, Path, What};

/// More than haproxy is configured to carry at once.
pub const MOST_FLOWS: usize = 16_384;

/// The agent's end: its address and port, and the path, which tells the port that it dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct End {
    pub source: SocketAddr,
    pub path: Path,
}

/// What a flow was let through for.
#[derive(Debug)]
struct Let {
    name: String,
    /// What the name led to. None: the flow went to a next gateway.
    site: Option<IpAddr>,
}

#[derive(Debug, Default)]
pub struct Live {
    /// Rarely more than one: an agent may use a port again before the front has let go of its last flow.
    flows: HashMap<End, Vec<Let>>,
    count: usize,
}

/// The table is full. What was let through can't be judged again later, so it must not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Live {
    /// Takes note of an event, in the order in which they arrive.
    pub fn note(&mut self, event: &Event) -> Result<(), Full> {
        let end = End {
            source: event.source,
            path: event.path,
        };
        let Some(name) = &event.name else {
            return Ok(());
        };
        match event.what {
            What::Open if self.count >= MOST_FLOWS => return Err(Full),
            What::Open => {
                self.flows.entry(end).or_default().push(Let {
                    name: name.clone(),
                    site: event.site,
                });
                self.count += 1;
            }
            // A flow may be denied after it was let through, by what it says next.
            What::Close(_) | What::Deny(_) => {
                if let Some(known) = self.flows.get_mut(&end) {
                    if let Some(at) = known.iter().position(|known| known.name == *name) {
                        known.swap_remove(at);
                        self.count -= 1;
                    }
                    if known.is_empty() {
                        self.flows.remove(&end);
                    }
                }
            }
        }
        Ok(())
    }

    /// Everything that may not go on now, and why.
    pub fn forbidden(
        &self,
        index: &Index,
        moment: Moment,
        over_cap: &BTreeSet<(String, DomainPattern)>,
    ) -> Vec<(End, Reason)> {
        let judged = self.flows.iter().filter_map(|(end, known)| {
            let reason = known
                .iter()
                .find_map(|flow| against(*end, flow, index, moment, over_cap))?;
            Some((*end, reason))
        });
        judged.collect()
    }

    /// All of them. A connection of the front that is not in here is one whose line of the log was lost.
    pub fn ends(&self) -> impl Iterator<Item = End> {
        self.flows.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

fn against(
    end: End,
    flow: &Let,
    index: &Index,
    moment: Moment,
    over_cap: &BTreeSet<(String, DomainPattern)>,
) -> Option<Reason> {
    let name = &flow.name;
    let Some(who) = index.principal_of(end.source.ip()) else {
        return Some(Reason::UnknownSource);
    };
    let site = flow.site.as_slice();
    if let Err(reason) = index.reach_on_wire(who, name, end.path.port(), site, moment) {
        return Some(reason);
    }
    let holder = &index.holder(who).name;
    let is_over = |(principal, pattern): &(String, DomainPattern)| {
        principal == holder && pattern.matches(name)
    };
    over_cap.iter().any(is_over).then_some(Reason::OverCap)
}
