//! Policy to policy.json, in one canonical order, so that the same policy is always the same bytes.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::policy::domain::DomainPattern;
use crate::policy::json::NEWEST_VERSION;
use crate::policy::json::fields::{Step, written};
use crate::policy::model::{
    Allow, Cap, Host, Limits, Mtls, Policy, PortRule, Protocol, Proxy, Scope, TimeWindow,
};
use crate::problem::Problem;

impl Policy {
    /// As a policy.json of this version; an error if the version cannot express the policy.
    pub fn to_json(&self, version: u32) -> Result<String, Problem> {
        if version == 0 || version > NEWEST_VERSION {
            return Err(Problem::at(
                "version".to_owned(),
                None,
                format!("there is no version {version} of policy.json"),
                "ask for version 1 or 2",
            ));
        }
        if version == 1
            && let Some(path) = self.beyond_version_1()
        {
            return Err(Problem::at(
                written(&path),
                None,
                "version 1 of policy.json has TCP ports only",
                "export as version 2, or remove this port",
            ));
        }
        let mut text =
            serde_json::to_string_pretty(&Versioned(self, version)).map_err(|error| {
                Problem::at(
                    String::new(),
                    None,
                    format!("the policy cannot be written as JSON: {error}"),
                    "report this with the policy",
                )
            })?;
        text.push('\n');
        Ok(text)
    }

    /// Where the first port is that version 1 cannot express.
    fn beyond_version_1(&self) -> Option<Vec<Step>> {
        let in_scope = |scope: &Scope| {
            let index = scope
                .allow
                .ports
                .iter()
                .position(|rule| rule.protocol != Protocol::Tcp)?;
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            Some([
                Step::Field("allow"),
                Step::Field("ports"),
                Step::Index(index),
            ])
        };
        if let Some(path) = in_scope(&self.global) {
            return Some(path.into());
        }
        self.hosts.iter().find_map(|(name, host)| {
            let below = in_scope(&host.scope)?;
            let mut path = vec![Step::Field("hosts"), Step::Key(name.clone())];
            path.extend(below);
            Some(path)
        })
    }
}

/// As policy.json of the newest version.
impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Versioned(self, NEWEST_VERSION).serialize(serializer)
    }
}

struct Versioned<'p>(&'p Policy, u32);

impl Serialize for Versioned<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(policy, version) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", version)?;
        allow_of(&mut map, &policy.global)?;
        if !policy.labels.is_empty() {
            map.serialize_entry("labels", &policy.labels)?;
        }
        rest_of(&mut map, &policy.global)?;
        if !policy.hosts.is_empty() {
            map.serialize_entry("hosts", &policy.hosts)?;
        }
        map.end()
    }
}

fn allow_of<M: SerializeMap>(map: &mut M, scope: &Scope) -> Result<(), M::Error> {
    if scope.allow != Allow::default() {
        map.serialize_entry("allow", &scope.allow)?;
    }
    Ok(())
}

fn rest_of<M: SerializeMap>(map: &mut M, scope: &Scope) -> Result<(), M::Error> {
    if let Some(proxy) = &scope.proxy {
        map.serialize_entry("proxy", proxy)?;
    }
    if let Some(window) = &scope.time_window {
        map.serialize_entry("time_window", window)?;
    }
    if !scope.domain_time_windows.is_empty() {
        map.serialize_entry("domain_time_windows", &scope.domain_time_windows)?;
    }
    if scope.limits != Limits::default() {
        map.serialize_entry("limits", &scope.limits)?;
    }
    Ok(())
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("sources", &self.sources)?;
        allow_of(&mut map, &self.scope)?;
        rest_of(&mut map, &self.scope)?;
        if !self.exfil.is_empty() {
            map.serialize_entry(
                "exfil",
                &std::collections::BTreeMap::from([("domains", &self.exfil)]),
            )?;
        }
        map.end()
    }
}

impl Serialize for Allow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.domains.is_empty() {
            map.serialize_entry("domains", &self.domains)?;
        }
        if !self.ips.is_empty() {
            map.serialize_entry("ips", &self.ips)?;
        }
        if !self.ports.is_empty() {
            map.serialize_entry("ports", &self.ports)?;
        }
        map.end()
    }
}

/// A TCP port is its number in every version.
impl Serialize for PortRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.protocol == Protocol::Tcp {
            return serializer.serialize_u16(self.port);
        }
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("port", &self.port)?;
        map.serialize_entry("protocol", self.protocol.word())?;
        map.end()
    }
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(mode) = self.mode {
            map.serialize_entry("mode", mode.word())?;
        }
        if !self.domains.is_empty() {
            map.serialize_entry("domains", &self.domains)?;
        }
        if let Some(backend) = &self.backend {
            map.serialize_entry("backend", backend)?;
        }
        if let Some(mtls) = &self.mtls {
            map.serialize_entry("mtls", mtls)?;
        }
        map.end()
    }
}

impl Serialize for Mtls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("ca", &self.ca)?;
        map.serialize_entry("certificate", &self.certificate)?;
        map.serialize_entry("key", &self.key)?;
        map.end()
    }
}

impl Serialize for TimeWindow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Days<'w>(&'w TimeWindow);
        impl Serialize for Days<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut days = serializer.serialize_seq(Some(self.0.days.len()))?;
                for day in &self.0.days {
                    days.serialize_element(day.word())?;
                }
                days.end()
            }
        }
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("days", &Days(self))?;
        map.serialize_entry("start", &self.start.to_string())?;
        map.serialize_entry("end", &self.end.to_string())?;
        map.end()
    }
}

impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(kbps) = self.egress_kbps {
            map.serialize_entry("egress_kbps", &kbps)?;
        }
        map.end()
    }
}

impl Serialize for Cap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("bytes", &self.bytes)?;
        map.serialize_entry("period", self.period.word())?;
        map.end()
    }
}

impl Serialize for DomainPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
