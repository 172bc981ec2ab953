//! A table as data. Knows the schema of libnftables, not what a rule means.

use std::collections::BTreeSet;

use nftables::{
    schema::{Chain, NfListObject, Set, SetFlag, SetType, SetTypeValue},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};
use serde_json::{Value, json};

use super::{
    carry::MeterObjects,
    layout::FAMILY,
    statement::{Rule, Word, value},
};

/// One table.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruleset {
    pub(super) table: &'static str,
    pub(super) counters: BTreeSet<String>,
    pub(super) quotas: Vec<Quota>,
    pub(super) sets: Vec<Content>,
    pub(super) maps: Vec<Content>,
    pub(super) chains: Vec<ChainContent>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quota {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) used: u64,
}

/// A set or map: its declaration, and what it is to hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Content {
    pub(super) name: String,
    /// `set` or `map`.
    pub(super) word: &'static str,
    pub(super) declared: Value,
    pub(super) elements: Vec<Value>,
    /// Others put elements in while the plan is in force, so that only a flush brings it to a known content.
    pub(super) alive: bool,
    /// May be flushed and filled in one transaction. Not so intervals: kernels have taken old ones for overlaps.
    pub(super) exchangeable: bool,
    /// The kernel or its daemons own the content: a plan never touches it.
    pub(super) foreign: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChainContent {
    pub(super) name: String,
    pub(super) declared: Value,
    pub(super) rules: Vec<Rule>,
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
}
