//! Programs that agents really use, each through the gateway as it is shipped: a page over HTTPS, a denial, a 429.
//!
//! Whoever can't be had fails its test and says what to install. What comes from a registry is fetched with this machine's
//! own configuration into a temporary directory, before the test has a network of its own.

#![cfg(feature = "clients")]

#[allow(dead_code)] // Shared with the tests of the services, which use all of it.
#[path = "../daemons/manager.rs"]
mod manager;
#[allow(dead_code)]
#[path = "../gateway/origin.rs"]
mod origin;
#[allow(dead_code)]
#[path = "../daemons/stack.rs"]
mod stack;

mod programs;
mod site;

use std::path::Path;
use std::process::{Command, Output};

use clawgress_config::access::Quota;
use clawgress_config::policy::Policy;

use site::Site;
use stack::Stack;

/// What a client is given.
pub(crate) struct Given<'g> {
    /// `http://agent:key@gateway:3128`.
    pub(crate) proxy: String,
    /// Of the one site, under this client's own name.
    pub(crate) host: String,
    /// The certificate that vouches for it.
    pub(crate) authority: &'g Path,
    /// Its own, empty at first.
    pub(crate) scratch: &'g Path,
}

/// Fetches one thing; its output says how that went.
type Fetch<'f> = &'f (dyn Fn(&Given<'_>) -> Command + Sync);

/// A page, a denial and a quota, for one client.
pub(crate) fn through_the_gateway(client: &str, fetched: &str, fetch: Fetch<'_>) {
    let site = Site::make();
    let authority = site.authority();
    let limited = |revision: &mut clawgress_policy::Revision| {
        let policy = serde_json::json!({"version": 1, "allow": {"domains": ["*.lab.test"]}});
        revision.policy = Policy::from_json(policy.to_string().as_bytes()).unwrap();
        let agent = revision.access.agents["agent-1"].clone();
        revision
            .access
            .agents
            .insert("agent-over".to_owned(), agent);
        let none = Quota {
            rpm: Some(0),
            ..Quota::default()
        };
        let quotas = &mut revision.access.quotas.agents;
        quotas.insert("agent-over".to_owned(), none);
    };
    Stack::run_at(&[80], limited, |stack| {
        site.serve();
        let key = stack.key("agent-1");
        let over = stack.new_key("agent-over");
        let run = |agent: &str, key: &str, host: &str| -> Output {
            let scratch = tempfile::tempdir().unwrap();
            let given = Given {
                proxy: format!("http://{agent}:{key}@{}", stack::GATEWAY),
                host: host.to_owned(),
                authority: &authority,
                scratch: scratch.path(),
            };
            let mut command = fetch(&given);
            // What this machine believes would go before what the client is told.
            for name in [
                "REQUESTS_CA_BUNDLE",
                "CURL_CA_BUNDLE",
                "PIP_CERT",
                "GIT_SSL_CAINFO",
            ] {
                command.env_remove(name);
            }
            command
                .output()
                .unwrap_or_else(|error| panic!("{client} can't be run: {error}; install it"))
        };
        let text = |output: &Output| {
            [&*output.stdout, &*output.stderr]
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                .concat()
        };
        let host = format!("{client}.lab.test");
        let page = run("agent-1", &key, &host);
        let said = text(&page);
        assert!(
            page.status.success() && said.contains(fetched),
            "{client}: {said}"
        );
        let denied = format!("{client}.denied.test");
        let denial = run("agent-1", &key, &denied);
        let said = text(&denial);
        assert!(
            !denial.status.success(),
            "{client} takes a denial for a page: {said}"
        );
        assert!(
            said.contains("403") || said.contains("Forbidden"),
            "{client}: {said}"
        );
        stack.waits_for("the other key is known", |_| {
            stack::asked(&over, "known").0 == 429
        });
        let quota = run("agent-over", &over, &host);
        let said = text(&quota);
        assert!(
            !quota.status.success(),
            "{client} takes a 429 for a page: {said}"
        );
        assert!(
            said.contains("429") || said.contains("Too Many Requests"),
            "{client}: {said}"
        );
        let events = stack.events();
        let of = |agent: &str, host: &str, status: u16| {
            events.iter().any(|event| {
                event.begun.agent_id.as_deref() == Some(agent)
                    && event.begun.destination_host.as_deref() == Some(host)
                    && event.outcome.status == Some(status)
            })
        };
        assert!(of("agent-1", &host, 200) && of("agent-1", &denied, 403));
        assert!(of("agent-over", &host, 429));
    });
}
