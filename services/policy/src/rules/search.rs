//! The search for the rule that decides, over the lists of a destination: each is left as soon as nothing better can come.

use clawgress_config::access::Action;

use super::{
    Request, Rules,
    build::Rule,
    condition::{Clock, Fit},
    destination::{List, Via},
    identity::Class,
};
use crate::{Moment, Reason};

/// No rule has this rank.
const NONE: u32 = u32::MAX;

pub(super) struct Search<'r, 'q> {
    rules: &'r Rules,
    request: &'q Request<'q>,
    clock: Clock<'r>,
    /// The lowest ranks so far: of what decides, of a denial in report mode, and of such a one that raises an alert.
    first: u32,
    reported: u32,
    alert: u32,
    /// Of the first rule that would allow but for its window.
    shut: Option<(u32, Reason)>,
}

impl<'r, 'q> Search<'r, 'q> {
    pub(super) fn of(rules: &'r Rules, request: &'q Request<'q>, moment: Moment) -> Self {
        Self {
            rules,
            request,
            clock: Clock::at(&rules.zone, moment),
            first: NONE,
            reported: NONE,
            alert: NONE,
            shut: None,
        }
    }

    pub(super) fn visit(&mut self, list: &List, class: Class<'_>, via: Via) {
        list.open.iter().all(|rank| self.consider(*rank, via));
        match class {
            Class::Known(rules) => list
                .named
                .each_common(rules, |rank| self.consider(rank, via)),
            Class::Other(identities) => list.named.each(|rank| {
                let rule = self.rules.in_order.get(rank as usize);
                let group = rule.and_then(|rule| rule.group);
                let meant = group.is_some_and(|group| identities.matches(group, self.request));
                rank < self.first && (!meant || self.consider(rank, via))
            }),
            Class::Disabled => {}
        }
    }

    /// Whether a later one of the same list could still matter.
    fn consider(&mut self, rank: u32, via: Via) -> bool {
        if rank >= self.first {
            return false;
        }
        let Some(rule) = self.rules.in_order.get(rank as usize) else {
            return false;
        };
        if via == Via::Resolved && rule.action == Action::Allow {
            return true;
        }
        match rule.fit(self.request, &self.clock) {
            Fit::Yes if rule.is_report() => {
                self.reported = self.reported.min(rank);
                if rule.alert {
                    self.alert = self.alert.min(rank);
                }
                true
            }
            Fit::Yes => {
                self.first = rank;
                false
            }
            Fit::Shut(reason) => {
                let earlier = self.shut.is_none_or(|(known, _)| rank < known);
                if rule.action == Action::Allow && earlier {
                    self.shut = Some((rank, reason));
                }
                true
            }
            Fit::Port | Fit::Method | Fit::Path | Fit::Inside | Fit::Nobody => true,
        }
    }

    /// The rule that decides.
    pub(super) fn first(&self) -> Option<&'r Rule> {
        self.rules.in_order.get(self.first as usize)
    }

    /// The first rule in report mode that denies and comes before the one that decides.
    pub(super) fn reported(&self) -> Option<&'r Rule> {
        let before = self.reported < self.first;
        self.rules
            .in_order
            .get(self.reported as usize)
            .filter(|_| before)
    }

    pub(super) fn alerts(&self) -> bool {
        self.alert < self.first || self.first().is_some_and(|rule| rule.alert)
    }

    /// Why the first rule that would have allowed is shut.
    pub(super) fn shut(&self) -> Option<Reason> {
        self.shut.map(|(_, reason)| reason)
    }
}
