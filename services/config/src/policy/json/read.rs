//! The fields of policy.json, each read into its part of the policy.

use crate::cidr::Wrong;
use crate::policy::json::NEWEST_VERSION;
use crate::policy::json::fields::{Read, Reader, Step};
use crate::policy::json::lists::{by_domain, domains, list, networks, place, unique};
use crate::policy::json::objects::{FirstProtocol, cap, mtls, port, window};
use crate::policy::json::origins::{HostOrigins, Origins, ScopeOrigins};
use crate::policy::model::{Host, Limits, Policy, Proxy, ProxyMode, Scope};
use crate::policy::parts;

const POLICY: &[&str] = &[
    "version",
    "allow",
    "labels",
    "proxy",
    "time_window",
    "domain_time_windows",
    "limits",
    "hosts",
];
const HOST: &[&str] = &[
    "sources",
    "allow",
    "proxy",
    "time_window",
    "domain_time_windows",
    "limits",
    "exfil",
];

/// The whole text. The policy is sound only if nothing was reported.
pub(super) fn policy(reader: &mut Reader<'_>) -> Read<(Policy, Origins)> {
    let mut policy = Policy::default();
    let mut origins = Origins::default();
    let mut version = None;
    let mut protocol = None;
    let (_, start) = reader.scanner.peek()?;
    let is_object = reader.fields(
        POLICY,
        r#"{"version": 1, "allow": {…}}"#,
        |reader, field| {
            match field {
                "version" => version = Some(self::version(reader)?),
                "labels" => {
                    let labels = by_domain(
                        reader,
                        r#"an object such as {"api.example.com": "llm-provider"}"#,
                        |reader| {
                            let label = reader.text("a text in quotes", |text| {
                                parts::label(text).map(|()| text.to_owned())
                            })?;
                            Ok(label.map(|(label, _)| label))
                        },
                    )?;
                    (policy.labels, origins.labels) = labels;
                }
                "hosts" => hosts(reader, &mut policy, &mut origins, &mut protocol)?,
                field => scope(
                    reader,
                    field,
                    &mut policy.global,
                    &mut origins.global,
                    &mut protocol,
                )?,
            }
            Ok(())
        },
    )?;
    reader.scanner.end()?;
    if is_object && version.is_none() {
        let wrong = Wrong::new("the version is missing", r#"add "version": 1"#);
        reader.report_below(Step::Field("version"), start, wrong)?;
    }
    if let (Some(Some(1)), Some((at, path))) = (version, protocol) {
        reader.report_at(
            at,
            path,
            Wrong::new(
                "a port with its protocol is of version 2, and the policy says version 1",
                r#"write "version": 2, or the number of the TCP port alone"#,
            ),
        )?;
    }
    Ok((policy, origins))
}

fn version(reader: &mut Reader<'_>) -> Read<Option<u32>> {
    let known = |number: u64| match u32::try_from(number) {
        Ok(version @ 1..=NEWEST_VERSION) => Ok(version),
        _ => Err(Wrong::new(
            format!(
                "this image knows policies up to version {NEWEST_VERSION}, not version {number}"
            ),
            "write 1 or 2, or use a newer image",
        )),
    };
    Ok(reader.whole("1 or 2", known)?.map(|(version, _)| version))
}

fn scope(
    reader: &mut Reader<'_>,
    field: &'static str,
    scope: &mut Scope,
    origins: &mut ScopeOrigins,
    protocol: &mut FirstProtocol,
) -> Read<()> {
    match field {
        "allow" => allow(reader, scope, origins, protocol),
        "proxy" => proxy(reader, scope, origins),
        "time_window" => {
            scope.time_window = window(reader)?;
            Ok(())
        }
        "domain_time_windows" => {
            let like = r#"an object such as {"api.example.com": {…}}"#;
            (scope.domain_time_windows, origins.windows) = by_domain(reader, like, window)?;
            Ok(())
        }
        "limits" => limits(reader, &mut scope.limits),
        // Every table of fields names only what is read here or by the caller.
        _ => Ok(reader.scanner.skip()?),
    }
}

fn allow(
    reader: &mut Reader<'_>,
    scope: &mut Scope,
    origins: &mut ScopeOrigins,
    protocol: &mut FirstProtocol,
) -> Read<()> {
    origins.allow = place(reader.scanner.peek()?.1);
    let like = r#"{"domains": [], "ips": [], "ports": []}"#;
    reader.fields(&["domains", "ips", "ports"], like, |reader, field| {
        match field {
            "domains" => (scope.allow.domains, origins.domains) = domains(reader)?,
            "ips" => {
                origins.networks = networks(reader, parts::network)?;
                scope.allow.ips = origins.networks.keys().copied().collect();
            }
            _ => {
                let read = list(reader, "a list such as [443]", |reader| {
                    port(reader, protocol)
                })?;
                origins.ports = unique(reader, read)?.into_iter().collect();
                scope.allow.ports = origins.ports.keys().copied().collect();
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn proxy(reader: &mut Reader<'_>, scope: &mut Scope, origins: &mut ScopeOrigins) -> Read<()> {
    origins.proxy = place(reader.scanner.peek()?.1);
    let mut proxy = Proxy::default();
    let known = &["mode", "domains", "backend", "mtls"];
    let is_object = reader.fields(known, r#"{"mode": "sni-allowlist"}"#, |reader, field| {
        match field {
            "mode" => {
                let mode = reader.text(r#""sni-allowlist""#, ProxyMode::parse)?;
                proxy.mode = mode.map(|(mode, _)| mode);
            }
            "domains" => (proxy.domains, origins.wire_domains) = domains(reader)?,
            "backend" => {
                let backend = reader.text(
                    r#"a gateway in quotes, such as "gw.example.com:3128""#,
                    parts::backend,
                )?;
                proxy.backend = backend.map(|(backend, _)| backend);
            }
            _ => {
                origins.mtls = place(reader.scanner.peek()?.1);
                proxy.mtls = mtls(reader)?;
            }
        }
        Ok(())
    })?;
    if is_object {
        scope.proxy = Some(proxy);
    }
    Ok(())
}

fn limits(reader: &mut Reader<'_>, limits: &mut Limits) -> Read<()> {
    reader.fields(&["egress_kbps"], r#"{"egress_kbps": 8000}"#, |reader, _| {
        let kbps = reader.whole("a whole number of kbit/s, such as 8000", parts::kbps)?;
        limits.egress_kbps = kbps.map(|(kbps, _)| kbps);
        Ok(())
    })?;
    Ok(())
}

fn hosts(
    reader: &mut Reader<'_>,
    policy: &mut Policy,
    origins: &mut Origins,
    protocol: &mut FirstProtocol,
) -> Read<()> {
    let like = r#"an object such as {"agent-1": {"sources": ["192.168.10.10/32"]}}"#;
    reader.entries(like, |reader, name, at| {
        let (host, origin) = reader.below(name, |reader| {
            reader.accept(at, parts::host_name(name))?;
            if policy.hosts.contains_key(name) {
                reader.report(
                    at,
                    Wrong::new("this host is there twice", "keep one of them"),
                )?;
            }
            let mut host = Host::default();
            let mut origin = HostOrigins {
                at: place(at),
                ..HostOrigins::default()
            };
            self::host(reader, &mut host, &mut origin, protocol)?;
            Ok((host, origin))
        })?;
        policy.hosts.insert(name.to_owned(), host);
        origins.hosts.insert(name.to_owned(), origin);
        Ok(())
    })
}

fn host(
    reader: &mut Reader<'_>,
    host: &mut Host,
    origins: &mut HostOrigins,
    protocol: &mut FirstProtocol,
) -> Read<()> {
    reader.fields(HOST, r#"{"sources": ["192.168.10.10/32"], "allow": {…}}"#, |reader, field| {
        match field {
            "sources" => {
                origins.sources = networks(reader, parts::source)?;
                host.sources = origins.sources.keys().copied().collect();
                Ok(())
            }
            "exfil" => {
                reader.fields(&["domains"], r#"{"domains": {"api.example.com": {…}}}"#, |reader, _| {
                    let like = r#"an object such as {"api.example.com": {"bytes": 1048576, "period": "hour"}}"#;
                    (host.exfil, origins.caps) = by_domain(reader, like, cap)?;
                    Ok(())
                })?;
                Ok(())
            }
            field => scope(reader, field, &mut host.scope, &mut origins.scope, protocol),
        }
    })?;
    Ok(())
}
