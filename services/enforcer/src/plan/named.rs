//! The configuration of named while a revision is enforced. The hardening is that of the sealed one; what is added is
//! that allowed names are asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_config::policy::Scope;
use clawgress_policy::Revision;

use super::{
    frame::disjoint,
    layout::{NAMED_CONF, ZONES},
    rpz::{Zones, collectors_by_name},
};

/// No answer from outside may name such an address, unless the policy does, and no server outside has one.
const INSIDE: [&str; 23] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    // A cloud's metadata at an address that looks public.
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2001::/23",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Those that no policy opens: the box itself, every host at once, and IPv4 in disguise.
const NEVER: [&str; 11] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2001::/23",
    "2002::/16",
    "ff00::/8",
];

fn block(text: &str) -> Option<Cidr> {
    let (address, length) = text.split_once('/')?;
    Some(Cidr {
        address: address.parse().ok()?,
        length: length.parse().ok()?,
    })
}

/// The networks on which no name server outside can be.
pub(super) fn inside_blocks(v6: bool) -> Vec<Cidr> {
    let blocks = INSIDE.into_iter().filter_map(block);
    blocks
        .filter(|block| block.address.is_ipv6() == v6)
        .collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedConf {
    pub path: &'static str,
    pub text: String,
}

pub(super) fn compile(revision: &Revision, zones: &Zones) -> NamedConf {
    let text = TEMPLATE
        .replace("@POLICY@", &policy(zones))
        .replace("@INSIDE@", &inside(&allowed_networks(revision)))
        .replace("@EXCEPT@", &except(&named_by_the_operator(revision)))
        .replace("@SERVERS@", &servers(&revision.name_servers))
        .replace("@RECURSION@", &recursion(&revision.name_servers))
        .replace("@ZONES@", &declarations(zones));
    NamedConf {
        path: NAMED_CONF,
        text,
    }
}

fn scopes(revision: &Revision) -> impl Iterator<Item = &Scope> {
    let policy = &revision.policy;
    std::iter::once(&policy.global).chain(policy.hosts.values().map(|host| &host.scope))
}

fn allowed_networks(revision: &Revision) -> Vec<Cidr> {
    let mut all: Vec<Cidr> = scopes(revision)
        .flat_map(|scope| &scope.allow.ips)
        .copied()
        .filter(is_inside)
        .collect();
    all.sort_unstable();
    [disjoint(&all, false), disjoint(&all, true)].concat()
}

/// All of it, or it is about the world, and was not written to let names lead inside.
fn is_inside(cidr: &Cidr) -> bool {
    let lies_in = |blocks: &[&str]| {
        blocks
            .iter()
            .copied()
            .filter_map(block)
            .any(|block| block.length <= cidr.length && block.overlaps(cidr))
    };
    lies_in(&INSIDE) && !lies_in(&NEVER)
}

/// Earlier elements win: what the policy holds is taken out before.
fn inside(allowed: &[Cidr]) -> String {
    let excepted = allowed.iter().map(|cidr| format!("\t\t!{cidr};\n"));
    let inside = INSIDE.iter().map(|inside| format!("\t\t{inside};\n"));
    excepted.chain(inside).collect()
}

/// By name: next gateways, for which the front alone may ask, and collectors.
fn named_by_the_operator(revision: &Revision) -> BTreeSet<String> {
    scopes(revision)
        .filter(|scope| revision.enabled && scope.judges_names_on_the_wire())
        .filter_map(|scope| scope.proxy.as_ref()?.backend.as_deref()?.rsplit_once(':'))
        .map(|(host, _)| host)
        .filter(|host| {
            let address = host.trim_matches(['[', ']']);
            address.parse::<IpAddr>().is_err()
        })
        .map(str::to_ascii_lowercase)
        .chain(collectors_by_name(revision).filter(|_| revision.enabled))
        .collect()
}

/// The operator named them: they may be inside.
fn except(given: &BTreeSet<String>) -> String {
    if given.is_empty() {
        return String::new();
    }
    let names: Vec<String> = given.iter().map(|name| format!(" \"{name}\";")).collect();
    let names = names.concat();
    format!(" except-from {{{names} }}")
}

/// Whoever owns a zone says where its servers are, and could have us speak to hosts inside. Forwarders may be there,
/// and are the only ones then that named asks.
fn servers(name_servers: &[IpAddr]) -> String {
    if !name_servers.is_empty() {
        return String::new();
    }
    INSIDE
        .iter()
        .map(|block| format!("server {block} {{ bogus yes; }};\n"))
        .collect::<Vec<_>>()
        .concat()
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
@INSIDE@	}@EXCEPT@;

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

@SERVERS@@ZONES@"#;
