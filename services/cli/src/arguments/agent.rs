//! The words of `agent`, `flows`, `explain` and `audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::when::{self, End, Since};

/// Agents: who they are, their keys, and the kill switch.
#[derive(Debug, Args)]
#[command(
    override_usage = "clawgress agent list\n       clawgress agent <ID> show\n       clawgress agent <ID> key create|list|revoke|rotate\n       clawgress agent <ID> token [--for <SPAN>]\n       clawgress agent <ID|all> block|unblock",
    disable_help_subcommand = true
)]
pub(crate) struct Agent {
    /// The agent's id; `list` for all of them; `all` to block or unblock everybody.
    pub(crate) id: String,
    #[command(subcommand)]
    pub(crate) action: Option<OfAgent>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OfAgent {
    /// Who it is, its keys, and whether it is blocked.
    #[command(override_usage = "clawgress agent <ID> show")]
    Show,
    /// API keys of the agent.
    #[command(subcommand)]
    Key(AgentKey),
    /// Issues a short-lived token and shows it, this once.
    #[command(override_usage = "clawgress agent <ID> token [--for <SPAN>]")]
    Token {
        /// How long it is good.
        #[arg(long = "for", value_name = "SPAN", value_parser = when::span, default_value = "1h")]
        lifetime: u32,
    },
    /// The kill switch: cuts all that is open and denies what comes, at once.
    #[command(override_usage = "clawgress agent <ID|all> block")]
    Block,
    /// Lifts the kill switch.
    #[command(override_usage = "clawgress agent <ID|all> unblock")]
    Unblock,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentKey {
    /// Makes a key and shows it, this once.
    #[command(
        override_usage = "clawgress agent <ID> key create [--expires <SPAN|DATE>] [--source <CIDR>]... [--name <NAME>]"
    )]
    Create {
        /// When it ends: a span such as 90d, or a date (UTC). Without: never.
        #[arg(long, value_name = "SPAN|DATE", value_parser = when::end)]
        expires: Option<End>,
        /// A network from which alone it may be used; may be given several times.
        #[arg(long = "source", value_name = "CIDR")]
        sources: Vec<String>,
        /// For people.
        #[arg(long, default_value = "")]
        name: String,
    },
    /// Every key of the agent, without its secret.
    #[command(override_usage = "clawgress agent <ID> key list")]
    List,
    /// Ends a key at once.
    #[command(override_usage = "clawgress agent <ID> key revoke <PREFIX>")]
    Revoke {
        /// As `key list` shows it.
        prefix: String,
    },
    /// Makes a new key of the same kind in place of an old one.
    #[command(override_usage = "clawgress agent <ID> key rotate <PREFIX> [--keep <SPAN>]")]
    Rotate {
        /// As `key list` shows it.
        prefix: String,
        /// The old key stays good for so long.
        #[arg(long, value_name = "SPAN", value_parser = when::span)]
        keep: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// An agent of the revision in force.
    #[arg(long, value_name = "ID")]
    pub(crate) agent: String,
    /// Where it wants to go, such as https://api.example.com/v1.
    #[arg(long)]
    pub(crate) url: String,
    /// GET without it; what runs in a tunnel (https) is CONNECT.
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// As if it were this time: with an offset, or in the time zone of the box.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// The newest events that fit, oldest first.
    Query {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        between: Between,
        /// So many events at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Events as they come, until Ctrl-C.
    Tail {
        #[command(flatten)]
        filter: Filter,
    },
    /// Every event that fits, as lines of JSON, oldest first.
    Export {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        between: Between,
        /// Into this file, which must not be there yet. Without: to standard output.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Proves that no event is missing or changed. Exit code 1: something is.
    Verify {
        /// Checkpoint lines that were kept elsewhere.
        #[arg(long, value_name = "FILE")]
        anchor: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Between {
    /// From this time on: '2026-01-31 08:30' (UTC), a date, or how long ago: 1h, 7d.
    #[arg(long, value_name = "TIME", value_parser = when::since)]
    pub(crate) from: Option<Since>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = when::since)]
    pub(crate) to: Option<Since>,
}

/// What events are to have; all of it at once.
#[derive(Debug, Clone, Args)]
pub(crate) struct Filter {
    /// The agent that asked, or that a change is about.
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// The agent's team.
    #[arg(long, value_name = "ID")]
    team: Option<String>,
    /// The agent's project.
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// The agent's environment.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// The destination's name or address.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The destination's port.
    #[arg(long)]
    port: Option<u16>,
    /// Of the request; what people changed has its own words here, such as 'agent key create'.
    #[arg(long)]
    method: Option<String>,
    /// What became of it.
    #[arg(long, value_parser = ["allow", "deny", "notice"])]
    decision: Option<String>,
    /// Why it was denied, such as not-allowlisted.
    #[arg(long)]
    reason: Option<String>,
    /// The rule that decided.
    #[arg(long, value_name = "ID")]
    policy: Option<String>,
    /// Which path saw it; admin: what people changed.
    #[arg(long, value_parser = ["proxy", "dns", "nft", "sni", "admin"])]
    source: Option<String>,
    /// The address that asked.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// The request id that a denied agent quotes.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Any field as it is called in the JSON of events; may be given several times.
    #[arg(long = "where", value_name = "FIELD=VALUE", value_parser = pair)]
    fields: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((field, value)) if !field.is_empty() => Ok((field.to_owned(), value.to_owned())),
        _ => Err("write FIELD=VALUE, such as label=llm-provider".to_owned()),
    }
}

impl Filter {
    /// By the names that the fields have in events.
    pub(crate) fn fields(&self) -> std::collections::BTreeMap<&str, String> {
        let port = self.port.map(|port| port.to_string());
        let named = [
            ("agent_id", &self.agent),
            ("team_id", &self.team),
            ("project_id", &self.project),
            ("environment", &self.environment),
            ("destination_host", &self.host),
            ("destination_port", &port),
            ("http_method", &self.method),
            ("decision", &self.decision),
            ("reason", &self.reason),
            ("policy_id", &self.policy),
            ("source", &self.source),
            ("client_address", &self.client),
            ("request_id", &self.request),
        ];
        let named = named
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)));
        let others = self.fields.iter();
        named
            .chain(others.map(|(name, value)| (name.as_str(), value.clone())))
            .collect()
    }
}
