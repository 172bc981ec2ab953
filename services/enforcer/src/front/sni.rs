//! Port 443: the name in the TLS hello is judged, resolved anew and dialled. The address that the agent chose decides
//! nothing, and no byte of its hello goes anywhere before the verdict. A site may ask for a second hello by a
//! HelloRetryRequest, and goes by that one: until the site has settled, a filter lets no hello with another name follow.

use std::collections::BTreeSet;

use crate::front::config::{
    CONNECTIONS_OF_SOURCE, FLOWS_OF_PRINCIPAL, FLOWS_OF_SOURCE, FLOWS_OF_UNKNOWN, SNI_FLOWS,
};
use crate::front::log::{self, Path};
use crate::front::next::NextGateway;
use crate::front::{MapName, Places, reach};

/// Rules that both paths share. They leave a word in txn.reason if the flow is to be denied.
pub(super) struct Rules<'p> {
    pub(super) places: &'p Places,
    /// `tcp-request content` or `http-request`.
    pub(super) on: &'static str,
    pub(super) path: Path,
}

impl Rules<'_> {
    /// A rule for flows that nothing speaks against yet.
    pub(super) fn unless_refused(&self, action: &str, condition: &str) -> String {
        format!("\t{} {action} if !refused {condition}", self.on)
            .trim_end()
            .to_owned()
            + "\n"
    }

    pub(super) fn refuse(&self, reason: &str, condition: &str) -> String {
        self.unless_refused(&format!("set-var(txn.reason) str({reason})"), condition)
    }

    fn map(&self, name: MapName) -> String {
        self.places.map(name)
    }

    /// Of the port, in the maps.
    fn letter(&self) -> &'static str {
        match self.path {
            Path::Sni => "s",
            Path::Host => "h",
        }
    }

    /// Whose flow it is, and whether that one has too many.
    pub(super) fn who(&self) -> String {
        let sources = self.map(MapName::Sources);
        let on = self.on;
        let letter = self.letter();
        [
            format!("\t{on} set-var(txn.event) str(deny)\n"),
            // Once more: the connection may be older than what the request is judged by.
            format!("\t{on} set-var(sess.who) src,map_ip({sources},-)\n"),
            format!("\t{on} set-var(txn.list) var(sess.who),field(2,|)\n"),
            format!("\t{on} set-var(txn.next) var(sess.who),field(4,|)\n"),
            self.refuse("unknown-source", "{ var(sess.who) -m str -- - }"),
            self.refuse(
                "unavailable",
                &format!("{{ sc0_conn_cur gt {FLOWS_OF_SOURCE} }}"),
            ),
            self.refuse(
                "port",
                &format!(
                    "!{{ var(sess.who),field(3,|) -m sub {letter} {} }}",
                    letter.to_ascii_uppercase()
                ),
            ),
        ]
        .concat()
    }

    /// The verdict on a name whose reading is in txn.said.
    pub(super) fn verdict(&self, not_listed: &str) -> String {
        let letter = self.letter();
        let (rules, names, gates, caps) = (
            self.map(MapName::Rules),
            self.map(MapName::Names),
            self.map(MapName::Gates),
            self.map(MapName::Caps),
        );
        [
            self.unless_refused(
                "set-var(txn.reason) var(txn.said)",
                "!{ var(txn.said) -m beg ok| }",
            ),
            self.unless_refused("set-var(txn.name) var(txn.said),field(2,|)", ""),
            self.unless_refused("set-var(txn.key) var(txn.said),field(3,|)", ""),
            self.unless_refused(
                &format!("set-var(txn.rule) var(txn.list),concat(/,txn.key),map_beg({names})"),
                "",
            ),
            // What rules decide goes before the lists.
            self.unless_refused(
                &format!(
                    "set-var(txn.ruled) var(sess.who),field(5,|),concat({letter}/,txn.key),map_beg({rules},listed)"
                ),
                "",
            ),
            self.unless_refused(
                "set-var(txn.reason) var(txn.ruled)",
                "!{ var(txn.ruled) -m str open listed tried }",
            ),
            self.refuse(
                not_listed,
                "!{ var(txn.rule) -m found } !{ var(txn.ruled) -m str open tried }",
            ),
            self.refuse(
                "port",
                &format!(
                    "{{ var(txn.rule) -m found }} {{ var(sess.who),field(3,|) -m sub {} }} !{{ var(txn.ruled) -m str open }}",
                    letter.to_ascii_uppercase()
                ),
            ),
            self.unless_refused(
                &format!("set-var(txn.gate) var(txn.rule),map_str({gates},unavailable)"),
                "{ var(txn.rule) -m found }",
            ),
            self.unless_refused(
                "set-var(txn.reason) var(txn.gate)",
                "{ var(txn.rule) -m found } !{ var(txn.gate) -m str open } !{ var(txn.ruled) -m str open }",
            ),
            self.refuse(
                "over-cap",
                &format!("{{ var(txn.list),concat(/,txn.key),map_beg({caps}) -m found }}"),
            ),
        ]
        .concat()
    }

    /// Where the name leads to, in the agent's own family: its flow bears its address on the way out, too.
    pub(super) fn site(&self) -> String {
        let (own, networks, held) = (
            self.map(MapName::Own),
            self.map(MapName::Networks),
            self.map(MapName::Held),
        );
        // What the reading of a hello has brought along.
        let (shared, asked) = match self.path {
            Path::Sni => (
                self.unless_refused("set-var(txn.site) var(txn.shared)", "straight"),
                "straight !{ var(txn.shared) -m found }",
            ),
            Path::Host => (String::new(), "straight"),
        };
        [
            shared,
            self.unless_refused("do-resolve(txn.site,agents,ipv4) var(txn.name)", &format!("{asked} !six")),
            self.unless_refused("do-resolve(txn.site,agents,ipv6) var(txn.name)", &format!("{asked} six")),
            self.refuse("unavailable", "straight !{ var(txn.site) -m found }"),
            self.refuse("unavailable", "straight !six { var(txn.site) -m sub : }"),
            self.refuse("unavailable", "straight six !{ var(txn.site) -m sub : }"),
            self.refuse("rebinding", &format!("straight !six {{ var(txn.site) -m ip {} }}", reach::NEVER4.join(" "))),
            self.refuse("rebinding", &format!("straight six {{ var(txn.site) -m ip {} }}", reach::NEVER6.join(" "))),
            self.unless_refused(&format!("set-var(txn.near) var(txn.site),map_ip({own})"), "straight"),
            self.refuse("rebinding", "straight { var(txn.near) -m str never }"),
            self.unless_refused(
                "set-var(txn.near) str(inside)",
                &format!("straight !six {{ var(txn.site) -m ip {} }}", reach::INSIDE4.join(" ")),
            ),
            self.unless_refused(
                "set-var(txn.near) str(inside)",
                &format!("straight six {{ var(txn.site) -m ip {} }}", reach::INSIDE6.join(" ")),
            ),
            self.unless_refused(
                "set-var(txn.near) str(inside)",
                &format!("straight six !{{ var(txn.site) -m ip {} }}", reach::OUTSIDE6),
            ),
            self.unless_refused(
                &format!("set-var(txn.network) var(txn.site),map_ip({networks},none)"),
                "{ var(txn.near) -m found }",
            ),
            self.refuse(
                "rebinding",
                &format!("{{ var(txn.near) -m found }} !{{ var(txn.list),concat(@,txn.network),map_str({held}) -m found }}"),
            ),
        ]
        .concat()
    }

    /// For a flow that has passed.
    pub(super) fn pass(&self) -> String {
        let line = log::open_format(self.path);
        // The filter on port 443 says it itself when the hello goes on; what was looked up for it others may share.
        let say = match self.path {
            Path::Sni => self.unless_refused(
                "lua.clawgress_found",
                "straight !{ var(txn.shared) -m found }",
            ),
            Path::Host => self.unless_refused("lua.clawgress_say", ""),
        };
        [
            self.unless_refused("set-var(txn.event) str(close)", ""),
            self.unless_refused("set-dst var(txn.site)", "straight"),
            self.unless_refused(&format!("set-var-fmt(txn.line) \"{line}\""), ""),
            say,
        ]
        .concat()
    }

    /// Where flows go that were not cut. One that is meant for a gateway never goes straight.
    pub(super) fn backends(&self, gateways: &BTreeSet<NextGateway>) -> String {
        let word = self.path.word();
        let mut text = String::new();
        for gateway in gateways {
            let id = gateway.id();
            text.push_str(&format!(
                "\tuse_backend next-{word}-{id} if {{ var(txn.next) -m str {id} }}\n"
            ));
        }
        text.push_str(&format!(
            "\tuse_backend {word}4 if straight !six\n\tuse_backend {word}6 if straight six\n"
        ));
        text
    }

    /// What the rules above go by, and how each line begins.
    pub(super) fn head(&self) -> String {
        format!(
            "\tlog-format \"{format}\"\n\
             \t# Over both paths, whether it says anything or not: nobody takes the place of all others.\n\
             \ttcp-request connection set-var(sess.who) src,map_ip({sources},-)\n\
             \ttcp-request connection track-sc0 src,ipmask(32,64) table flows-of-source\n\
             \ttcp-request connection track-sc1 var(sess.who),field(1,|) table flows-of-principal\n\
             \ttcp-request connection reject if {{ sc0_conn_cur gt {of_source} }}\n\
             \ttcp-request connection reject if {{ sc1_conn_cur gt {of_principal} }}\n\
             \ttcp-request connection reject if {{ var(sess.who) -m str -- - }} {{ sc1_conn_cur gt {of_unknown} }}\n\
             \ttcp-request connection set-var(sess.asked) dst\n\
             \ttcp-request connection set-var(sess.aport) dst_port\n\
             \t# For the next gateway.\n\
             \tunique-id-format %[var(txn.name)]\n\
             \tacl refused var(txn.reason) -m found\n\
             \tacl straight var(txn.next) -m str straight\n\
             \tacl six src -m sub :\n",
            format = log::end_format(self.path),
            sources = self.map(MapName::Sources),
            of_source = CONNECTIONS_OF_SOURCE,
            of_principal = FLOWS_OF_PRINCIPAL,
            of_unknown = FLOWS_OF_UNKNOWN,
        )
    }
}

