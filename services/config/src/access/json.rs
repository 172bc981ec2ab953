//! Agents, rules, quotas and settings as JSON: in the file of a revision and, each object for itself, in the API.
//!
//! One spelling: what has its default is left out. What is read is judged as the configuration's own words are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::access::model::{Access, Action, IdentityMatch, Rule, RuleMode};
use crate::access::{KeySource, check, parts};
use crate::cidr::{Cidr, Wrong};
use crate::policy::parts as values;
use crate::policy::{Day, DomainPattern, Period, Policy, TimeOfDay, TimeWindow};
use crate::table::ALGORITHMS;

/// Why a JSON text holds no agents, rules and quotas that may be acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AccessError(String);

impl Access {
    /// Reads what `Serialize` wrote.
    pub fn from_json(text: &str) -> Result<Self, AccessError> {
        let access: Self =
            serde_json::from_str(text).map_err(|error| AccessError(error.to_string()))?;
        access.sound()?;
        let policy = Policy::default();
        match check::findings(&access, &policy, false)
            .into_iter()
            .find(|finding| finding.grave)
        {
            Some(finding) => Err(at(&finding.path.join("."))(finding.wrong)),
            None => Ok(access),
        }
    }

    /// Judges the single values.
    fn sound(&self) -> Result<(), AccessError> {
        for (id, agent) in &self.agents {
            let path = format!("agents.{id}");
            parts::agent_id(id).map_err(at(&path))?;
            for value in [&agent.team_id, &agent.project_id, &agent.environment] {
                parts::identifier(value).map_err(at(&path))?;
            }
            for source in &agent.sources {
                values::source(&source.to_string()).map_err(at(&path))?;
            }
        }
        for (id, rule) in &self.rules {
            rule_is_sound(id, rule).map_err(at(&format!("rules.{id}")))?;
        }
        let quotas = [
            &self.quotas.agents,
            &self.quotas.teams,
            &self.quotas.projects,
        ];
        for id in quotas.into_iter().flat_map(BTreeMap::keys) {
            parts::identifier(id).map_err(at(&format!("quotas.{id}")))?;
        }
        for id in self.environments.keys() {
            parts::identifier(id).map_err(at(&format!("environments.{id}")))?;
        }
        for (name, issuer) in &self.issuers {
            let path = format!("issuers.{name}");
            parts::identifier(name).map_err(at(&path))?;
            for value in [&issuer.issuer, &issuer.audience]
                .into_iter()
                .chain(issuer.claims.values())
            {
                parts::token(value).map_err(at(&path))?;
            }
            if let KeySource::Url(url) = &issuer.keys {
                parts::url(url).map_err(at(&path))?;
            }
            let known = |word: &String| ALGORITHMS.contains(&word.as_str());
            if issuer.algorithms.is_empty() || !issuer.algorithms.iter().all(known) {
                return Err(AccessError(format!(
                    "{path}.algorithms: not all of them are known; write some of: {}",
                    ALGORITHMS.join(", ")
                )));
            }
        }
        Ok(())
    }
}

fn rule_is_sound(id: &str, rule: &Rule) -> Result<(), Wrong> {
    parts::policy_id(id)?;
    let identity = &rule.identity;
    for words in [
        &identity.agents,
        &identity.teams,
        &identity.projects,
        &identity.environments,
    ] {
        words.iter().try_for_each(|word| parts::identity(word))?;
    }
    rule.methods
        .iter()
        .try_for_each(|word| parts::method(word))?;
    rule.path_prefixes
        .iter()
        .try_for_each(|word| parts::path_prefix(word))?;
    rule.label
        .iter()
        .try_for_each(|label| values::label(label))?;
    if rule.ports.contains(&0) {
        return Err(Wrong::new(
            "0 is not a port",
            "write a number from 1 to 65535",
        ));
    }
    Ok(())
}

fn at(path: &str) -> impl Fn(Wrong) -> AccessError {
    move |wrong| AccessError(format!("{path}: {wrong}"))
}

/// A rule with its conditions in one object, as the API shows it.
#[allow(clippy::struct_excessive_bools)] // each is a field of its own
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRule<'r> {
    version: u32,
    priority: u32,
    enabled: bool,
    mode: RuleMode,
    #[serde(rename = "match")]
    matched: Match<'r>,
    action: Action,
    #[serde(default, skip_serializing_if = "is_not")]
    alert: bool,
    #[serde(default, skip_serializing_if = "is_not")]
    plain_tunnel: bool,
    #[serde(default, skip_serializing_if = "is_not")]
    upgrade: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<Cow<'r, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match<'r> {
    #[serde(default, skip_serializing_if = "is_anybody")]
    identity: Cow<'r, IdentityMatch>,
    #[serde(default, skip_serializing_if = "Destination::is_anywhere")]
    destination: Destination<'r>,
    #[serde(default, skip_serializing_if = "is_empty")]
    method: Cow<'r, BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    path_prefix: Cow<'r, BTreeSet<String>>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "time_window"
    )]
    time_window: Option<Cow<'r, TimeWindow>>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Destination<'r> {
    #[serde(
        default,
        skip_serializing_if = "is_empty",
        deserialize_with = "domains"
    )]
    domains: Cow<'r, BTreeSet<DomainPattern>>,
    #[serde(
        default,
        skip_serializing_if = "is_empty",
        deserialize_with = "networks_cow"
    )]
    networks: Cow<'r, BTreeSet<Cidr>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    ports: Cow<'r, BTreeSet<u16>>,
}

