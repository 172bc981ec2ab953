//! The kill switch as the console throws it, and what is open at the gateway.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use clawgress_link::agents::Blocked;

use super::{begin, change, in_force};
use crate::daemon::{
    http::{Api, Refusal, call::Call, legacy::fresh},
    switch::SwitchError,
};

/// Never refused for want of a record: who is blocked late has done more harm than a gap in the trail.
pub(super) async fn block(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (actor, asked) = begin(&api, call, &["agent", "all"]).await?;
    let whom = asked.whom()?.map(str::to_owned);
    let change = change(
        actor,
        "agent block",
        whom.as_deref(),
        scope(whom.as_deref()),
    );
    let recorded = api.records.begin_if_possible(&change).await;
    let working = Arc::clone(&api);
    let work = async move {
        let blocked = working.switch.block(whom.as_deref()).await;
        let mut blocked = blocked.map_err(|error| not_everywhere(&error))?;
        blocked
            .warnings
            .extend(strangers(&working, whom.as_deref()).await);
        Ok(blocked)
    };
    let blocked = recorded.carry_out(change, work, |_: &Blocked| "in force".to_owned());
    Ok(fresh(Json(blocked.await?)))
}

pub(super) async fn unblock(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (actor, asked) = begin(&api, call, &["agent", "all"]).await?;
    let whom = asked.whom()?.map(str::to_owned);
    let scope = scope(whom.as_deref());
    let change = change(actor, "agent unblock", whom.as_deref(), scope);
    let working = Arc::clone(&api);
    let work = async move {
        let blocked = working.switch.unblock(whom.as_deref()).await;
        let mut blocked = blocked.map_err(|error| not_everywhere(&error))?;
        blocked.warnings = strangers(&working, whom.as_deref()).await;
        if whom.is_some() && blocked.all {
            blocked.warnings.push(
                "everybody is blocked still; that is lifted with: clawgress agent all unblock"
                    .to_owned(),
            );
        } else if whom.is_none() && !blocked.agents.is_empty() {
            blocked.warnings.push(format!(
                "blocked one by one, and so still: {}",
                blocked
                    .agents
                    .iter()
                    .take(20)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        Ok(blocked)
    };
    let told = |_: &Blocked| "lifted".to_owned();
    let blocked = api.records.change(change, work, told).await?;
    Ok(fresh(Json(blocked)))
}

/// Who blocks somebody has to know where that does not hold yet.
fn not_everywhere(error: &SwitchError) -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not everywhere",
        error.to_string(),
    )
}

fn scope(whom: Option<&str>) -> String {
    whom.map_or("everybody", |_| "").to_owned()
}

/// A name that nobody has may be a typing error, and is blocked all the same.
async fn strangers(api: &Arc<Api>, whom: Option<&str>) -> Vec<String> {
    let Some(agent) = whom else {
        return Vec::new();
    };
    match in_force(api).await {
        Ok(revision) if revision.access.agents.contains_key(agent) => Vec::new(),
        Ok(revision) => vec![format!(
            "revision {} has no agent {agent}; is the id written right? See: clawgress agent list",
            revision.number
        )],
        Err(_) => {
            vec!["no revision could be read to see whether there is such an agent".to_owned()]
        }
    }
}

pub(super) async fn flows(State(api): State<Arc<Api>>, call: Call) -> Result<Response, Refusal> {
    let (_, asked) = begin(&api, call, &["agent"]).await?;
    let flows = api.services.gateway.flows(asked.agent.as_deref()).await?;
    Ok(fresh(Json(flows)))
}
