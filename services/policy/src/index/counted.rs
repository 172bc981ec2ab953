//! By whose limits counts what goes by way of the proxy.
//!
//! The kernel knows a host by its own flows; those of the proxy are the proxy's. So somebody has to tell the kernel whose
//! each of them is and which name it is for: this says what has to be told.

use std::net::IpAddr;

use clawgress_config::policy::{Cap, DomainPattern};

use super::{Index, Principal};

/// What the proxy carries, as far as limits count it.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'i> {
    /// Whose caps and limit they are.
    pub holder: &'i Principal,
    /// The most specific of the holder's caps that mean the name. It says which the others are: see `caps`. None: the
    /// name has no cap, or it is an address that is asked for.
    pub pattern: Option<&'i DomainPattern>,
}

impl Principal {
    /// Whether it has a rate of its own, below the ceiling of all.
    pub fn has_own_rate(&self) -> bool {
        !self.scope.global && self.scope.egress_kbps.is_some()
    }

    /// Its own caps that mean whatever this pattern means: itself, and wildcards around it.
    pub fn caps_around(
        &self,
        pattern: &DomainPattern,
    ) -> impl Iterator<Item = &(DomainPattern, Cap)> {
        let around = move |cap: &DomainPattern| {
            let above = || pattern.base().strip_suffix(cap.base());
            cap == pattern || (cap.is_wildcard() && above().is_some_and(|rest| rest.ends_with('.')))
        };
        self.caps.iter().filter(move |(cap, _)| around(cap))
    }
}

impl Index {
    /// For a source and a canonical name; without a name: for an address that is asked for. None: nobody counts it.
    pub fn counted_on_proxy(&self, source: IpAddr, name: Option<&str>) -> Option<Counted<'_>> {
        let holder = self.holder(self.principal_of(source)?);
        let found = name.and_then(|name| {
            // Bounded by the holder, and not by the name that is asked for.
            let caps = self.caps(holder);
            (!caps.is_empty())
                .then(|| self.names.matching(name))?
                .find_map(|entry| {
                    let at = caps.binary_search_by(|cap| cap.0.as_str().cmp(entry.pattern()));
                    caps.get(at.ok()?)
                })
        });
        let pattern = found.map(|(pattern, _)| pattern);
        // It may be the address of a name that has a cap.
        let by_address = name.is_none() && !holder.caps.is_empty();
        (holder.has_own_rate() || pattern.is_some() || by_address)
            .then_some(Counted { holder, pattern })
    }
}
