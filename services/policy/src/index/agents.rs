//! Agents with addresses of their own, and whose lists bind them: a host's around all of their sources, or the global
//! ones. The proxy judges by the same lists, since it looks for the host around an address, too.

use std::sync::Arc;

use clawgress_config::{Cidr, access::Status};

use super::{
    Identity, IndexError,
    sources::{lies_in, plain},
};
use crate::Revision;

/// What rules know this agent by; None: there is no such agent.
pub(super) fn identity(revision: &Revision, id: &str) -> Option<Arc<Identity>> {
    let agent = revision.access.agents.get(id)?;
    Some(Arc::new(Identity {
        team_id: agent.team_id.clone(),
        project_id: agent.project_id.clone(),
        environment: agent.environment.clone(),
        disabled: agent.status == Status::Disabled,
    }))
}

/// The agents with sources that are no host, each with the host in whose most specific source all of its own lie.
pub(super) fn bound(revision: &Revision) -> Result<Vec<(&str, Option<&str>)>, IndexError> {
    let hosts = &revision.policy.hosts;
    let claimed: Vec<(Cidr, &str)> = hosts
        .iter()
        .flat_map(|(name, host)| {
            host.sources
                .iter()
                .map(|&source| (plain(source), name.as_str()))
        })
        .collect();
    let around = |source: Cidr| {
        let source = plain(source);
        let outer = claimed
            .iter()
            .filter(|(network, _)| lies_in(&source, network));
        outer
            .max_by_key(|(network, _)| network.length)
            .map(|(_, name)| *name)
    };
    let mut bound = Vec::new();
    for (id, agent) in &revision.access.agents {
        let mut scopes = agent.sources.iter().map(|&source| around(source));
        let Some(first) = scopes.next().filter(|_| !hosts.contains_key(id)) else {
            continue;
        };
        if let Some(second) = scopes.find(|other| *other != first) {
            let told = |host: Option<&str>| match host {
                Some(host) => format!("in host {host}"),
                None => "in no host".to_owned(),
            };
            return Err(IndexError::Scattered {
                revision: revision.number,
                agent: id.clone(),
                first: told(first),
                second: told(second),
            });
        }
        bound.push((id.as_str(), first));
    }
    Ok(bound)
}
