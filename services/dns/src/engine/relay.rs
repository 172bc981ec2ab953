//! An allowed question: what is known of its name, what of that may be told to this asker, and whether it is pinned.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clawgress_policy::{Reason, rules::EVERY_NAME};
use hickory_proto::rr::Name;

use super::{Allowed, Engine, Step, Wanted, lock, say, with_key};
use crate::answer::Answer;
use crate::facts::{self, Address, Facts, Found};
use crate::pins::GRACE;
use crate::registered::registered_domain;
use crate::rules::{Leads, Who};

impl Engine {
    pub(super) fn relay(&self, allowed: &Allowed<'_>, fetched: Option<&Arc<Facts>>) -> Step {
        let known = match fetched {
            Some(_) => None,
            None => self.cached(allowed),
        };
        let wild = allowed.wild();
        if let Some(facts) = fetched.or(known.as_ref()) {
            if wild && let (None, Who::Agent(principal)) = (fetched, allowed.who) {
                lock(&self.budgets).note(&principal.name, allowed.name, allowed.now);
            }
            return self.tell(allowed, facts, fetched.is_none());
        }
        if wild && !self.within_budget(allowed) {
            let recorded = self.denied_though_allowed(allowed, Reason::NameBudget);
            return say(recorded, Answer::denied(Reason::NameBudget, allowed.label));
        }
        Step::Ask {
            name: allowed.name.to_owned(),
            kind: allowed.question.kind(),
            wild,
        }
    }

    /// What of these addresses may be told, and what has to be pinned before that: a rule may deny where a name leads.
    fn by_rules(allowed: &Allowed<'_>, visible: Vec<IpAddr>) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let Allowed {
            rules,
            who,
            name,
            moment,
            ..
        } = *allowed;
        if !allowed.by_rules {
            let to_pin = if allowed.pin {
                visible.clone()
            } else {
                Vec::new()
            };
            return (visible, to_pin);
        }
        let (mut told, mut to_pin) = (Vec::new(), Vec::new());
        for address in visible {
            let leads = rules.leads(who, name, address, moment);
            if leads != Leads::Nowhere {
                told.push(address);
            }
            if leads == Leads::Pinned && allowed.pin {
                to_pin.push(address);
            }
        }
        (told, to_pin)
    }

    fn within_budget(&self, allowed: &Allowed<'_>) -> bool {
        let Allowed {
            rules,
            name,
            moment,
            now,
            ..
        } = *allowed;
        // A rule for every destination has a budget for each domain that somebody registered.
        let every = format!("*.{}", registered_domain(name));
        let wildcard = |pattern| match pattern {
            EVERY_NAME => every.as_str(),
            written => written,
        };
        let mut budgets = lock(&self.budgets);
        match allowed.who {
            Who::Agent(principal) => {
                budgets.spend(&principal.name, wildcard(allowed.pattern), name, now)
            }
            Who::Front => {
                let entitled = rules
                    .on_wire(name, moment)
                    .map(|(who, pattern)| (who.name.as_str(), wildcard(pattern)));
                budgets.spend_for_front(entitled, name, now)
            }
        }
    }

    fn cached(&self, allowed: &Allowed<'_>) -> Option<Arc<Facts>> {
        with_key(allowed.name, allowed.question.kind(), |key| {
            let mut cache = lock(&self.cache);
            let facts = cache.get(key)?;
            (facts.expires > allowed.now).then(|| Arc::clone(facts))
        })
    }

    fn tell(&self, allowed: &Allowed<'_>, facts: &Arc<Facts>, from_cache: bool) -> Step {
        let ttl = facts.ttl(allowed.now);
        // Names that the zone's owner chose are left out under a wildcard: they would carry whatever it likes.
        let visible = |chain: &Vec<_>| {
            if allowed.wild() {
                Vec::new()
            } else {
                chain.clone()
            }
        };
        let answer = match &facts.found {
            Found::Addresses { chain, addresses } => {
                return self.tell_addresses(allowed, facts, visible(chain), addresses, from_cache);
            }
            Found::Records(data) => Answer::records(Vec::new(), data.clone(), ttl),
            Found::Nothing { chain } => Answer::records(visible(chain), Vec::new(), ttl),
            Found::NoSuchName => Answer::no_such_name(),
            Found::Failed => {
                let recorded = self.failed(allowed);
                return say(recorded, Answer::unreachable());
            }
            Found::Disagreement => {
                let recorded = self.failed(allowed);
                return say(
                    recorded,
                    Answer::failed("a new policy is being put in force"),
                );
            }
        };
        say(self.answered(allowed, from_cache), answer)
    }

    fn tell_addresses(
        &self,
        allowed: &Allowed<'_>,
        facts: &Facts,
        chain: Vec<Name>,
        addresses: &[Address],
        from_cache: bool,
    ) -> Step {
        let own = self.own.load();
        let Allowed {
            rules, who, name, ..
        } = *allowed;
        let visible: Vec<IpAddr> = addresses
            .iter()
            .filter(|one| {
                let suspect =
                    one.inside || own.contains(&one.address) || rules.is_near(one.address);
                // Where the front would lead a flow into this box, no network of the policy makes up for it.
                let into_the_box = matches!(who, Who::Front) && own.contains(&one.address);
                !suspect || !into_the_box && rules.holds(who, name, one.address, allowed.moment)
            })
            .map(|one| one.address)
            .collect();
        if visible.is_empty() {
            let recorded = self.denied_though_allowed(allowed, Reason::Rebinding);
            return say(recorded, Answer::stripped(allowed.label));
        }
        let (visible, to_pin) = Self::by_rules(allowed, visible);
        if visible.is_empty() {
            let recorded = self.denied_though_allowed(allowed, Reason::Rule);
            return say(recorded, Answer::denied(Reason::Rule, allowed.label));
        }
        let until = facts.kept_until(allowed.now) + GRACE;
        let pinned = to_pin.is_empty() || lock(&self.pinned).holds(who.id(), name, &to_pin, until);
        if pinned {
            let recorded = self.answered(allowed, from_cache);
            let answer = Answer::addresses(chain, &visible, facts.ttl(allowed.now));
            return say(recorded, answer);
        }
        Step::Pin(Wanted {
            principal: who.name().to_owned(),
            id: who.id(),
            revision: rules.revision,
            epoch: self.epoch.load(Ordering::Acquire),
            name: name.to_owned(),
            addresses: to_pin,
            // A later answer from the same facts is told for the shortest time at least, and needs no new pin.
            until: until.max(facts.expires + facts::SHORTEST + GRACE),
        })
    }
}
