//! What a box of the lab is told at its boot: its two cards, its resolver, and a policy.

use std::fmt::Write;

/// The boot configuration of a box that enforces this policy, each line as it stands below `policy`.
pub fn enforcing(policy: &str) -> String {
    enforcing_with(policy, "")
}

/// With more below `service clawgress`: agents, rules, what serves them.
pub fn enforcing_with(policy: &str, more: &str) -> String {
    let mut text = String::from(
        "interfaces {
    ethernet eth0 {
        address dhcp
        role wan
    }
    ethernet eth1 {
        address 10.66.0.1/24
        address fd66::1/64
        role lan
    }
}
system {
    name-server 203.0.113.1
    ntp {
        trust-hardware-clock
    }
}
service {
    clawgress {
        enable
        policy {
",
    );
    for line in policy.lines() {
        // Writing to a string can't fail.
        let _ = writeln!(text, "            {line}");
    }
    text.push_str("        }\n");
    for line in more.lines() {
        let _ = writeln!(text, "        {line}");
    }
    text + "    }\n}\n"
}
