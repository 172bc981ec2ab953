//! Why something would be allowed or denied: the revision in force is compiled once more, asked, and let go.
//!
//! One question at a time, for a large revision takes much memory while it is compiled. Nothing is decided by it.

use std::{net::IpAddr, net::Ipv4Addr};

use clawgress_config::{access::Access, policy::canonical_name};
use clawgress_link::agents;
use clawgress_policy::{
    Considered, Host, Index, Moment, Request, Revision, canonical_path, rules::Why,
    window::UnknownZone,
};
use jiff::{Timestamp, civil, tz::TimeZone};

const LONGEST: usize = 16 * 1024;

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
}

/// Where a URL leads, as the gateway would be asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: Name,
    port: u16,
    /// None: it runs in a tunnel.
    path: Option<String>,
    tunnel: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Name(String),
    Address(IpAddr),
}

/// Takes what a large revision takes, as long as it runs.
pub(crate) fn explain(
    revision: &Revision,
    question: Question,
) -> Result<agents::Explained, ExplainError> {
    let target = target(&question.url)?;
    let mut notes = Vec::new();
    let method = match question.method.as_deref() {
        _ if target.tunnel => "CONNECT".to_owned(),
        None => "GET".to_owned(),
        Some(method) => method.to_ascii_uppercase(),
    };
    if let Some(wanted) = &question.method {
        let token = |byte: u8| byte.is_ascii_alphabetic() || b"-_".contains(&byte);
        if !(1..=32).contains(&wanted.len()) || !wanted.bytes().all(token) {
            return Err(ExplainError::Method(wanted.chars().take(40).collect()));
        }
        if target.tunnel && !wanted.eq_ignore_ascii_case("CONNECT") {
            notes.push(format!("{} runs in a tunnel, which the agent asks for by CONNECT: the gateway sees neither the method {} in it nor the path", shown(&question.url), wanted.to_ascii_uppercase()));
        }
    }
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
    if decision.allowed {
        notes.push(
            "quotas, and the addresses that a name leads to, are judged when it is asked for"
                .to_owned(),
        );
    }
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
            .map(|rule| agents::Considered {
                version: rule.version,
                priority: rule.priority,
                action: rule.action.word().to_owned(),
                mode: rule.mode.word().to_owned(),
                why: why(&rule, &revision.access),
                policy_id: rule.policy_id,
            })
            .collect(),
        notes,
        method,
        path: target.path,
        agent: question.agent,
    })
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

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn target(url: &str) -> Result<Target, ExplainError> {
    let wrong = |why: &str| ExplainError::Url(format!("'{}' {why}", shown(url)));
    if url.len() > LONGEST {
        return Err(wrong("is too long"));
    }
    if url.contains(['#', '\\'])
        || url.contains(|letter: char| letter.is_control() || letter == ' ')
    {
        return Err(wrong("holds a letter that no request is sent with"));
    }
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        // As a CONNECT names it.
        None => (String::new(), url),
    };
    let (tunnel, default) = match scheme.as_str() {
        "http" | "ws" => (false, Some(80)),
        "https" | "wss" => (true, Some(443)),
        "" => (true, None),
        _ => return Err(wrong("is neither http nor https")),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if scheme.is_empty() && !path.is_empty() {
        return Err(wrong("has no scheme"));
    }
    if authority.contains('@') {
        return Err(wrong("holds a user, which belongs to no destination"));
    }
    let after = authority.rfind(']').map_or(0, |end| end + 1);
    let colon = authority.get(after..).and_then(|rest| rest.find(':'));
    let (host, port) = match colon {
        Some(colon) => authority.split_at(after + colon),
        None => (authority, ""),
    };
    let port = match (port.strip_prefix(':'), default) {
        (Some(digits), _)
            if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            digits.parse().ok().filter(|port| *port != 0)
        }
        (Some(_), _) => None,
        (None, default) => default,
    };
    let Some(port) = port else {
        return Err(wrong(if colon.is_some() {
            "has a port that is none"
        } else {
            "has neither a scheme nor a port"
        }));
    };
    Ok(Target {
        host: name(host)
            .ok_or_else(|| wrong("has a host that is neither a name nor an address"))?,
        port,
        path: if tunnel {
            None
        } else {
            let path = canonical_path(path).map_err(|error| {
                ExplainError::Url(format!(
                    "'{}' has a path that is refused: {error}",
                    shown(url)
                ))
            })?;
            Some(path.into_owned())
        },
        tunnel,
    })
}

/// The one canonical form, as the gateway makes it. What some readers take for an address (`127.1`) is no name.
fn name(host: &str) -> Option<Name> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: IpAddr = inner.strip_suffix(']')?.parse().ok()?;
        return address
            .is_ipv6()
            .then(|| Name::Address(address.to_canonical()));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Some(Name::Address(address.into()));
    }
    let name = canonical_name(host).ok()?;
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (!number).then_some(Name::Name(name))
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
mod tests {
    use super::*;

    #[test]
    fn a_url_is_what_the_gateway_would_be_asked_for() {
        for (url, host, port, path, tunnel) in [
            (
                "https://API.Example.com/v1?x",
                "api.example.com",
                443,
                None,
                true,
            ),
            ("https://a.example:8443", "a.example", 8443, None, true),
            (
                "http://a.example/a/../b//c?d",
                "a.example",
                80,
                Some("/b/c"),
                false,
            ),
            ("http://a.example:8080", "a.example", 8080, Some("/"), false),
            ("a.example.:22", "a.example", 22, None, true),
        ] {
            let target = target(url).unwrap();
            assert_eq!(target.host, Name::Name(host.to_owned()), "{url}");
            assert_eq!(
                (target.port, target.path.as_deref(), target.tunnel),
                (port, path, tunnel),
                "{url}"
            );
        }
        let host = |url| target(url).unwrap().host;
        let address = |text: &str| Name::Address(text.parse().unwrap());
        assert_eq!(host("http://203.0.113.9/"), address("203.0.113.9"));
        assert_eq!(host("https://[2001:DB8::1]:444/"), address("2001:db8::1"));
        assert_eq!(
            host("https://[::ffff:203.0.113.9]/"),
            address("203.0.113.9")
        );
    }

    #[test]
    fn what_is_no_url_is_one_error_with_the_fix() {
        for url in [
            "",
            "a.example",
            "a.example/x",
            "ftp://a.example/",
            "https://",
            "https://u:p@a.example/",
            "https://a.example:0/",
            "https://a.example:66000/",
            "https://a.example:+1/",
            "http://127.1/",
            "http://0x7f.1/",
            "https://[::1/",
            "https://a b/",
            "http://a.example/%zz",
            "http://a.example/\u{7f}",
            "https://a.example/#x",
            "https://[1.2.3.4]/",
            "https://a..b/",
        ] {
            let error = target(url).unwrap_err().to_string();
            assert!(
                error.starts_with("url: ") && error.contains("write one such as"),
                "{url}: {error}"
            );
        }
        assert!(target(&format!("https://a.example/{}", "x".repeat(LONGEST))).is_err());
    }

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
