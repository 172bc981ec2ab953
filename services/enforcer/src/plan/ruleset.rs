//! A table as data, and the transactions that bring it into the kernel. Knows the schema of libnftables, not what a
//! rule means.
//!
//! Chains are declared before maps whose elements lead to them: nft 1.0.6 sends a map's elements with the map.

use std::collections::BTreeSet;

use nftables::{
    schema::{
        Chain, Element, NfListObject, Rule as RuleObject, Set, SetFlag, SetType, SetTypeValue,
        Table,
    },
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};
use serde_json::{Map, Value, json};

use super::{
    carry::MeterObjects,
    layout::FAMILY,
    statement::{Rule, Word, value},
};

/// One table.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruleset {
    table: &'static str,
    counters: BTreeSet<String>,
    quotas: Vec<Quota>,
    sets: Vec<Content>,
    maps: Vec<Content>,
    chains: Vec<ChainContent>,
}

#[derive(Debug, Clone, PartialEq)]
struct Quota {
    name: String,
    bytes: u64,
    used: u64,
}

/// A set or map: its declaration, and what it is to hold.
#[derive(Debug, Clone, PartialEq)]
struct Content {
    name: String,
    /// `set` or `map`.
    word: &'static str,
    declared: Value,
    elements: Vec<Value>,
    /// Others put elements in while the plan is in force, so that only a flush brings it to a known content.
    alive: bool,
    /// May be flushed and filled in one transaction. Not so intervals: kernels have taken old ones for overlaps.
    exchangeable: bool,
    /// The kernel or its daemons own the content: a plan never touches it.
    foreign: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct ChainContent {
    name: String,
    declared: Value,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    V4,
    V6,
}

impl Kind {
    pub(super) fn of(v6: bool) -> Self {
        if v6 { Self::V6 } else { Self::V4 }
    }

    fn set_type(self) -> SetType {
        match self {
            Self::V4 => SetType::Ipv4Addr,
            Self::V6 => SetType::Ipv6Addr,
        }
    }
}

/// A set, and all that it is to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    pub table: &'static str,
    pub set: String,
    /// As nft's JSON has them.
    pub elements: Vec<Value>,
}

/// Living sets that were told anything since the last plan.
pub type Touched = BTreeSet<String>;

impl Ruleset {
    pub(super) fn new(table: &'static str) -> Self {
        Self {
            table,
            counters: BTreeSet::new(),
            quotas: Vec::new(),
            sets: Vec::new(),
            maps: Vec::new(),
            chains: Vec::new(),
        }
    }

    pub(super) fn counter(&mut self, name: impl Into<String>) {
        self.counters.insert(name.into());
    }

    pub(super) fn quota(&mut self, name: String, bytes: u64, used: u64) {
        self.quotas.push(Quota { name, bytes, used });
    }

