//! The next gateway that a scope's flows are handed to instead of going straight to their site: one backend of
//! haproxy's for each path. The flow keeps the agent's address as its source and bears a PROXY v2 header in front,
//! with source, address and, in the TLV for a unique id (0x05), the name.

use std::collections::BTreeSet;

use clawgress_config::policy::{Mtls, Scope};
use clawgress_policy::Revision;
use sha2::{Digest, Sha256};

use crate::front::{Places, short_hex};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextGateway {
    /// `name-or-address:port`.
    pub backend: String,
    /// CA, certificate, key.
    pub mtls: Option<[String; 3]>,
}

/// A file to be made by writing others one after the other; as private as the most private of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub path: String,
    pub of: Vec<String>,
}

pub(super) fn gateways(revision: &Revision) -> BTreeSet<NextGateway> {
    let scopes = std::iter::once(&revision.policy.global)
        .chain(revision.policy.hosts.values().map(|host| &host.scope));
    scopes
        .filter(|scope| revision.enabled && scope.judges_names_on_the_wire())
        .filter_map(of)
        .collect()
}

fn of(scope: &Scope) -> Option<NextGateway> {
    let proxy = scope.proxy.as_ref()?;
    of_scope(proxy.backend.as_deref(), proxy.mtls.as_ref())
}

pub(super) fn of_scope(backend: Option<&str>, mtls: Option<&Mtls>) -> Option<NextGateway> {
    Some(NextGateway {
        backend: backend?.to_owned(),
        mtls: mtls.map(|mtls| [mtls.ca.clone(), mtls.certificate.clone(), mtls.key.clone()]),
    })
}

impl NextGateway {
    /// Of its content alone.
    pub fn id(&self) -> String {
        let mut digest = Sha256::new();
        let files = self.mtls.iter().flatten();
        for part in std::iter::once(&self.backend).chain(files) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        short_hex(&digest.finalize())
    }

    fn pem(&self, places: &Places) -> String {
        format!("{}/next-{}.pem", places.directory, self.id())
    }

    pub(super) fn joined(&self, places: &Places) -> Option<Joined> {
        let [_, certificate, key] = self.mtls.as_ref()?;
        Some(Joined {
            path: self.pem(places),
            of: vec![certificate.clone(), key.clone()],
        })
    }

    fn host(&self) -> &str {
        let host = self
            .backend
            .rsplit_once(':')
            .map_or(self.backend.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Both backends.
    pub(super) fn text(&self, places: &Places) -> String {
        let id = self.id();
        let mut server = format!(
            "server next {} send-proxy-v2 proxy-v2-options unique-id",
            self.backend
        );
        if self.host().parse::<std::net::IpAddr>().is_err() {
            server.push_str(" resolvers gateways resolve-prefer ipv4 init-addr none");
        }
        if let Some([ca, _, _]) = &self.mtls {
            // The name to verify is the gateway's own: none is sent to it, and what it certifies is what it is called.
            server.push_str(&format!(
                " ssl verify required verifyhost {} ca-file {} crt {} ssl-min-ver TLSv1.2",
                self.host(),
                ca,
                self.pem(places),
            ));
        }
        format!(
            "backend next-sni-{id} from sni\n\tsource 0.0.0.0 usesrc clientip\n\t{server}\n\n\
             backend next-host-{id} from host\n\thttp-reuse never\n\tsource 0.0.0.0 usesrc clientip\n\t{server}\n\n"
        )
    }
}
