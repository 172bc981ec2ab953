//! Agents, rules, quotas and settings as words of the configuration, to the model and back, without loss.

mod read;
mod write;

use crate::access::check::Finding;
use crate::access::model::Access;
use crate::problem::Problem;
use crate::tree::{Node, Tree};

pub(crate) use read::read;

/// Where all of it is in a tree; each of `PARTS` stands below.
const ROOT: [&str; 2] = ["service", "clawgress"];
const PARTS: [&str; 7] = [
    "identity",
    "environment",
    "agent",
    "rule",
    "quota",
    "gateway",
    "audit",
];

impl Tree {
    /// Puts agents, rules, quotas and settings in place of those that the tree holds.
    pub fn set_access(&mut self, access: &Access) {
        for part in PARTS {
            // None there yet is as good as removed.
            self.delete(&[ROOT[0], ROOT[1], part]).ok();
        }
        write::write(self, access);
    }
}

/// What was found, with the place of its words.
pub(crate) fn problem(tree: &Tree, finding: &Finding) -> Problem {
    let mut words: Vec<&str> = ROOT.to_vec();
    words.extend(finding.path.iter().map(String::as_str));
    // What is missing stands where it should be: at the part around it.
    let position = (0..=words.len())
        .rev()
        .find_map(|length| tree.get(&words[..length]))
        .and_then(Node::position);
    let wrong = &finding.wrong;
    Problem::new(&words, position, wrong.what.clone(), wrong.right.clone())
}
