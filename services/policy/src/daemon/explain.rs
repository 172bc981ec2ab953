//! Why something would be allowed or denied: the revision in force is compiled once more, asked, and let go.
//!
//! One question at a time, for a large revision takes much memory while it is compiled. Nothing is decided by it.

mod leads;
mod limits;
mod near;
mod paths;
#[cfg(test)]
mod tests;
mod url;

use std::{net::IpAddr, net::Ipv4Addr};

use clawgress_config::access::Access;
use clawgress_link::{agents, control::CapUse};
use clawgress_policy::{
    Considered, Host, Index, Moment, Request, Revision, rules::Why, window::UnknownZone,
};
use jiff::{Timestamp, civil, tz::TimeZone};

pub(crate) use near::Cards;
use paths::Way;
use url::{Name, shown, target};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    #[error("url: {0}; write one such as https://api.example.com/ or http://10.0.0.7:8080/path")]
    Url(String),
    #[error("method: '{0}' is none; write one like GET or POST")]
    Method(String),
    #[error(
        "at: '{0}' is no time; write one such as 2026-01-31T08:30:00Z, or 2026-01-31 08:30 in the time zone of the box"
    )]
    At(String),
    #[error(transparent)]
    Index(#[from] clawgress_policy::IndexError),
    #[error(transparent)]
    Zone(#[from] UnknownZone),
}

/// As it was typed.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) agent: agents::Agent,
    pub(crate) url: String,
    pub(crate) method: Option<String>,
    pub(crate) at: Option<String>,
    pub(crate) now: i64,
    pub(crate) clock_trusted: bool,
    /// Where the name leads, or why nobody knows; of an address: itself.
    pub(crate) resolved: Result<Vec<IpAddr>, String>,
    pub(crate) cards: Cards,
    /// How far caps are used, by principal. None: the enforcer does not say.
    pub(crate) caps: Option<Vec<(String, Vec<CapUse>)>>,
}

/// What has to be looked up before a URL can be explained: a name, or else the address that it has already.
pub(crate) fn lookup(url: &str) -> Result<Result<IpAddr, String>, ExplainError> {
    Ok(match target(url)?.host {
        Name::Name(name) => Err(name),
        Name::Address(address) => Ok(address),
    })
}

/// Takes what a large revision takes, as long as it runs.
pub(crate) fn explain(
    revision: &Revision,
    question: Question,
) -> Result<agents::Explained, ExplainError> {
    let target = target(&question.url)?;
    let mut notes = Vec::new();
    let method = method(&question, target.tunnel, &mut notes)?;
    let moment = match question.at.as_deref() {
        Some(text) => Moment::trusted(instant(text, &revision.time_zone)?),
        None => Moment {
            now: question.now,
            trusted: question.clock_trusted || revision.trust_hardware_clock,
        },
    };
    let index = Index::of(revision)?;
    let rules = index.rules();
    let agent = &question.agent;
    // Without a rule the policy of the address that it comes from decides.
    let source = revision
        .access
        .agents
        .get(&agent.agent_id)
        .and_then(|agent| agent.sources.first())
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |cidr| cidr.address);
    let request = Request {
        agent_id: &agent.agent_id,
        team_id: &agent.team_id,
        project_id: &agent.project_id,
        environment: &agent.environment,
        source,
        host: match &target.host {
            Name::Name(name) => Host::Name(name),
            Name::Address(address) => Host::Address(*address),
        },
        port: target.port,
        method: Some(&method),
        path: target.path.as_deref(),
        tunnel: target.tunnel,
        resolved: &[],
    };
    let decision = rules.decide(&index, &request, moment);
    let considered = rules.explain(&index, &request, moment);
    let (resolved, unresolved) = match &question.resolved {
        Ok(resolved) => (resolved.as_slice(), None),
        Err(why) => (&[][..], Some(why.clone())),
    };
    let led = leads::judge(
        revision,
        &index,
        &question.cards,
        &request,
        resolved,
        moment,
    );
    let why_unknown = unresolved.as_deref();
    let way = Way {
        index: &index,
        agent: &agent.agent_id,
        host: request.host,
        port: target.port,
        moment,
    };
    let serves = revision.access.gateway.enabled;
    let mut paths = vec![paths::proxy(serves, &decision, &led, why_unknown)];
    paths.extend(way.packets(&led, why_unknown));
    let limits = limits::all(
        &revision.access,
        &index,
        agent,
        request.host,
        question.caps.as_deref(),
    );
    Ok(agents::Explained {
        revision: revision.number,
        destination: match &target.host {
            Name::Name(name) => name.clone(),
            Name::Address(address) => address.to_string(),
        },
        port: target.port,
        tunnel: target.tunnel,
        at: moment.now,
        time_zone: revision.time_zone.clone(),
        clock_trusted: moment.trusted,
        allowed: decision.allowed,
        policy_id: decision.policy_id.to_owned(),
        version: decision.version,
        reason: decision.reason.map(|reason| reason.to_string()),
        label: decision.label.map(str::to_owned),
        enforce_would_deny: decision.would_deny.map(str::to_owned),
        alert: decision.alert,
        considered: considered
            .into_iter()
            .map(|rule| told(rule, &revision.access))
            .collect(),
        unresolved,
        addresses: led.addresses,
        paths,
        limits,
        notes,
        method,
        path: target.path,
        agent: question.agent,
    })
}

