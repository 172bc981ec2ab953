//! policy.json, versions 1 and 2: text to policy and back.
//!
//! Reading goes through the text once, keeps nothing but the policy and the places of its parts, and collects every
//! error. No bytes, however broken, panic or take more than bounded memory.

mod fields;
mod lists;
mod objects;
mod origins;
mod read;
mod scan;
mod text;
mod write;

use crate::cidr::Wrong;
use crate::parse::{MAX_PROBLEMS, text_of};
use crate::policy::check;
use crate::policy::json::fields::{Reader, Stop, written};
use crate::policy::model::Policy;
use crate::problem::{Position, Problem};

/// The largest policy.json that is read.
pub const MAX_POLICY_BYTES: usize = 64 << 20;
/// The newest version of policy.json. Version 1 has TCP ports only.
pub const NEWEST_VERSION: u32 = 2;

/// A valid policy, and what in it is allowed but hardly meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyReading {
    pub policy: Policy,
    pub warnings: Vec<Problem>,
}

impl Policy {
    /// A policy.json of any version. The problems are in the order of the text and never none.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Vec<Problem>> {
        Self::read_json(bytes).map(|reading| reading.policy)
    }

    /// As `from_json`, with the warnings.
    pub fn read_json(bytes: &[u8]) -> Result<PolicyReading, Vec<Problem>> {
        let text = text_of(bytes, MAX_POLICY_BYTES, "policy").map_err(|problem| vec![problem])?;
        let mut reader = Reader::new(text);
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        match read::policy(&mut reader) {
            Ok((policy, origins)) => {
                let doubt = !reader.found.is_empty();
                for finding in check::findings(&policy, doubt) {
                    let (path, at) = origins.of(&policy, finding.part);
                    let found = (at as usize, written(&path), finding.wrong);
                    if finding.grave {
                        problems.push(found);
                    } else {
                        warnings.push(found);
                    }
                }
                if problems.is_empty() && !doubt {
                    return Ok(PolicyReading {
                        policy,
                        warnings: placed(text, warnings),
                    });
                }
            }
            Err(Stop::Malformed(malformed)) => {
                let wrong = Wrong::new(malformed.what, malformed.fix);
                problems.push((malformed.at, String::new(), wrong));
            }
            Err(Stop::Enough) => {}
        }
        problems.extend(
            reader
                .found
                .into_iter()
                .map(|found| (found.at, found.path, found.wrong)),
        );
        Err(placed(text, problems))
    }
}

/// Places in bytes become lines and columns, in one pass over the text.
fn placed(text: &str, mut found: Vec<(usize, String, Wrong)>) -> Vec<Problem> {
    found.sort_by_key(|(at, ..)| *at);
    found.truncate(MAX_PROBLEMS);
    let (mut line, mut start, mut read) = (1_u32, 0, 0);
    found
        .into_iter()
        .map(|(at, path, wrong)| {
            for (offset, _) in text.get(read..at).unwrap_or_default().match_indices('\n') {
                line = line.saturating_add(1);
                start = read + offset + 1;
            }
            read = at;
            let column = text.get(start..at).unwrap_or_default().chars().count() + 1;
            let position = Position {
                line,
                column: u32::try_from(column).unwrap_or(u32::MAX),
            };
            Problem::at(path, Some(position), wrong.what, wrong.right)
        })
        .collect()
}