impl Destination<'_> {
    fn is_anywhere(&self) -> bool {
        self.domains.is_empty() && self.networks.is_empty() && self.ports.is_empty()
    }
}

fn is_anybody(identity: &IdentityMatch) -> bool {
    *identity == IdentityMatch::default()
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands out references
pub(super) fn is_not(flag: &bool) -> bool {
    !flag
}

fn is_empty<T>(set: &BTreeSet<T>) -> bool {
    set.is_empty()
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WireRule {
            version: self.version,
            priority: self.priority,
            enabled: self.enabled,
            mode: self.mode,
            matched: Match {
                identity: Cow::Borrowed(&self.identity),
                destination: Destination {
                    domains: Cow::Borrowed(&self.domains),
                    networks: Cow::Borrowed(&self.networks),
                    ports: Cow::Borrowed(&self.ports),
                },
                method: Cow::Borrowed(&self.methods),
                path_prefix: Cow::Borrowed(&self.path_prefixes),
                time_window: self.time_window.as_ref().map(Cow::Borrowed),
            },
            action: self.action,
            alert: self.alert,
            plain_tunnel: self.plain_tunnel,
            upgrade: self.upgrade,
            label: self.label.as_deref().map(Cow::Borrowed),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireRule::deserialize(deserializer)?;
        let Match {
            identity,
            destination,
            method,
            path_prefix,
            time_window,
        } = wire.matched;
        Ok(Self {
            version: wire.version,
            priority: wire.priority,
            enabled: wire.enabled,
            mode: wire.mode,
            identity: identity.into_owned(),
            domains: destination.domains.into_owned(),
            networks: destination.networks.into_owned(),
            ports: destination.ports.into_owned(),
            methods: method.into_owned(),
            path_prefixes: path_prefix.into_owned(),
            time_window: time_window.map(Cow::into_owned),
            action: wire.action,
            alert: wire.alert,
            plain_tunnel: wire.plain_tunnel,
            upgrade: wire.upgrade,
            label: wire.label.map(Cow::into_owned),
        })
    }
}

fn domains<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Cow<'static, BTreeSet<DomainPattern>>, D::Error> {
    let texts = Vec::<Cow<'de, str>>::deserialize(deserializer)?;
    let parsed = texts.iter().map(|text| DomainPattern::parse(text));
    let domains: Result<_, _> = parsed.collect();
    domains.map(Cow::Owned).map_err(D::Error::custom)
}

fn networks_cow<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Cow<'static, BTreeSet<Cidr>>, D::Error> {
    networks(deserializer).map(Cow::Owned)
}

pub(super) fn networks<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeSet<Cidr>, D::Error> {
    let texts = Vec::<Cow<'de, str>>::deserialize(deserializer)?;
    let parsed = texts.iter().map(|text| values::network(text));
    parsed.collect::<Result<_, _>>().map_err(D::Error::custom)
}

fn time_window<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'static, TimeWindow>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wire<'w> {
        #[serde(borrow)]
        days: Vec<Cow<'w, str>>,
        start: Cow<'w, str>,
        end: Cow<'w, str>,
    }
    let Some(wire) = Option::<Wire<'de>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let read = || {
        let days: Result<_, Wrong> = wire.days.iter().map(|day| Day::parse(day)).collect();
        TimeWindow::of(
            days?,
            TimeOfDay::parse(&wire.start)?,
            TimeOfDay::parse(&wire.end)?,
        )
    };
    read()
        .map(|window| Some(Cow::Owned(window)))
        .map_err(D::Error::custom)
}

/// `bytes` of a quota with its period.
pub(super) mod bytes {
    use super::{Cow, Deserialize, Deserializer, Period, Serialize, Serializer, values};
    use serde::de::Error as _;

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wire<'w> {
        most: u64,
        period: Cow<'w, str>,
    }

    #[allow(clippy::ref_option)] // as serde calls it
    pub(crate) fn serialize<S: Serializer>(
        bytes: &Option<(u64, Period)>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes
            .map(|(most, period)| Wire {
                most,
                period: Cow::Borrowed(period.word()),
            })
            .serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<(u64, Period)>, D::Error> {
        let Some(wire) = Option::<Wire<'de>>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let period = Period::parse(&wire.period).map_err(D::Error::custom)?;
        let most = values::cap_bytes(wire.most).map_err(D::Error::custom)?;
        Ok(Some((most, period)))
    }
}
