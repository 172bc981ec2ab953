//! Which rules are for whom. The agents of the revision have their answer ready; anybody else is compared rule by rule.

use std::collections::HashMap;

use clawgress_config::access::{Access, Agent, IdentityMatch, Status, identity_matches};

use super::{Request, set::Set};

/// Rules of one identity match are one group.
pub(super) type Group = u32;

pub(super) struct Identities {
    groups: Vec<IdentityMatch>,
    known: HashMap<Box<str>, Known>,
    /// The rules that are for agents of each class, without those that are for everybody.
    classes: Vec<Set>,
}

struct Known {
    team: Box<str>,
    project: Box<str>,
    environment: Box<str>,
    class: u32,
    disabled: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Class<'r> {
    /// Rules that name somebody, and this agent among them.
    Known(&'r Set),
    /// No agent of the revision, or one that differs from it.
    Other(&'r Identities),
    Disabled,
}

impl Class<'_> {
    pub(super) fn is_disabled(self) -> bool {
        matches!(self, Self::Disabled)
    }
}

impl Identities {
    pub(super) fn class(&self, request: &Request<'_>) -> Class<'_> {
        let Some(known) = self.known.get(request.agent_id) else {
            return Class::Other(self);
        };
        if known.disabled {
            return Class::Disabled;
        }
        let same = *known.team == *request.team_id
            && *known.project == *request.project_id
            && *known.environment == *request.environment;
        match self.classes.get(known.class as usize) {
            Some(rules) if same => Class::Known(rules),
            _ => Class::Other(self),
        }
    }

    pub(super) fn matches(&self, group: Group, request: &Request<'_>) -> bool {
        self.groups.get(group as usize).is_some_and(|group| {
            means(
                group,
                request.agent_id,
                request.team_id,
                request.project_id,
                request.environment,
            )
        })
    }
}

pub(super) fn means(
    group: &IdentityMatch,
    agent: &str,
    team: &str,
    project: &str,
    environment: &str,
) -> bool {
    [
        (&group.agents, agent),
        (&group.projects, project),
        (&group.teams, team),
        (&group.environments, environment),
    ]
    .into_iter()
    .all(|(words, id)| {
        // Most words have no star, and then the set finds them.
        words.is_empty()
            || words.contains(id)
            || words
                .iter()
                .any(|word| word.contains('*') && identity_matches(word, id))
    })
}

/// Collects the groups, and then makes the classes.
#[derive(Default)]
pub(super) struct Draft {
    groups: Vec<IdentityMatch>,
    numbers: HashMap<IdentityMatch, Group>,
    /// Ascending.
    ranks: Vec<Vec<u32>>,
}

impl Draft {
    /// The group of a rule; None: it is for everybody. Ranks must ascend.
    pub(super) fn add(&mut self, identity: &IdentityMatch, rank: u32) -> Option<Group> {
        if *identity == IdentityMatch::default() {
            return None;
        }
        let group = self.numbers.get(identity).copied().unwrap_or_else(|| {
            let group = self.groups.len() as Group;
            self.numbers.insert(identity.clone(), group);
            self.groups.push(identity.clone());
            self.ranks.push(Vec::new());
            group
        });
        if let Some(ranks) = self.ranks.get_mut(group as usize) {
            ranks.push(rank);
        }
        Some(group)
    }

    pub(super) fn finish(self, access: &Access, rules: usize) -> Identities {
        let words = Words::of(&self.groups);
        let mut classes: Vec<Set> = Vec::new();
        let mut numbers: HashMap<Vec<Group>, u32> = HashMap::new();
        let mut known = HashMap::with_capacity(access.agents.len());
        for (id, agent) in &access.agents {
            let groups = words.groups_of(&self.groups, id, agent);
            let class = *numbers.entry(groups).or_insert_with_key(|groups| {
                let ranks = groups
                    .iter()
                    .filter_map(|group| self.ranks.get(*group as usize));
                let mut ranks: Vec<u32> = ranks.flatten().copied().collect();
                ranks.sort_unstable();
                classes.push(Set::of(&ranks, rules));
                classes.len() as u32 - 1
            });
            known.insert(
                id.as_str().into(),
                Known {
                    team: agent.team_id.as_str().into(),
                    project: agent.project_id.as_str().into(),
                    environment: agent.environment.as_str().into(),
                    class,
                    disabled: agent.status == Status::Disabled,
                },
            );
        }
        Identities {
            groups: self.groups,
            known,
            classes,
        }
    }
}

/// Groups by the words of their narrowest field that is written, so that an agent is compared with few of them.
struct Words<'g> {
    /// By agent, project, team, environment.
    fields: [Field<'g>; 4],
}

#[derive(Default)]
struct Field<'g> {
    plain: HashMap<&'g str, Vec<Group>>,
    /// Words with their one star at the end, by what stands before it: by far the most that have one.
    begun: HashMap<&'g str, Vec<Group>>,
    starred: HashMap<&'g str, Vec<Group>>,
}

impl<'g> Field<'g> {
    fn add(&mut self, word: &'g str, group: Group) {
        let (into, key) = match word.split_once('*') {
            None => (&mut self.plain, word),
            Some((head, "")) => (&mut self.begun, head),
            Some(_) => (&mut self.starred, word),
        };
        into.entry(key).or_default().push(group);
    }

    fn find(&self, id: &str, found: &mut Vec<Group>) {
        found.extend(self.plain.get(id).into_iter().flatten());
        if !self.begun.is_empty() {
            let heads = (0..=id.len()).filter_map(|end| id.get(..end));
            found.extend(heads.filter_map(|head| self.begun.get(head)).flatten());
        }
        for (word, groups) in &self.starred {
            if identity_matches(word, id) {
                found.extend(groups);
            }
        }
    }
}

impl<'g> Words<'g> {
    fn of(groups: &'g [IdentityMatch]) -> Self {
        let mut words = Self {
            fields: Default::default(),
        };
        for (group, number) in groups.iter().zip(0..) {
            let written = [
                &group.agents,
                &group.projects,
                &group.teams,
                &group.environments,
            ];
            let narrowest = written
                .into_iter()
                .zip(&mut words.fields)
                .find(|(written, _)| !written.is_empty());
            if let Some((written, field)) = narrowest {
                for word in written {
                    field.add(word, number);
                }
            }
        }
        words
    }

    /// Ascending.
    fn groups_of(&self, groups: &[IdentityMatch], id: &str, agent: &Agent) -> Vec<Group> {
        let mut found = Vec::new();
        let ids = [id, &agent.project_id, &agent.team_id, &agent.environment];
        for (id, field) in ids.into_iter().zip(&self.fields) {
            field.find(id, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found.retain(|number| {
            groups.get(*number as usize).is_some_and(|group| {
                means(
                    group,
                    id,
                    &agent.team_id,
                    &agent.project_id,
                    &agent.environment,
                )
            })
        });
        found
    }
}
