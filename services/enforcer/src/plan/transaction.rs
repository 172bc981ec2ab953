//! The transactions that bring a table into the kernel: anew, kept, or from another plan's to this one.
//!
//! Chains are declared before maps whose elements lead to them: nft 1.0.6 sends a map's elements with the map.

use std::collections::BTreeSet;

use nftables::{
    schema::{Element, NfListObject, Rule as RuleObject, Table},
    types::NfFamily,
};
use serde_json::{Map, Value, json};

use super::{
    carry::MeterObjects,
    layout::FAMILY,
    ruleset::{ChainContent, Content, Exchange, Quota, Ruleset, Touched},
    statement::value,
};

impl Ruleset {
    fn table_object(&self) -> Value {
        value(NfListObject::Table(Table {
            family: NfFamily::INet,
            name: self.table.into(),
            handle: None,
        }))
    }

    /// The table as the kernel is to have it, whatever it had.
    pub(super) fn anew(&self) -> Vec<Value> {
        let table = self.table_object();
        // Declaring it makes the delete valid the first time, too.
        let mut commands = vec![add(table.clone()), json!({"delete": table}), add(table)];
        self.declare(&mut commands, &MeterObjects::default());
        commands.extend(
            self.sets
                .iter()
                .chain(&self.maps)
                .filter_map(|set| self.fill(set)),
        );
        commands.extend(self.chains.iter().flat_map(|chain| self.fill_chain(chain)));
        commands
    }

    /// The table kept: rules and contents exchanged, counters, quotas and learned sets left as they are, and what
    /// `existing` has and this has not removed.
    pub(super) fn kept(&self, existing: &MeterObjects) -> Vec<Value> {
        let table = self.table_object();
        // Flushing a table takes its rules and nothing else.
        let mut commands = vec![add(table.clone()), json!({"flush": table})];
        self.declare(&mut commands, existing);
        for set in self.sets.iter().filter(|set| !set.foreign) {
            commands.push(self.flush_set(set));
            commands.extend(self.fill(set));
        }
        commands.extend(self.chains.iter().flat_map(|chain| self.fill_chain(chain)));
        let stale = |kind: &'static str,
                     had: &BTreeSet<String>,
                     have: BTreeSet<&str>|
         -> Vec<Value> {
            had.iter()
                .filter(|name| !have.contains(name.as_str()))
                .map(|name| json!({"delete": {kind: {"family": FAMILY, "table": self.table, "name": name}}}))
                .collect()
        };
        let chains = self
            .chains
            .iter()
            .map(|chain| chain.name.as_str())
            .collect();
        let sets = self.sets.iter().map(|set| set.name.as_str()).collect();
        let quotas = self
            .quotas
            .iter()
            .map(|quota| quota.name.as_str())
            .collect();
        let counters = self.counters.iter().map(String::as_str).collect();
        commands.extend(stale("chain", &existing.chains, chains));
        commands.extend(stale("set", &existing.sets, sets));
        commands.extend(stale("quota", &existing.quotas, quotas));
        commands.extend(stale("counter", &existing.counters, counters));
        commands
    }

    /// Whether the kernel would be told nothing new by this but what lives in sets.
    pub(super) fn says_the_same(&self, before: &Self) -> bool {
        self.same_frame(before)
            && self
                .sets
                .iter()
                .zip(&before.sets)
                .all(|(now, was)| now.alive || now.elements == was.elements)
            && self
                .chains
                .iter()
                .zip(&before.chains)
                .all(|(now, was)| now.rules == was.rules)
    }

    pub(super) fn same_frame(&self, before: &Self) -> bool {
        let sets = || self.sets.iter().zip(&before.sets);
        let chains = || self.chains.iter().zip(&before.chains);
        let quota = |quota: &Quota| (quota.name.clone(), quota.bytes);
        self.counters == before.counters
            && self.maps == before.maps
            && self.sets.len() == before.sets.len()
            && self.chains.len() == before.chains.len()
            && self
                .quotas
                .iter()
                .map(quota)
                .eq(before.quotas.iter().map(quota))
            && sets().all(|(now, was)| now.declared == was.declared)
            && sets().all(|(now, was)| now.exchangeable || now.elements == was.elements)
            && chains().all(|(now, was)| now.declared == was.declared)
    }

