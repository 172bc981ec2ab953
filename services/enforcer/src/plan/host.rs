//! What the kernel needs beside rules: switches, and the way back for the front's transparent legs. As data; nothing
//! here sets anything.

use super::{
    frame::Frame,
    layout::{FRONT_MARK, FRONT_TABLE},
};

/// A value below /proc/sys/.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    pub path: &'static str,
    pub value: &'static str,
    /// Not every kernel has it (conntrack's come with its module).
    pub optional: bool,
}

const fn sysctl(path: &'static str, value: &'static str, optional: bool) -> Sysctl {
    Sysctl {
        path,
        value,
        optional,
    }
}

/// To be set before the ruleset is loaded.
const BEFORE: [Sysctl; 7] = [
    // A refusal that answers a marked packet takes its mark, and with it the way back to the front.
    sysctl("net/ipv4/fwmark_reflect", "1", false),
    sysctl("net/ipv6/fwmark_reflect", "1", false),
    // No packet ever gets a helper's attention. (Gone from newer kernels, where it can't be on.)
    sysctl("net/netfilter/nf_conntrack_helper", "0", true),
    sysctl("net/netfilter/nf_conntrack_acct", "1", true),
    sysctl("net/netfilter/nf_conntrack_max", "262144", true),
    // Five days by default: what was cut would hold its place as long.
    sysctl(
        "net/netfilter/nf_conntrack_tcp_timeout_established",
        "86400",
        true,
    ),
    sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0", true),
];

/// To be set after it is loaded and verified, and only then.
const AFTER: [Sysctl; 2] = [
    sysctl("net/ipv4/ip_forward", "1", false),
    sysctl("net/ipv6/conf/all/forwarding", "1", false),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNeeds {
    pub before: Vec<Sysctl>,
    pub after: Vec<Sysctl>,
    /// Whether the front's transparent legs need their way back.
    pub transparent: bool,
}

impl HostNeeds {
    pub(super) fn compile(frame: &Frame<'_>) -> Self {
        let judged = |who: &clawgress_policy::Principal| who.scope.judges_names_on_the_wire;
        Self {
            before: BEFORE.to_vec(),
            after: AFTER.to_vec(),
            transparent: frame.index.principals().iter().any(judged),
        }
    }

    /// Arguments of `ip`, in order. Those that delete what may not be there may fail; the others may not.
    pub fn routes(&self) -> Vec<Route> {
        let mut routes = Vec::new();
        for family in ["-4", "-6"] {
            let rule = format!(
                "rule {{}} fwmark {FRONT_MARK:#x}/0xffffffff lookup {FRONT_TABLE} priority {FRONT_TABLE}"
            );
            let command = |text: String, may_fail: bool| Route {
                arguments: format!("{family} {text}"),
                may_fail,
            };
            routes.push(command(rule.replace("{}", "del"), true));
            if self.transparent {
                let everywhere = if family == "-4" { "0.0.0.0/0" } else { "::/0" };
                routes.push(command(
                    format!("route replace local {everywhere} dev lo table {FRONT_TABLE}"),
                    false,
                ));
                routes.push(command(rule.replace("{}", "add"), false));
            } else {
                routes.push(command(format!("route flush table {FRONT_TABLE}"), true));
            }
        }
        routes
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Separated by blanks.
    pub arguments: String,
    pub may_fail: bool,
}
