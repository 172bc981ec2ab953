//! The policy as words of the configuration: `service clawgress policy …` to policy and back, without loss.

mod read;
mod write;

use crate::policy::check::{Finding, Item, Part};
use crate::policy::domain::DomainPattern;
use crate::policy::model::{Policy, Protocol};
use crate::problem::Problem;
use crate::tree::{Node, Tree};

pub(crate) use read::{Reader, one, read, text, values};

/// Where the policy is in a tree.
pub(crate) const ROOT: [&str; 3] = ["service", "clawgress", "policy"];

impl Tree {
    /// Puts the policy in place of the one that the tree holds.
    pub fn set_policy(&mut self, policy: &Policy) {
        // None there yet is as good as removed.
        self.delete(&ROOT).ok();
        write::write(self, policy);
    }
}

/// What was found, with the words and the place of its part.
pub(crate) fn problem(tree: &Tree, finding: &Finding<'_>) -> Problem {
    let path = path(tree, finding.part);
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    // What is missing stands where it should be: at the part around it.
    let position = (0..=words.len())
        .rev()
        .find_map(|length| tree.get(&words[..length]))
        .and_then(Node::position);
    let wrong = &finding.wrong;
    Problem::new(&words, position, wrong.what.clone(), wrong.right.clone())
}

fn path(tree: &Tree, part: Part<'_>) -> Vec<String> {
    let mut path: Vec<String> = ROOT.map(str::to_owned).into();
    if let Some(host) = part.host {
        path.extend(["host".to_owned(), host.to_owned()]);
    }
    let mut below = |words: &[&str]| path.extend(words.iter().map(|&word| word.to_owned()));
    match part.item {
        Item::Whole => {}
        Item::Hosts => below(&["host"]),
        Item::Sources => below(&["source"]),
        Item::Source(source) => below(&["source", &source.to_string()]),
        Item::Allow => below(&["domain"]),
        Item::Domain(name) | Item::Window(name) => {
            below(&["domain"]);
            path.push(as_written(tree, &path, name));
        }
        Item::Network(network) => below(&["ip", &network.to_string()]),
        Item::Port(rule) => {
            below(&["port", &rule.port.to_string()]);
            if rule.protocol == Protocol::Udp {
                path.extend(["protocol".to_owned(), "udp".to_owned()]);
            }
        }
        Item::Label(name) => {
            below(&["label"]);
            path.push(as_written(tree, &path, name));
        }
        Item::Proxy => below(&["proxy"]),
        Item::WireDomain(name) => {
            below(&["proxy", "domain"]);
            path.push(as_written(tree, &path, name));
        }
        Item::Mtls => below(&["proxy", "mtls"]),
        Item::Cap(name) => {
            below(&["exfil", "domain"]);
            path.push(as_written(tree, &path, name));
        }
    }
    path
}

/// The word below `path` that means this domain.
fn as_written(tree: &Tree, path: &[String], name: &DomainPattern) -> String {
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    let canonical = name.as_str();
    let Some(node) = tree.get(&words) else {
        return canonical.to_owned();
    };
    if node.get(canonical).is_some() {
        return canonical.to_owned();
    }
    node.in_order()
        .into_iter()
        .map(|(word, _)| word)
        .find(|word| DomainPattern::parse(word).is_ok_and(|pattern| pattern == *name))
        .unwrap_or(canonical)
        .to_owned()
}