pub(super) fn text(places: &Places, gateways: &BTreeSet<NextGateway>) -> String {
    let rules = Rules {
        places,
        on: "tcp-request content",
        path: Path::Sni,
    };
    let head = rules.head();
    // For backends, too: what a filter says goes where the backend logs to, once there is one.
    let log = log::target(places);
    // Whoever gets here without a reading has said all that it will. (No rule may ask for more bytes than there are
    // once there is a reading: haproxy would wait for them.)
    let silent = rules.refuse("not-tls", "!{ var(txn.said) -m found } { req.len eq 0 }");
    let partial = rules.refuse("malformed-hello", "!{ var(txn.said) -m found }");
    let watched = rules.refuse("unavailable", "!{ var(txn.watched) -m found }");
    let (who, verdict, site, pass) = (
        rules.who(),
        rules.verdict("sni-mismatch"),
        rules.site(),
        rules.pass(),
    );
    let backends = rules.backends(gateways);
    format!(
        r"defaults sni
	mode tcp
{log}	timeout connect 5s
	timeout client 30s
	timeout server 30s
	timeout tunnel 1h
	timeout client-fin 10s
	timeout server-fin 10s
	timeout queue 2s
	option clitcpka
	option srvtcpka
	retries 1

frontend sni from sni
	bind 0.0.0.0:10443
	bind [::]:10443 v6only
	maxconn {SNI_FLOWS}
	filter lua.clawgress_watch
{head}	# So long a hello may take to arrive whole; who says nothing waits for the server and does not speak TLS.
	tcp-request inspect-delay 5s
	# What can't be TLS goes at its first byte. Lua sees a hello once: when its first record is there, by the record's
	# own length, or never.
	tcp-request content set-var(txn.reason) str(not-tls) if {{ req.len ge 1 }} !{{ req.payload(0,1) -m bin 16 }}
	tcp-request content set-var(txn.length) req.payload(3,2),hex,hex2i,add(5) if !refused
	tcp-request content set-var(txn.said) lua.clawgress_hello if !refused {{ req.len,sub(txn.length) ge 0 }}
{who}{silent}{partial}{watched}{verdict}{site}{pass}	tcp-request content reject if refused
{backends}
# The agent's own address goes out with the flow: the kernel judges, counts and shapes it as the agent's.
backend sni4 from sni
	source 0.0.0.0 usesrc clientip
	server site 0.0.0.0:443

backend sni6 from sni
	source [::] usesrc clientip
	server site 0.0.0.0:443

"
    )
}