    /// From `before`, as it is in the kernel but for what lives in the `touched` sets, to this. None: they differ in more
    /// than rules and living sets.
    pub(super) fn after(&self, before: &Self, touched: &Touched) -> Option<Vec<Value>> {
        let sets = || self.sets.iter().zip(&before.sets);
        let chains = || self.chains.iter().zip(&before.chains);
        if !self.same_frame(before) {
            return None;
        }
        let mut commands = Vec::new();
        for (set, was) in sets().filter(|(set, _)| !set.foreign) {
            if (set.alive && touched.contains(&set.name)) || set.elements != was.elements {
                commands.push(self.flush_set(set));
                commands.extend(self.fill(set));
            }
        }
        for (chain, was) in chains() {
            if chain.rules != was.rules {
                commands.push(json!({"flush": {"chain": {"family": FAMILY, "table": self.table, "name": chain.name}}}));
                commands.extend(self.fill_chain(chain));
            }
        }
        Some(commands)
    }

    /// The sets to be exchanged where nothing but the content of such is another than in `before`. None: more is.
    pub(super) fn exchange_after(&self, before: &Self, touched: &Touched) -> Option<Vec<Exchange>> {
        let mut chains = self.chains.iter().zip(&before.chains);
        if !self.same_frame(before) || !chains.all(|(now, was)| now.rules == was.rules) {
            return None;
        }
        let sets = self.sets.iter().zip(&before.sets);
        let others = sets.filter(|(set, was)| {
            !set.foreign
                && ((set.alive && touched.contains(&set.name)) || set.elements != was.elements)
        });
        Some(
            others
                .map(|(set, _)| Exchange {
                    table: self.table,
                    set: set.name.clone(),
                    elements: set.elements.clone(),
                })
                .collect(),
        )
    }

    /// Learned sets that exist are not declared again: to nft 1.0.6 they would be others, for it infers one of their flags.
    fn declare(&self, commands: &mut Vec<Value>, existing: &MeterObjects) {
        commands.extend(self.counters.iter().map(
            |name| json!({"add": {"counter": {"family": FAMILY, "table": self.table, "name": name}}}),
        ));
        // `inv`: it matches when it is used up. The crate's numbers are too small for a day's bytes.
        commands.extend(self.quotas.iter().map(|quota| {
            json!({"add": {"quota": {"family": FAMILY, "table": self.table, "name": quota.name,
                "bytes": quota.bytes, "used": quota.used, "inv": true}}})
        }));
        commands.extend(self.chains.iter().map(|chain| add(chain.declared.clone())));
        commands.extend(
            self.sets
                .iter()
                .chain(&self.maps)
                .filter(|set| !(set.foreign && existing.sets.contains(&set.name)))
                .map(|set| add(set.declared.clone())),
        );
    }

    fn flush_set(&self, set: &Content) -> Value {
        json!({"flush": {set.word: {"family": FAMILY, "table": self.table, "name": set.name}}})
    }

    fn fill(&self, set: &Content) -> Option<Value> {
        if set.elements.is_empty() {
            return None;
        }
        let element = Element {
            family: NfFamily::INet,
            table: self.table.into(),
            name: set.name.clone().into(),
            elem: Vec::new().into(),
        };
        let mut element = value(NfListObject::Element(element));
        element["element"]["elem"] = set.elements.clone().into();
        Some(add(element))
    }

    fn fill_chain<'r>(&'r self, chain: &'r ChainContent) -> impl Iterator<Item = Value> + 'r {
        chain.rules.iter().map(|rule| {
            let object = RuleObject {
                family: NfFamily::INet,
                table: self.table.into(),
                chain: chain.name.clone().into(),
                ..RuleObject::default()
            };
            let mut object = value(NfListObject::Rule(object));
            object["rule"]["expr"] = rule.clone().into();
            add(object)
        })
    }
}

/// Takes the object: a whole ruleset is not to be copied on its way.
fn add(object: Value) -> Value {
    Value::Object(Map::from_iter([("add".to_owned(), object)]))
}