/// As the gateway sees it.
fn method(
    question: &Question,
    tunnel: bool,
    notes: &mut Vec<String>,
) -> Result<String, ExplainError> {
    let method = match question.method.as_deref() {
        _ if tunnel => "CONNECT".to_owned(),
        None => "GET".to_owned(),
        Some(method) => method.to_ascii_uppercase(),
    };
    if let Some(wanted) = &question.method {
        let token = |byte: u8| byte.is_ascii_alphabetic() || b"-_".contains(&byte);
        if !(1..=32).contains(&wanted.len()) || !wanted.bytes().all(token) {
            return Err(ExplainError::Method(wanted.chars().take(40).collect()));
        }
        if tunnel && !wanted.eq_ignore_ascii_case("CONNECT") {
            notes.push(format!("{} runs in a tunnel, which the agent asks for by CONNECT: the gateway sees neither the method {} in it nor the path", shown(&question.url), wanted.to_ascii_uppercase()));
        }
    }
    Ok(method)
}

fn told(rule: Considered, access: &Access) -> agents::Considered {
    agents::Considered {
        version: rule.version,
        priority: rule.priority,
        action: rule.action.word().to_owned(),
        mode: rule.mode.word().to_owned(),
        why: why(&rule, access),
        policy_id: rule.policy_id,
    }
}

/// With what the rule asks for, where something else was asked.
fn why(considered: &Considered, access: &Access) -> String {
    let words = considered.why.to_string();
    let Some(rule) = access.rules.get(&considered.policy_id) else {
        return words;
    };
    let asks = match considered.why {
        Why::Identity => {
            let identity = &rule.identity;
            let fields = [
                ("agent", &identity.agents),
                ("team", &identity.teams),
                ("project", &identity.projects),
                ("environment", &identity.environments),
            ];
            let fields = fields.into_iter().filter(|(_, words)| !words.is_empty());
            let fields = fields.map(|(name, words)| format!("{name} {}", some(words)));
            fields.collect::<Vec<_>>().join("; ")
        }
        Why::Destination => {
            let domains = rule.domains.iter().map(|domain| domain.as_str().to_owned());
            let networks = rule.networks.iter().map(ToString::to_string);
            some(domains.chain(networks))
        }
        Why::Port => some(&rule.ports),
        Why::Method | Why::Path | Why::Hidden => {
            let methods = rule.methods.iter();
            some(methods.chain(&rule.path_prefixes))
        }
        Why::Shut(_) => rule
            .time_window
            .as_ref()
            .map_or_else(String::new, |window| {
                let days: Vec<&str> = window.days.iter().map(|day| day.word()).collect();
                format!("{} {} to {}", days.join(", "), window.start, window.end)
            }),
        _ => String::new(),
    };
    if asks.is_empty() {
        words
    } else {
        format!("{words} ({asks})")
    }
}

/// The first few of them.
fn some<T: ToString>(words: impl IntoIterator<Item = T>) -> String {
    const FEW: usize = 4;
    let mut words = words.into_iter();
    let mut few: Vec<String> = words
        .by_ref()
        .take(FEW)
        .map(|word| word.to_string())
        .collect();
    if words.next().is_some() {
        few.push("…".to_owned());
    }
    few.join(", ")
}

fn instant(text: &str, zone: &str) -> Result<i64, ExplainError> {
    let wrong = || ExplainError::At(shown(text));
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_second());
    }
    let local: civil::DateTime = text.parse().map_err(|_| wrong())?;
    let zone = TimeZone::get(zone).map_err(|_| wrong())?;
    let time = local.to_zoned(zone).map_err(|_| wrong())?;
    Ok(time.timestamp().as_second())
}

#[cfg(test)]
mod clock_tests {
    use super::*;

    #[test]
    fn a_time_without_an_offset_is_of_the_box() {
        let at = |text| instant(text, "Europe/Berlin");
        assert_eq!(at("2026-01-31T08:30:00Z").unwrap(), 1_769_848_200);
        assert_eq!(at("2026-01-31 09:30").unwrap(), 1_769_848_200);
        assert_eq!(at("2026-01-31T09:30:00").unwrap(), 1_769_848_200);
        for wrong in ["", "now", "2026-13-01", "25:00"] {
            let error = at(wrong).unwrap_err().to_string();
            assert!(error.contains("is no time; write one"), "{error}");
        }
    }
}
