//! The numbers that flows of the gateway bear for what they are counted as (see `plan::proxied`).
//!
//! Marks outlive plans and processes, so a number keeps its meaning for as long as the kernel runs: none is ever given
//! twice, and what was given is in /run before any rule knows it. What can't be written down is not given, and whatever
//! has no number is not let through.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clawgress_link::durable;
use clawgress_policy::Index;

use crate::plan::layout::mark;
use crate::plan::{Proxied, proxied};

/// Below the run directory.
pub(super) const FILE: &str = "proxied.json";

pub(super) struct Numbers {
    path: PathBuf,
    given: BTreeMap<Proxied, u32>,
    /// What was given before can't be read: nothing new can be told from it.
    lost: bool,
}

impl Numbers {
    pub(super) fn open(path: PathBuf) -> Self {
        let read = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
            Ok(text) => serde_json::from_slice::<Vec<(Proxied, u32)>>(&text)
                .map_err(|error| error.to_string()),
        };
        let lost = read.is_err();
        let given = read.unwrap_or_else(|error| {
            tracing::error!(
                "reading {}: {error}; until the next boot nothing that counts against a limit goes by way of the gateway",
                path.display()
            );
            Vec::new()
        });
        Self {
            path,
            given: given.into_iter().collect(),
            lost,
        }
    }

    /// With one for all that this revision counts.
    pub(super) fn of(&mut self, index: &Index) -> BTreeMap<Proxied, u32> {
        let mut next = self.given.values().copied().max().unwrap_or(0) + 1;
        let mut all = self.given.clone();
        for proxied in proxied::proxied(index) {
            if !self.lost && next <= mark::PROXIED && !all.contains_key(&proxied) {
                all.insert(proxied, next);
                next += 1;
            }
        }
        if all.len() != self.given.len() {
            let list: Vec<(&Proxied, &u32)> = all.iter().collect();
            let text = serde_json::to_vec(&list).unwrap_or_default();
            match durable::replace(&self.path, &text) {
                Ok(()) => self.given = all,
                Err(error) => tracing::error!(
                    "{error}; what was not counted before can't go by way of the gateway"
                ),
            }
        }
        self.given.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawgress_config::access::Access;
    use clawgress_config::policy::Policy;
    use clawgress_policy::{Logging, Network, Revision};

    fn index(hosts: &str) -> Index {
        let policy = format!(r#"{{"version": 2, "hosts": {{{hosts}}}}}"#);
        let revision = Revision {
            number: 1,
            created: 0,
            enabled: true,
            policy: Policy::from_json(policy.as_bytes()).unwrap(),
            network: Network::default(),
            time_zone: "UTC".to_owned(),
            trust_hardware_clock: true,
            logging: Logging {
                facility: "local0".to_owned(),
                deny_log: false,
            },
            name_servers: Vec::new(),
            access: Access::default(),
        };
        Index::of(&revision).unwrap()
    }

    fn host(name: &str, last: u8, limits: &str) -> String {
        format!(
            r#""{name}": {{"sources": ["192.168.10.{last}/32"], "allow": {{"domains": ["a.example"]}}{limits}}}"#
        )
    }

    #[test]
    fn a_number_keeps_its_meaning_and_is_never_given_twice() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(FILE);
        let rate = r#", "limits": {"egress_kbps": 100}"#;
        let cap = r#", "exfil": {"domains": {"a.example": {"bytes": 9, "period": "day"}}}"#;
        let both = index(&[host("b", 2, rate), host("c", 3, cap), host("d", 4, "")].join(","));
        let first = Numbers::open(path.clone()).of(&both);
        // The rate, the cap, and what the capped one asks for by address.
        assert_eq!(first.len(), 3);
        let fewer = index(&host("c", 3, cap));
        Numbers::open(path.clone()).of(&fewer);
        let more = index(&[host("a", 1, rate), host("b", 2, rate), host("c", 3, cap)].join(","));
        let later = Numbers::open(path.clone()).of(&more);
        assert!(first.iter().all(|(what, number)| later[what] == *number));
        let mut numbers: Vec<u32> = later.values().copied().collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3, 4]);

        std::fs::write(&path, "[[{").unwrap();
        assert!(
            Numbers::open(path).of(&more).is_empty(),
            "nobody knows what they mean"
        );
    }
}
