//! policy.json as text: read with every fault at its place in what was sent, and written for people.

use clawgress_config::{Problem, policy::Policy};
use clawgress_link::admin::Trouble;

/// A valid policy, with what in it is hardly meant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Read {
    pub(crate) policy: Policy,
    pub(crate) warnings: Vec<String>,
}

/// Where a text begins in the larger one that was sent: the path of the member, line and column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Within {
    pub(crate) path: &'static str,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Within {
    /// The text is the whole of it.
    pub(crate) const WHOLE: Self = Self {
        path: "",
        line: 1,
        column: 1,
    };

    fn trouble(self, problem: Problem) -> Trouble {
        let position = problem.position.map(|at| {
            if at.line <= 1 {
                let column = self.column.saturating_add(at.column).saturating_sub(1);
                (self.line, column)
            } else {
                (
                    self.line.saturating_add(at.line).saturating_sub(1),
                    at.column,
                )
            }
        });
        let path = match (self.path, problem.path.as_str()) {
            (prefix, "") => prefix.to_owned(),
            ("", path) => path.to_owned(),
            (prefix, path) if path.starts_with('[') => format!("{prefix}{path}"),
            (prefix, path) => format!("{prefix}.{path}"),
        };
        Trouble {
            path,
            line: position.map(|(line, _)| line),
            column: position.map(|(_, column)| column),
            what: problem.what,
            fix: problem.fix,
        }
    }
}

pub(crate) fn read(text: &[u8], within: Within) -> Result<Read, Vec<Trouble>> {
    match Policy::read_json(text) {
        Ok(reading) => Ok(Read {
            policy: reading.policy,
            warnings: reading
                .warnings
                .into_iter()
                .map(|problem| warning(&within.trouble(problem)))
                .collect(),
        }),
        Err(problems) => Err(problems
            .into_iter()
            .map(|problem| within.trouble(problem))
            .collect()),
    }
}

fn warning(trouble: &Trouble) -> String {
    match (trouble.path.as_str(), trouble.fix.as_str()) {
        ("", "") => trouble.what.clone(),
        ("", fix) => format!("{}; {fix}", trouble.what),
        (path, "") => format!("{path}: {}", trouble.what),
        (path, fix) => format!("{path}: {}; {fix}", trouble.what),
    }
}

/// In version 1 where that can say it all, so that whatever reads policy.json of the documents reads this.
pub(crate) fn for_people(policy: &Policy) -> Result<String, Trouble> {
    policy
        .to_json(1)
        .or_else(|_| policy.to_json(clawgress_config::policy::NEWEST_VERSION))
        .map_err(|problem| Within::WHOLE.trouble(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_at_their_place_in_what_was_sent() {
        let within = Within {
            path: "policy",
            line: 3,
            column: 11,
        };
        let troubles = read(
            b"{\"version\": 1, \"alow\": {},\n \"limits\": {\"egress_kbps\": -1}}",
            within,
        )
        .unwrap_err();
        let places: Vec<_> = troubles
            .iter()
            .map(|trouble| (trouble.path.as_str(), trouble.line.unwrap()))
            .collect();
        assert_eq!(
            places,
            [("policy.alow", 3), ("policy.limits.egress_kbps", 4)]
        );
        assert!(troubles[0].column.unwrap() > 20, "{troubles:?}");
        assert!(troubles[0].fix.contains("allow"), "{troubles:?}");
    }

    #[test]
    fn the_oldest_version_that_can_say_it_is_written() {
        let of = |text: &[u8]| for_people(&read(text, Within::WHOLE).unwrap().policy).unwrap();
        let old = of(br#"{"version":1,"allow":{"domains":["a.example"],"ports":[443]}}"#);
        assert!(
            old.contains("\"version\": 1") || old.contains("\"version\":1"),
            "{old}"
        );
    }
}
