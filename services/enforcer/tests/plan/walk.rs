//! A plan's main table, walked as the kernel would for a new flow.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clawgress_enforcer::plan::Plan;
use serde_json::Value;

use crate::revisions::cidr;

/// The main table of a transaction as it will be in the kernel.
pub(crate) struct Table {
    chains: BTreeMap<String, Vec<Value>>,
    sets: BTreeMap<String, Vec<Value>>,
}

/// A new flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) transport: &'static str,
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
}

impl Table {
    pub(crate) fn of(plan: &Plan) -> Self {
        let document: Value = serde_json::from_str(&plan.transaction()).unwrap();
        let (mut chains, mut sets) = (BTreeMap::new(), BTreeMap::new());
        for command in document["nftables"].as_array().unwrap() {
            let add = &command["add"];
            let ours = |of: &str| add[of]["table"] == "clawgress";
            if ours("rule") {
                let chain = add["rule"]["chain"].as_str().unwrap().to_owned();
                let rules: &mut Vec<Value> = chains.entry(chain).or_default();
                rules.push(add["rule"]["expr"].clone());
            } else if ours("element") {
                let set = add["element"]["name"].as_str().unwrap().to_owned();
                sets.insert(set, add["element"]["elem"].as_array().unwrap().clone());
            }
        }
        Self { chains, sets }
    }

    /// Where a new flow ends: `stamp`, or the chain of a denial.
    pub(crate) fn end(&self, chain: &str, flow: Flow) -> String {
        for rule in self.chains.get(chain).into_iter().flatten() {
            let statements = rule.as_array().unwrap();
            if !statements
                .iter()
                .all(|statement| self.matches(statement, flow))
            {
                continue;
            }
            let next = statements
                .iter()
                .find_map(|statement| statement["goto"]["target"].as_str());
            match next {
                Some("stamp") => return "stamp".to_owned(),
                Some(next) if next.contains("_ports") => return self.end(next, flow),
                Some(next) => return next.to_owned(),
                None => {}
            }
        }
        panic!("{chain} has no end for {flow:?}")
    }

    /// What is no condition holds; a new flow has no mark.
    fn matches(&self, statement: &Value, flow: Flow) -> bool {
        let condition = &statement["match"];
        if condition.is_null() {
            return true;
        }
        let key = &condition["left"];
        if key["&"].is_array() {
            return condition["op"] == "==" && condition["right"] == 0;
        }
        let parts: Option<Vec<String>> = match key["concat"].as_array() {
            Some(parts) => parts.iter().map(|part| value_of(part, flow)).collect(),
            None => value_of(key, flow).map(|value| vec![value]),
        };
        let Some(parts) = parts else { return false };
        let right = &condition["right"];
        let holds = match right.as_str().and_then(|text| text.strip_prefix('@')) {
            Some(set) => self
                .sets
                .get(set)
                .into_iter()
                .flatten()
                .any(|element| is(element, &parts)),
            None => match right["set"].as_array() {
                Some(elements) => elements.iter().any(|element| is(element, &parts)),
                None => is(right, &parts),
            },
        };
        holds == (condition["op"] != "!=")
    }
}

/// None: the packet is of the other family.
fn value_of(key: &Value, flow: Flow) -> Option<String> {
    if key["meta"]["key"] == "l4proto" {
        return Some(flow.transport.to_owned());
    }
    match key["ct"]["key"].as_str().unwrap() {
        "proto-dst" => Some(flow.port.to_string()),
        "ip daddr" => flow.to.is_ipv4().then(|| flow.to.to_string()),
        "ip6 daddr" => flow.to.is_ipv6().then(|| flow.to.to_string()),
        other => panic!("{other} is not known here"),
    }
}

fn is(element: &Value, parts: &[String]) -> bool {
    if let Some(elements) = element["concat"].as_array() {
        return elements.len() == parts.len()
            && elements
                .iter()
                .zip(parts)
                .all(|(element, part)| is(element, std::slice::from_ref(part)));
    }
    let [part] = parts else { return false };
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    if let Some(range) = element["range"].as_array() {
        let between = |from: &str, to: &str| match (part.parse::<IpAddr>(), part.parse::<u16>()) {
            (Ok(it), _) => (from.parse::<IpAddr>().unwrap()..=to.parse().unwrap()).contains(&it),
            (_, Ok(it)) => (from.parse::<u16>().unwrap()..=to.parse().unwrap()).contains(&it),
            _ => false,
        };
        return between(&text(&range[0]), &text(&range[1]));
    }
    if element["prefix"].is_object() {
        let (address, length) = (&element["prefix"]["addr"], &element["prefix"]["len"]);
        let network = cidr(&format!("{}/{length}", text(address)));
        return part.parse().is_ok_and(|address| network.contains(address));
    }
    text(element) == *part
}
