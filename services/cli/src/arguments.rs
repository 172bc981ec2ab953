//! The command line: the utility's own commands, and the operators' spoken forms of the same.

pub(crate) mod agent;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clawgress_link::{admin, control::Window};

use agent::{Agent, Audit, Explain};

/// Shows what this gateway enforces, and hands it policies.
#[derive(Debug, Parser)]
#[command(
    name = "clawgress",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the policy API does not answer.",
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// The answer as JSON, for programs.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where the policy API listens for the console.
    #[arg(long, global = true, value_name = "PATH", default_value = admin::SOCKET)]
    pub(crate) socket: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What is enforced now, and what every part of enforcement says.
    Status,
    /// What was denied in the last 24 hours.
    Stats,
    /// Queries, flows, bytes and caps of every host.
    Telemetry {
        #[arg(long, value_enum, default_value_t = Span::Hour)]
        window: Span,
    },
    /// The ruleset as the kernel has it.
    Firewall,
    /// The names of the response policy zone as it is served.
    Rpz {
        /// So many names at most.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// The policy that is enforced, or one in a file.
    Show(Show),
    /// Checks and applies the policy in a file.
    Import {
        #[arg(long, value_name = "PATH")]
        policy: PathBuf,
    },
    /// The policy: show it, apply policy.json, import a file.
    #[command(subcommand)]
    Policy(Policy),
    /// API keys of people and programs that manage this box.
    #[command(subcommand)]
    Key(Key),
    Agent(Agent),
    /// What agents have open at the gateway now.
    Flows {
        /// Of this agent alone.
        #[arg(long, value_name = "ID")]
        agent: Option<String>,
    },
    /// What would be decided, and why: each rule that is considered.
    Explain(Explain),
    /// The audit trail: find, follow, export, prove.
    #[command(subcommand)]
    Audit(Box<Audit>),
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Without a path: the policy that is enforced.
    #[arg(long, value_name = "PATH", num_args = 0..=1, required = true)]
    pub(crate) policy: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// The policy that is enforced, as policy.json.
    Show,
    /// Applies /config/clawgress/policy.json as it lies there.
    Apply,
    /// Checks a policy and applies it.
    #[command(subcommand)]
    Import(Import),
    /// Checks the policy in a file, changes nothing.
    Check { path: PathBuf },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// From a file.
    File { path: PathBuf },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Makes a key and shows it, this once.
    Create {
        /// For people.
        #[arg(long, default_value = "unnamed")]
        name: String,
        #[arg(long, value_enum, default_value_t = Role::Operator)]
        role: Role,
    },
    /// Every key, without its secret.
    List,
    /// Ends a key at once.
    Revoke { id: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Operator,
    Viewer,
}

impl Role {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Span {
    #[value(name = "1m")]
    Minute,
    #[value(name = "1h")]
    Hour,
    #[value(name = "24h")]
    Day,
}

impl From<Span> for Window {
    fn from(span: Span) -> Self {
        match span {
            Span::Minute => Self::Minute,
            Span::Hour => Self::Hour,
            Span::Day => Self::Day,
        }
    }
}

/// `show clawgress …`, as operators of network appliances say it.
pub(crate) struct Spoken;

impl Spoken {
    /// The same words, without the two that say what the program's name says already. Works for a program that is
    /// called `show` as well as for `clawgress show clawgress …`.
    pub(crate) fn words(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let mut words: Vec<OsString> = words.into_iter().collect();
        let called_show = words.first().is_some_and(|program| {
            std::path::Path::new(program)
                .file_name()
                .is_some_and(|name| name == "show")
        });
        let is = |at: usize, word: &str| words.get(at).is_some_and(|found| found == word);
        // Options may stand before; only one of them has a value.
        let mut at = 1;
        while let Some(word) = words.get(at).and_then(|word| word.to_str()) {
            match word {
                "--socket" => at += 2,
                option if option.starts_with('-') => at += 1,
                _ => break,
            }
        }
        if called_show && is(at, "clawgress") {
            words.remove(at);
        } else if is(at, "show") && is(at + 1, "clawgress") {
            words.drain(at..at + 2);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> String {
        let words = Spoken::words(line.split(' ').map(OsString::from));
        match Arguments::try_parse_from(words) {
            Ok(arguments) => format!("{:?}", arguments.command),
            Err(error) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_line_of_the_documents_works_as_written() {
        for (line, command) in [
            ("clawgress status", "Status"),
            ("clawgress stats", "Stats"),
            ("clawgress firewall", "Firewall"),
            ("clawgress rpz", "Rpz { limit: 1000 }"),
            ("clawgress telemetry", "Telemetry { window: Hour }"),
            (
                "clawgress telemetry --window 24h --json",
                "Telemetry { window: Day }",
            ),
            (
                "clawgress policy import file /tmp/my-policy.json",
                "Policy(Import(File { path: \"/tmp/my-policy.json\" }))",
            ),
            (
                "/usr/bin/clawgress show --policy /config/clawgress/policy.json",
                "Show(Show { policy: [\"/config/clawgress/policy.json\"] })",
            ),
            ("clawgress show --policy", "Show(Show { policy: [] })"),
            (
                "/usr/bin/clawgress import --policy /tmp/policy.json",
                "Import { policy: \"/tmp/policy.json\" }",
            ),
            ("show clawgress status", "Status"),
            ("show clawgress telemetry", "Telemetry { window: Hour }"),
            ("show clawgress policy show", "Policy(Show)"),
            ("show clawgress policy apply", "Policy(Apply)"),
            (
                "show clawgress policy import file /tmp/policy.json",
                "Policy(Import(File { path: \"/tmp/policy.json\" }))",
            ),
            ("clawgress show clawgress rpz", "Rpz { limit: 1000 }"),
            ("clawgress --socket /s --json show clawgress stats", "Stats"),
            ("clawgress key list", "Key(List)"),
        ] {
            assert_eq!(parsed(line), command, "{line}");
        }
    }

    #[test]
    fn every_line_about_agents_and_the_trail_is_understood() {
        for line in [
            "clawgress agent list",
            "clawgress agent list --json",
            "clawgress agent a-1 show",
            "clawgress agent a-1 key create",
            "clawgress agent a-1 key create --expires 90d --source 10.0.0.0/8 --source 192.0.2.7",
            "clawgress agent a-1 key create --expires 2099-12-31",
            "clawgress agent a-1 key list",
            "clawgress agent a-1 key revoke abcdefgh",
            "clawgress agent a-1 key rotate abcdefgh",
            "clawgress agent a-1 key rotate abcdefgh --keep 24h",
            "clawgress agent a-1 token",
            "clawgress agent a-1 token --for 15m",
            "clawgress agent a-1 block",
            "clawgress agent a-1 unblock",
            "clawgress agent all block",
            "clawgress agent all unblock",
            "clawgress flows",
            "clawgress flows --agent a-1",
            "clawgress explain --agent a-1 --url https://a.example/",
            "clawgress explain --agent a-1 --url http://a.example/x --method POST --at 2026-01-31T08:30:00Z",
            "clawgress audit query --agent a-1 --from 1h --to 2099-01-01 --limit 10 --json",
            "clawgress audit query --team t --project p --environment e --host h --port 443 --method GET --decision deny",
            "clawgress audit query --reason r --policy p --source dns --client 10.0.0.1 --request x --where status=403",
            "clawgress audit tail",
            "clawgress audit tail --agent a-1",
            "clawgress audit export --from 1d --to 1h",
            "clawgress audit export --from 1d --to 1h --output /tmp/x",
            "clawgress audit verify",
            "clawgress audit verify --anchor /tmp/anchors",
            "show clawgress agent list",
        ] {
            parsed(line);
        }
    }
}
