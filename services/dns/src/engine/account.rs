//! Whatever was decided is counted once, and a denial is an event.

use std::time::Instant;

use clawgress_link::pins::Count;
use clawgress_policy::Reason;

use super::{Allowed, Asker, Denial, Engine, lock};
use crate::answer::Answer;
use crate::counts::Outcome;
use crate::events::Deny;
use crate::question::Question;
use crate::registered::registered_domain;
use crate::rules::{Rules, Who};
use crate::trail::{Asked, By};

/// Stands for whoever is no principal.
const NOBODY: &str = "-";

impl Engine {
    /// True, here and below: it is recorded, and may be said.
    pub(super) fn answered(&self, allowed: &Allowed<'_>, cache_hit: bool) -> bool {
        let outcome = Outcome {
            cache_hit,
            denied: None,
        };
        lock(&self.counts).add(allowed.who.name(), allowed.pattern, outcome);
        self.record(allowed, None)
    }

    fn record(&self, allowed: &Allowed<'_>, reason: Option<Reason>) -> bool {
        // The front's flows are recorded when they end; its questions are nobody's.
        let (Who::Agent(who), Asker::Agent(source)) = (allowed.who, allowed.asker) else {
            return true;
        };
        lock(&self.trail).record(&Asked {
            who: Some(who),
            source,
            name: allowed.name,
            kind: allowed.question.kind(),
            revision: Some(allowed.rules.revision),
            reason,
            by: allowed.by,
        })
    }

    /// Allowed, and yet without an answer.
    pub(super) fn failed(&self, allowed: &Allowed<'_>) -> bool {
        let outcome = Outcome {
            cache_hit: false,
            denied: Some(Reason::Unavailable),
        };
        lock(&self.counts).add(allowed.who.name(), allowed.pattern, outcome);
        self.record(allowed, Some(Reason::Unavailable))
    }

    /// The same where the rule is not at hand.
    pub(super) fn failed_for(&self, question: &Question, asker: Asker, what: &str) -> Answer {
        let rules = self.rules.load();
        let who = rules.as_deref().and_then(|rules| match asker {
            Asker::Agent(source) => rules.agent(source),
            Asker::Front => Some(Who::Front),
        });
        let outcome = Outcome {
            cache_hit: false,
            denied: Some(Reason::Unavailable),
        };
        let domain = registered_domain(question.name.as_deref().unwrap_or_default());
        lock(&self.counts).add(who.map_or(NOBODY, Who::name), domain, outcome);
        if let Asker::Agent(source) = asker {
            // It fails, recorded or not.
            lock(&self.trail).record(&Asked {
                who: who.and_then(Who::principal),
                source,
                name: &question.shown(),
                kind: question.kind(),
                revision: rules.as_deref().map(|rules| rules.revision),
                reason: Some(Reason::Unavailable),
                by: By::NOTHING,
            });
        }
        Answer::failed(what)
    }

    pub(super) fn denied(
        &self,
        question: &Question,
        asker: Asker,
        by: Option<(&Rules, Option<Who<'_>>)>,
        denial: &Denial<'_>,
    ) -> bool {
        let principal = by.and_then(|(_, who)| who).map_or(NOBODY, Who::name);
        let outcome = Outcome {
            cache_hit: false,
            denied: Some(denial.reason),
        };
        let name = question.name.as_deref().unwrap_or_default();
        let domain = denial.pattern.unwrap_or_else(|| registered_domain(name));
        lock(&self.counts).add(principal, domain, outcome);
        let recorded = match asker {
            Asker::Front => true,
            Asker::Agent(source) => lock(&self.trail).record(&Asked {
                who: by.and_then(|(_, who)| who).and_then(Who::principal),
                source,
                name: &question.shown(),
                kind: question.kind(),
                revision: by.map(|(rules, _)| rules.revision),
                reason: Some(denial.reason),
                by: denial.by,
            }),
        };
        // Without a policy the box is sealed; that is one fact, not one event for each question.
        let Some((rules, _)) = by.filter(|(rules, _)| rules.deny_log) else {
            return recorded;
        };
        let deny = Deny {
            principal,
            source: asker.source(),
            name: &question.shown(),
            kind: question.kind().to_string(),
            reason: denial.reason,
            label: denial.label,
            revision: rules.revision,
        };
        lock(&self.events).deny(&deny, Instant::now());
        recorded
    }

    /// A rule allows the name, and yet.
    pub(super) fn denied_though_allowed(&self, allowed: &Allowed<'_>, reason: Reason) -> bool {
        let denial = Denial {
            reason,
            label: allowed.label,
            pattern: Some(allowed.pattern),
            by: By {
                label: allowed.label,
                ..By::NOTHING
            },
        };
        let by = Some((allowed.rules, Some(allowed.who)));
        self.denied(allowed.question, allowed.asker, by, &denial)
    }

    /// What was counted since the last time.
    pub fn take_counts(&self) -> Vec<Count> {
        lock(&self.counts).take()
    }

    /// To be called about once a second.
    pub fn end_second(&self) {
        lock(&self.trail).end_second();
    }

    /// To be called about once a second.
    pub fn report_suppressed(&self) {
        lock(&self.events).report_suppressed(Instant::now());
    }
}
