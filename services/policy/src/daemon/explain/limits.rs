//! What a request would be counted against: quotas of the agent, its team and its project, and caps on the name.
//!
//! Caps are the kernel's, and the enforcer tells how far they are used. What is left of quotas the quota service tells
//! gateways alone.

use clawgress_config::access::{Access, Quota};
use clawgress_link::{
    agents::{Agent, Limit},
    control::CapUse,
};
use clawgress_policy::{Host, Index};

pub(super) fn all(
    access: &Access,
    index: &Index,
    agent: &Agent,
    host: Host<'_>,
    used: Option<&[(String, Vec<CapUse>)]>,
) -> Vec<Limit> {
    let quotas = &access.quotas;
    let of = [
        ("agent", &agent.agent_id, &quotas.agents),
        ("team", &agent.team_id, &quotas.teams),
        ("project", &agent.project_id, &quotas.projects),
    ];
    let mut all: Vec<Limit> = of
        .into_iter()
        .filter_map(|(kind, id, quotas)| Some((kind, id, quotas.get(id)?)))
        .flat_map(|(kind, id, quota)| of_quota(kind, id, quota))
        .collect();
    all.push(Limit {
        limit: "connections-per-agent".to_owned(),
        of: agent.agent_id.clone(),
        most: u64::from(access.gateway.connections_per_agent),
        unit: "connections".to_owned(),
        left: None,
        beyond: "429".to_owned(),
    });
    all.extend(caps(index, agent, host, used));
    all
}

fn of_quota(kind: &str, id: &str, quota: &Quota) -> Vec<Limit> {
    let limit = |what: &str, most: u64, unit: String| Limit {
        limit: format!("{kind}-{what}"),
        of: id.to_owned(),
        most,
        unit,
        left: None,
        beyond: quota.mode.word().to_owned(),
    };
    let mut limits = Vec::new();
    if let Some(most) = quota.rps {
        limits.push(limit("rps", most.into(), "requests a second".to_owned()));
    }
    if let Some(most) = quota.rpm {
        limits.push(limit("rpm", most.into(), "requests a minute".to_owned()));
    }
    if let Some(most) = quota.connections {
        limits.push(limit("connections", most.into(), "connections".to_owned()));
    }
    if let Some((most, period)) = quota.bytes {
        limits.push(limit("bytes", most, format!("bytes a {}", period.word())));
    }
    limits
}

fn caps(
    index: &Index,
    agent: &Agent,
    host: Host<'_>,
    used: Option<&[(String, Vec<CapUse>)]>,
) -> Vec<Limit> {
    let (Host::Name(name), Some(who)) = (host, index.by_name(&agent.agent_id)) else {
        return Vec::new();
    };
    let holder = index.holder(who);
    let told = used.and_then(|used| used.iter().find(|(name, _)| *name == holder.name));
    index
        .caps_of(who, name)
        .map(|(pattern, cap)| {
            let period = cap.period.word();
            // Nobody has used what the enforcer does not know of.
            let left = used.map(|_| {
                let use_of = told.and_then(|(_, caps)| {
                    let mut caps = caps.iter();
                    caps.find(|told| told.domain == pattern.as_str() && told.period == period)
                });
                cap.bytes.saturating_sub(use_of.map_or(0, |told| told.used))
            });
            Limit {
                limit: "cap".to_owned(),
                of: format!("{} on {}", holder.name, pattern.as_str()),
                most: cap.bytes,
                unit: format!("bytes a {period}"),
                left,
                beyond: "denied until the period ends".to_owned(),
            }
        })
        .collect()
}
