//! Port 80: the Host of every request is judged, resolved anew and dialled on a connection of its own.
//!
//! What two readers of HTTP might read differently is refused, not repaired; what goes on to the site is written anew by
//! haproxy.

use std::collections::BTreeSet;

use crate::front::Places;
use crate::front::config::HOST_FLOWS;
use crate::front::log::{self, Path};
use crate::front::next::NextGateway;
use crate::front::sni::Rules;

/// The answer to a denied request, in haproxy's format; `label` with what goes before it.
fn denial(label: &str) -> String {
    format!(
        r#"'{{"request_id":"%[var(txn.id)]","decision":"deny","reason":"%[var(txn.reason)]"{label},"host":"%[var(txn.host),json(utf8s)]"}}'"#
    )
}

pub(super) fn text(places: &Places, gateways: &BTreeSet<NextGateway>) -> String {
    let rules = Rules {
        places,
        on: "http-request",
        path: Path::Host,
    };
    let labels = places.map(crate::front::MapName::Labels);
    let head = rules.head();
    let log = log::target(places);
    let not_http = |condition: &str| rules.refuse("not-http", condition);
    let hygiene = [
        not_http("METH_CONNECT"),
        // What is behind a switched connection is judged no more; a WebSocket stays with its site, h2c would not.
        not_http("{ req.fhdr_cnt(upgrade) gt 0 } !{ req.fhdr(upgrade),lower -m str websocket }"),
        not_http("{ req.fhdr_cnt(upgrade) gt 1 }"),
        not_http("{ req.fhdr_cnt(http2-settings) gt 0 }"),
        // A token names a header that goes no further than haproxy, or would not if the site read it so, too.
        // Not by an expression: haproxy compiles those to machine code, which its sandbox forbids.
        not_http("{ req.fhdr_cnt(connection) gt 0 } !{ lua.clawgress_connection -m str plain }"),
        not_http("{ req.fhdr_cnt(transfer-encoding) gt 1 }"),
        not_http("{ req.fhdr_cnt(transfer-encoding) gt 0 } !{ req.fhdr(transfer-encoding),lower -m str chunked }"),
        not_http("{ req.fhdr_cnt(transfer-encoding) gt 0 } { req.fhdr_cnt(content-length) gt 0 }"),
        not_http("{ req.fhdr_cnt(content-length) gt 1 }"),
        not_http("{ req.fhdr_cnt(host) eq 0 }"),
        rules.refuse("host-mismatch", "{ req.fhdr_cnt(host) gt 1 }"),
        rules.unless_refused("set-var(txn.said) req.fhdr(host),lua.clawgress_host", ""),
        // http://authority/path: the authority must say what the Host says, to whoever may go by it.
        rules.refuse("host-mismatch", "!{ url -m beg / } !{ url -m str * } !{ url_beg -i http:// }"),
        rules.unless_refused("set-var(txn.authority) url,field(3,/),lua.clawgress_host", "{ url_beg -i http:// }"),
        rules.refuse("host-mismatch", "{ url_beg -i http:// } !{ var(txn.authority) -m found }"),
        rules.refuse(
            "host-mismatch",
            "{ url_beg -i http:// } !{ var(txn.authority),strcmp(txn.said) eq 0 }",
        ),
        rules.refuse("host-mismatch", "!{ var(txn.said) -m found }"),
        rules.unless_refused("set-uri %[pathq]", "{ url_beg -i http:// }"),
    ]
    .concat();
    let (who, verdict, site, pass) = (
        rules.who(),
        rules.verdict("host-mismatch"),
        rules.site(),
        rules.pass(),
    );
    let backends = rules.backends(gateways);
    let with_label = denial(",\"label\":\"%[var(txn.label),url_dec,json(utf8s)]\"");
    let without = denial("");
    format!(
        r#"defaults host
	mode http
{log}	timeout connect 5s
	timeout client 60s
	timeout client-fin 10s
	timeout http-request 5s
	timeout http-keep-alive 15s
	timeout queue 2s
	timeout server 10m
	timeout server-fin 10s
	timeout tunnel 1h
	retries 1
	option dontlognull
	option http-ignore-probes
	option http-server-close
	option disable-h2-upgrade
	# What is no HTTP gets no answer in HTTP: without these, haproxy's own page.
	errorfile 400 /dev/null
	errorfile 422 /dev/null
	errorfile 501 /dev/null
	http-error status 408 content-type application/json string "{{\"decision\":\"deny\",\"reason\":\"not-http\"}}"
	http-error status 502 content-type application/json string "{{\"error\":\"bad gateway\",\"reason\":\"the site gave no usable answer\"}}"
	http-error status 503 content-type application/json string "{{\"error\":\"unavailable\",\"reason\":\"the site does not answer\"}}"
	http-error status 504 content-type application/json string "{{\"error\":\"gateway timeout\",\"reason\":\"the site did not answer in time\"}}"

frontend host from host
	bind 0.0.0.0:10080
	bind [::]:10080 v6only
	maxconn {HOST_FLOWS}
{head}	http-request set-var(txn.id) uuid()
	http-request set-var(txn.host) req.fhdr(host),bytes(0,255)
{who}{hygiene}{verdict}{site}{pass}	http-request set-var(txn.label) var(txn.key),map_beg({labels}) if refused
	http-request return status 503 content-type application/json lf-string {without} if {{ var(txn.reason) -m str unavailable }}
	http-request return status 403 content-type application/json lf-string {with_label} if refused {{ var(txn.label) -m found }}
	http-request return status 403 content-type application/json lf-string {without} if refused
{backends}
backend host4 from host
	http-reuse never
	source 0.0.0.0 usesrc clientip
	server site 0.0.0.0:80

backend host6 from host
	http-reuse never
	source [::] usesrc clientip
	server site 0.0.0.0:80

"#
    )
}
