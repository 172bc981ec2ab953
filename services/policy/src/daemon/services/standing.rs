//! Whether those who serve the gateway's agents answer, and what they say of themselves: a check each.

use std::{
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use clawgress_link::{ProbeError, health::Check, line};
use serde::Deserialize;
use serde_json::json;

use super::{ServiceError, Services, gateway::Standing};

/// All are asked at the same time. `wanted`: the revision in force, if it enables the gateway.
pub(crate) async fn measure(
    services: &Services,
    quota_socket: &Path,
    deadline: Duration,
    wanted: Option<u64>,
) -> Vec<Check> {
    let (gateway, identity, quota, audit) = tokio::join!(
        check("gateway", async {
            let standing = services.gateway.standing(deadline).await;
            standing
                .map_err(|error| error.to_string())
                .and_then(|standing| judge(&standing, wanted))
        }),
        check("identity", async {
            let standing = services.identity.standing(deadline).await;
            standing.map_err(|error| error.to_string())
        }),
        check("quota", async {
            let answered = quota_answers(quota_socket, deadline).await;
            answered
                .map(|()| "answers".to_owned())
                .map_err(|error| unit(error, "clawgress-quota"))
        }),
        check("audit", async {
            let answered = services.trail.standing(deadline).await;
            answered.map_err(|refusal| refusal.reason().to_owned())
        }),
    );
    vec![gateway, identity, quota, audit]
}

fn unit(error: ProbeError, unit: &'static str) -> String {
    ServiceError::Silent { error, unit }.to_string()
}

async fn check(name: &str, asked: impl Future<Output = Result<String, String>>) -> Check {
    let begun = Instant::now();
    let outcome = asked.await;
    Check::of(name, begun.elapsed(), outcome)
}

/// It judges by what is committed, or says why not.
fn judge(standing: &Standing, wanted: Option<u64>) -> Result<String, String> {
    let mut told = match (standing.revision, wanted) {
        (Some(revision), Some(wanted)) if revision != wanted => {
            return Err(format!(
                "judges by revision {revision}, and revision {wanted} is in force; see journalctl -u clawgress-gateway"
            ));
        }
        (None, Some(_)) => {
            return Err("admits nobody: it has the revision or the credentials not yet; see journalctl -u clawgress-gateway".to_owned());
        }
        (Some(revision), _) => format!("judges by revision {revision}"),
        (None, None) => "answers, and admits nobody".to_owned(),
    };
    told.push_str(&format!(
        ", {} connections, {} flows, {} events to be shipped",
        standing.connections, standing.flows, standing.events_waiting
    ));
    if standing.blocked.all {
        told.push_str(", EVERYBODY is blocked");
    } else if !standing.blocked.agents.is_empty() {
        let number = standing.blocked.agents.len();
        told.push_str(&format!(", {number} blocked"));
    }
    Ok(told)
}

/// Any answer says that it lives: this service holds no lease, and is told so.
async fn quota_answers(socket: &Path, deadline: Duration) -> Result<(), ProbeError> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(rename = "reply")]
        _reply: String,
    }
    let doing = format!("asking clawgress-quota on {}", socket.display());
    line::ask::<Reply>(socket, &doing, &json!({}), 64 * 1024, deadline)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use clawgress_link::agents::Blocked;

    use super::*;

    #[test]
    fn a_gateway_that_judges_by_something_else_is_not_well() {
        let standing = |revision| Standing {
            revision,
            connections: 3,
            flows: 2,
            blocked: Blocked::default(),
            events_waiting: 0,
        };
        let told = judge(&standing(Some(7)), Some(7)).unwrap();
        assert_eq!(
            told,
            "judges by revision 7, 3 connections, 2 flows, 0 events to be shipped"
        );
        assert!(
            judge(&standing(Some(6)), Some(7))
                .unwrap_err()
                .contains("revision 7 is in force")
        );
        assert!(
            judge(&standing(None), Some(7))
                .unwrap_err()
                .contains("admits nobody")
        );
        assert!(judge(&standing(None), None).is_ok());
        let blocked = Standing {
            blocked: Blocked {
                all: true,
                ..Blocked::default()
            },
            ..standing(Some(7))
        };
        assert!(
            judge(&blocked, Some(7))
                .unwrap()
                .ends_with("EVERYBODY is blocked")
        );
    }
}
