//! haproxy.cfg around its frontends: the process, the resolver, the TLS front of the policy API as the image ships it.
//!
//! haproxy starts without any privilege but to bind low ports and to send from the agents' addresses, so no user, group
//! or chroot stands here: the unit does all of that. (With a `user` line haproxy would refuse to start: it can't know
//! that the capability was given to it from outside.)

use std::collections::BTreeSet;

use crate::front::next::NextGateway;
use crate::front::{Places, host, sni};

/// Flows at once through each of the two frontends, and room for those of the policy API.
pub(super) const SNI_FLOWS: u32 = 4096;
pub(super) const HOST_FLOWS: u32 = 4096;
const API_FLOWS: u32 = 512;

/// Flows of one source at once, over both paths; in IPv6 of one /64, which one machine may have to itself. Silent ones
/// count. Beyond the first number they are denied with a word; beyond the second they are cut without any.
pub(super) const FLOWS_OF_SOURCE: u32 = 384;
pub(super) const CONNECTIONS_OF_SOURCE: u32 = 512;
/// Of one principal, which may have many sources.
pub(super) const FLOWS_OF_PRINCIPAL: u32 = 3072;
/// Of nobody in particular: enough to be told of them.
pub(super) const FLOWS_OF_UNKNOWN: u32 = 64;

pub(super) fn text(places: &Places, gateways: &BTreeSet<NextGateway>) -> String {
    let mut text = global(places);
    text.push_str(&api(places));
    text.push_str(&tables());
    text.push_str(&sni::text(places, gateways));
    text.push_str(&host::text(places, gateways));
    for gateway in gateways {
        text.push_str(&gateway.text(places));
    }
    text
}

fn global(places: &Places) -> String {
    let Places { lua, runtime, .. } = places;
    let group = places
        .runtime_group
        .as_ref()
        .map_or(String::new(), |group| format!(" group {group}"));
    let flows = SNI_FLOWS + HOST_FLOWS + API_FLOWS;
    format!(
        r"# Made by clawgress-enforcer from the committed revision; changes here are lost.

global
	log stderr format short daemon info
	maxconn {flows}
	# A reload leaves open flows with the old process; what may not go on is cut by the kernel.
	hard-stop-after 24h
	mworker-max-reloads 8
	stats socket {runtime} mode 660{group} level operator
	stats timeout 10s
	lua-load-per-thread {lua}
	# The filter on port 443 takes some for each flow.
	tune.lua.maxmem 256
	ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
	ssl-default-bind-ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305
	ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
	ssl-default-bind-curves X25519:P-256:P-384
	# A hello has to fit in here whole.
	tune.bufsize 16384
	tune.maxrewrite 1024
	tune.http.maxhdr 101
	tune.ssl.cachesize 1000

# clawgress-dns, on its port for this very use; it tries again itself, and what it denies is denied at once. Its answer
# is shared by flows of one instant only, for it is pinned for a flow that begins now. (Both of the last two the same:
# a flow that finds an answer too old to share would else wait for the longer one.)
resolvers agents
	nameserver dns 127.0.0.1:10054
	accepted_payload_size 4096
	resolve_retries 1
	timeout retry 5s
	timeout resolve 200ms
	hold valid 200ms
	hold obsolete 0s

# For the next gateways alone, whose addresses are looked up beforehand.
resolvers gateways
	nameserver dns 127.0.0.1:10054
	accepted_payload_size 4096
	resolve_retries 3
	timeout retry 1s
	timeout resolve 10s
	hold valid 10s
	hold nx 60s
	hold refused 60s
	hold timeout 60s
	hold other 60s
	hold obsolete 60s

"
    )
}

/// As in the file that the image ships for the time without a revision.
fn api(places: &Places) -> String {
    let Places { certificate, .. } = places;
    format!(
        r#"defaults api
	mode http
	log global
	option httplog
	# Only what went wrong: a healthy box is asked for its health often.
	option dontlog-normal
	option dontlognull
	option http-buffer-request
	timeout connect 2s
	timeout client 15s
	timeout client-fin 2s
	timeout http-request 10s
	timeout http-keep-alive 10s
	timeout queue 2s
	timeout server 30s
	timeout server-fin 2s
	# A backend that is down is down: say so at once.
	retries 0
	http-error status 400 content-type application/json string "{{\"error\":\"bad request\",\"reason\":\"the front could not read this as HTTP/1.1 or HTTP/2, or its head is larger than 15 KiB\"}}"
	http-error status 408 content-type application/json string "{{\"error\":\"request timeout\",\"reason\":\"the request did not arrive within 10 seconds\"}}"
	http-error status 502 content-type application/json string "{{\"error\":\"bad gateway\",\"reason\":\"the policy API gave no usable answer; see journalctl -u clawgress-policy\"}}"
	http-error status 503 content-type application/json string "{{\"error\":\"unavailable\",\"reason\":\"the policy API is not running; see systemctl status clawgress-policy\"}}"
	http-error status 504 content-type application/json string "{{\"error\":\"gateway timeout\",\"reason\":\"the policy API did not answer in time; see journalctl -u clawgress-policy\"}}"

frontend front from api
	bind 127.0.0.1:443 ssl crt {certificate} alpn h2,http/1.1
	maxconn {API_FLOWS}
	# What the caller says about who he is counts for nothing.
	http-request del-header x-forwarded-for
	http-request del-header forwarded
	http-request set-header x-forwarded-for %[src]
	http-response del-header server
	default_backend policy

backend policy from api
	# A million names are compiled, checked by four programs and loaded before the answer; all other calls are quick.
	http-request set-timeout server 180s if {{ path /clawgress/policy /api/clawgress/policy }}
	server policy 127.0.0.1:8440 maxconn 256

"#
    )
}

/// So that nobody can take all flows.
fn tables() -> String {
    let flows = SNI_FLOWS + HOST_FLOWS;
    format!(
        "backend flows-of-source from api\n\tstick-table type ipv6 size {0} expire 1m store conn_cur\n\n\
         backend flows-of-principal from api\n\tstick-table type string len 255 size {0} expire 1m store conn_cur\n\n",
        2 * flows
    )
}
