//! The configuration of named while a revision is enforced. The hardening is that of the sealed one; what is added is
//! that allowed names are asked for.

use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_policy::Revision;

use super::{
    frame::disjoint,
    layout::{NAMED_CONF, ZONES},
    rpz::Zones,
};

/// The second net against rebinding: no answer from outside may name an inside address, unless the policy does.
const INSIDE: [&str; 19] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedConf {
    pub path: &'static str,
    pub text: String,
}

pub(super) fn compile(revision: &Revision, zones: &Zones) -> NamedConf {
    let text = TEMPLATE
        .replace("@POLICY@", &policy(zones))
        .replace("@INSIDE@", &inside(&allowed_networks(revision)))
        .replace("@RECURSION@", &recursion(&revision.name_servers))
        .replace("@ZONES@", &declarations(zones));
    NamedConf {
        path: NAMED_CONF,
        text,
    }
}

fn allowed_networks(revision: &Revision) -> Vec<Cidr> {
    let policy = &revision.policy;
    let scopes =
        std::iter::once(&policy.global).chain(policy.hosts.values().map(|host| &host.scope));
    let mut all: Vec<Cidr> = scopes.flat_map(|scope| &scope.allow.ips).copied().collect();
    all.sort_unstable();
    [disjoint(&all, false), disjoint(&all, true)].concat()
}

/// Earlier elements win: what the policy holds is taken out before.
fn inside(allowed: &[Cidr]) -> String {
    let overlaps = |cidr: &&Cidr| {
        INSIDE.iter().any(|inside| {
            let Some((address, length)) = inside.split_once('/') else {
                return false;
            };
            let (Ok(address), Ok(length)) = (address.parse(), length.parse()) else {
                return false;
            };
            cidr.overlaps(&Cidr { address, length })
        })
    };
    let excepted = allowed
        .iter()
        .filter(overlaps)
        .map(|cidr| format!("\t\t!{cidr};\n"));
    let inside = INSIDE.iter().map(|inside| format!("\t\t{inside};\n"));
    excepted.chain(inside).collect()
}

fn policy(zones: &Zones) -> String {
    zones
        .zones
        .iter()
        .map(|zone| format!("\t\tzone \"{}\" policy given log no;\n", zone.name))
        .collect::<Vec<_>>()
        .concat()
}

/// Forwarders are the operator's and trusted as such; whoever asks the roots checks signatures.
fn recursion(name_servers: &[IpAddr]) -> String {
    if name_servers.is_empty() {
        return "\tdnssec-validation auto;\n".to_owned();
    }
    let servers: Vec<String> = name_servers
        .iter()
        .map(|server| format!(" {server};"))
        .collect();
    let servers = servers.concat();
    format!("\tforward only;\n\tforwarders {{{servers} }};\n\tdnssec-validation no;\n")
}

fn declarations(zones: &Zones) -> String {
    zones
        .zones
        .iter()
        .map(|zone| {
            format!(
                "zone \"{}\" {{ type primary; file \"{ZONES}/{}\"; allow-query {{ none; }}; }};\n",
                zone.name, zone.file
            )
        })
        .collect::<Vec<_>>()
        .concat()
}

const TEMPLATE: &str = r#"// Made by clawgress-enforcer from the revision in force; a change here is lost.

acl loopback { 127.0.0.1; ::1; };

options {
	directory "/var/cache/bind";
	pid-file none;
	session-keyfile none;

	listen-on port 53 { 127.0.0.1; };
	listen-on-v6 port 53 { ::1; };
	interface-interval 0;
	automatic-interface-scan no;

	recursion yes;
	allow-query { loopback; };
	allow-query-cache { loopback; };
	allow-recursion { loopback; };
	allow-transfer { none; };
	allow-update { none; };
	allow-update-forwarding { none; };
	allow-notify { none; };
	notify no;

	version none;
	hostname none;
	server-id none;
	root-key-sentinel no;
	trust-anchor-telemetry no;
	minimal-any yes;

	// The first zone that knows a name decides; the last one denies.
	response-policy {
@POLICY@	}
		qname-wait-recurse no
		break-dnssec yes
		recursive-only no
		min-update-interval 0
		max-policy-ttl 5;

	deny-answer-addresses {
@INSIDE@	};

@RECURSION@
	max-cache-size 64m;
	max-cache-ttl 86400;
	max-ncache-ttl 300;
	recursive-clients 1000;
	tcp-clients 150;
	prefetch 0;
	empty-zones-enable yes;
};

controls { };

logging {
	channel journal { stderr; severity info; print-category yes; print-severity yes; };
	category default { journal; };
	category lame-servers { null; };
	category edns-disabled { null; };
};

@ZONES@"#;