    fn set_object(
        &self,
        name: &str,
        set_type: SetTypeValue<'static>,
        flag: Option<SetFlag>,
    ) -> Set<'static> {
        Set {
            family: NfFamily::INet,
            table: self.table.into(),
            name: name.to_owned().into(),
            set_type,
            // At most one: the crate keeps flags without order.
            flags: flag.map(|flag| [flag].into()),
            ..Set::default()
        }
    }

    fn push_set(&mut self, set: Set<'static>, elements: Vec<Word>, alive: bool, foreign: bool) {
        let intervals = set
            .flags
            .as_ref()
            .is_some_and(|flags| flags.contains(&SetFlag::Interval));
        self.sets.push(Content {
            name: set.name.to_string(),
            word: "set",
            exchangeable: !intervals,
            declared: value(NfListObject::Set(Box::new(set))),
            elements: elements.into_iter().map(value).collect(),
            alive,
            foreign,
        });
    }

    /// Single addresses that others add to and take from while the plan is in force.
    pub(super) fn addresses(&mut self, name: &str, kind: Kind, elements: Vec<Word>) {
        let set = self.set_object(name, SetTypeValue::Single(kind.set_type()), None);
        self.push_set(set, elements, true, false);
    }

    /// The same with a port each.
    pub(super) fn address_ports(&mut self, name: &str, kind: Kind, elements: Vec<Word>) {
        let types = vec![kind.set_type(), SetType::InetService];
        let set = self.set_object(name, SetTypeValue::Concatenated(types.into()), None);
        self.push_set(set, elements, true, false);
    }

    /// Disjoint networks.
    pub(super) fn networks(&mut self, name: &str, kind: Kind, elements: Vec<Word>) {
        let single = SetTypeValue::Single(kind.set_type());
        let set = self.set_object(name, single, Some(SetFlag::Interval));
        self.push_set(set, elements, false, false);
    }

    /// What packets themselves put in, for a time. (`dynamic` has no word in the JSON of nft 1.0.6, which infers it.)
    pub(super) fn learned(&mut self, name: &str, types: Vec<SetType>, size: u32) {
        let types = match types.as_slice() {
            [single] => SetTypeValue::Single(*single),
            _ => SetTypeValue::Concatenated(types.into()),
        };
        let mut set = self.set_object(name, types, Some(SetFlag::Timeout));
        set.size = Some(size);
        self.push_set(set, Vec::new(), true, true);
    }

    /// A mark that rules compare with.
    pub(super) fn mark(&mut self, name: &str, mark: u32) {
        let set = self.set_object(name, SetTypeValue::Single(SetType::Mark), None);
        self.push_set(set, vec![Word::Number(mark)], false, false);
    }

    /// A mark that rules give to flows, whichever family these are of.
    pub(super) fn mark_to_give(&mut self, name: &str, mark: u32) {
        // The crate has no word for a protocol family as a key.
        let declared = json!({"map": {"family": FAMILY, "table": self.table, "name": name,
            "type": "nf_proto", "map": "mark"}});
        self.sets.push(Content {
            name: name.to_owned(),
            word: "map",
            declared,
            elements: vec![json!(["ipv4", mark]), json!(["ipv6", mark])],
            alive: false,
            exchangeable: true,
            foreign: false,
        });
    }

    /// Which chain judges which network.
    pub(super) fn verdicts(&mut self, name: &str, kind: Kind, goto: Vec<(Word, String)>) {
        let map = nftables::schema::Map {
            family: NfFamily::INet,
            table: self.table.into(),
            name: name.to_owned().into(),
            set_type: SetTypeValue::Single(kind.set_type()),
            flags: Some([SetFlag::Interval].into()),
            ..nftables::schema::Map::default()
        };
        let mut declared = value(NfListObject::Map(Box::new(map)));
        // The crate has no word for a map to verdicts.
        declared["map"]["map"] = "verdict".into();
        self.maps.push(Content {
            name: name.to_owned(),
            word: "map",
            declared,
            elements: goto
                .into_iter()
                .map(|(key, chain)| json!([key, {"goto": {"target": chain}}]))
                .collect(),
            alive: false,
            exchangeable: false,
            foreign: false,
        });
    }

    pub(super) fn base_chain(
        &mut self,
        name: &str,
        kind: NfChainType,
        hook: NfHook,
        priority: i32,
        policy: NfChainPolicy,
    ) {
        let chain = Chain {
            _type: Some(kind),
            hook: Some(hook),
            prio: Some(priority),
            policy: Some(policy),
            ..self.chain_object(name)
        };
        self.push_chain(chain);
    }

    pub(super) fn chain(&mut self, name: &str) {
        let chain = self.chain_object(name);
        self.push_chain(chain);
    }

    fn chain_object(&self, name: &str) -> Chain<'static> {
        Chain {
            family: NfFamily::INet,
            table: self.table.into(),
            name: name.to_owned().into(),
            ..Chain::default()
        }
    }

    fn push_chain(&mut self, chain: Chain<'static>) {
        self.chains.push(ChainContent {
            name: chain.name.to_string(),
            declared: value(NfListObject::Chain(chain)),
            rules: Vec::new(),
        });
    }

    /// Appends to the chain declared last.
    pub(super) fn rule(&mut self, statements: impl Into<Rule>) {
        if let Some(chain) = self.chains.last_mut() {
            chain.rules.push(statements.into());
        }
    }

    /// The names of what is declared here.
    pub(super) fn objects(&self) -> MeterObjects {
        MeterObjects {
            counters: self.counters.clone(),
            quotas: self.quotas.iter().map(|quota| quota.name.clone()).collect(),
            sets: self.sets.iter().map(|set| set.name.clone()).collect(),
            chains: self.chains.iter().map(|chain| chain.name.clone()).collect(),
        }
    }

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
