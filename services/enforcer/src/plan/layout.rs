//! Numbers and names that the ruleset, the daemons and the kernel have to agree on. Nothing here is computed.

/// Uids, fixed in sysusers.d: the ruleset must load while no name service runs.
pub mod uid {
    pub const ROOT: u32 = 0;
    pub const SYSTEMD_NETWORK: u32 = 961;
    pub const CHRONY: u32 = 962;
    pub const BIND: u32 = 963;
    pub const HAPROXY: u32 = 964;
    pub const POLICY: u32 = 970;
    pub const ENFORCER: u32 = 971;
    pub const DNS: u32 = 972;
    pub const GATEWAY: u32 = 973;
    pub const IDENTITY: u32 = 974;
    pub const AUDIT: u32 = 976;
}

pub mod port {
    /// named, on loopback.
    pub const NAMED: u16 = 53;
    /// The policy API, on loopback behind the front.
    pub const API: u16 = 8440;
    /// Where other boxes' events come in; nobody on this one needs it.
    pub const TRAIL: u16 = 8447;
    /// Where gateways watch the identity service's snapshot.
    pub const IDENTITY: u16 = 8450;
    /// clawgress-dns, for agents: whatever they send to port 53 ends here.
    pub const DNS: u16 = 10053;
    /// clawgress-dns on loopback, for the front's own look-ups.
    pub const DNS_FRONT: u16 = 10054;
    /// The front, judging TLS hellos: port 443 of scopes that judge names on the wire.
    pub const SNI: u16 = 10443;
    /// The front, judging Host headers: port 80 of those scopes.
    pub const HOST: u16 = 10080;
}

/// Ports of the box's own services on loopback, each with the users whose business they are. Whatever else runs here
/// reaches none of them; the sealed ruleset says the same.
pub const OWN_PORTS: [(u16, &[u32]); 6] = [
    (
        port::NAMED,
        &[
            uid::ROOT,
            uid::CHRONY,
            uid::POLICY,
            uid::ENFORCER,
            uid::DNS,
            uid::GATEWAY,
            uid::IDENTITY,
            uid::AUDIT,
        ],
    ),
    (port::API, &[uid::ROOT, uid::HAPROXY]),
    (port::TRAIL, &[uid::ROOT]),
    (port::IDENTITY, &[uid::ROOT, uid::GATEWAY]),
    (port::DNS, &[uid::ROOT, uid::POLICY]),
    (port::DNS_FRONT, &[uid::ROOT, uid::HAPROXY]),
];

pub const FAMILY: &str = "inet";
/// Made anew by every plan.
pub const TABLE: &str = "clawgress";
/// Never deleted: caps, counters and learned neighbours outlive a plan.
pub const METER: &str = "clawgress_meter";

/// The conntrack mark of a flow. The low 24 bits are the generation under which it was last allowed; 0: never.
///
/// Rules know a generation by name alone (`STAMPED`, `STAMPS`): so another one is an exchange of three small sets.
pub mod mark {
    pub const GENERATION: u32 = 0x00ff_ffff;
    /// The flow was cut: both its ends are answered with resets.
    pub const CUT: u32 = 0x0100_0000;
    /// The flow was allowed and is not counted as a flow yet.
    pub const UNCOUNTED: u32 = 0x0200_0000;
    /// The flow was denied once since it was last allowed. The first time its packet is only dropped: while one
    /// ruleset replaces another, a packet under way may find a map of the old one empty already, and a flow must not
    /// be cut for that.
    pub const SUSPECT: u32 = 0x0400_0000;
    /// The gateway opened the flow. It is never stamped: the bits of the generation hold the number under which limits
    /// count it (see `proxied`), or 0.
    pub const GATEWAY: u32 = 0x0800_0000;
    /// The audit trail opened the flow, to a collector.
    pub const TRAIL: u32 = 0x1000_0000;
    /// The identity service opened the flow, to the server of an issuer's keys.
    pub const KEYS: u32 = 0x2000_0000;
    /// What a flow on the fast path must have: this generation, not cut, and none of the gateway's.
    pub const FAST: u32 = GENERATION | CUT | GATEWAY;
    /// Of a flow of the gateway.
    pub const PROXIED: u32 = GENERATION;
}

/// The set whose element is this generation, for whoever asks.
pub const GENERATION: &str = "generation";
/// The set whose element is the stamp of this generation: what a flow on the fast path must have.
pub const STAMPED: &str = "stamped";
/// The map that gives flows this stamp.
pub const STAMPS: &str = "stamps";

/// The packet mark that leads answers to the front's transparent sockets back to this box.
pub const FRONT_MARK: u32 = 0x1;
/// The routing table of that mark.
pub const FRONT_TABLE: u32 = 100;
/// The conntrack zone of an agent's own leg to the front. The front's leg to the site has the same source address
/// and lives in the default zone: the two can't clash.
pub const AGENT_ZONE: u16 = 1;

/// Where the kernel logs denials to.
pub const NFLOG_GROUP: u32 = 100;
/// Headers and a bit: enough to say who wanted to go where.
pub const NFLOG_SNAPLEN: u32 = 128;

/// Above the classes of principals, whose minor is `CLASS_BASE + id`.
pub mod class {
    /// The ceiling over all agents together.
    pub const CEILING: u16 = 1;
    /// Agents without a limit of their own, below the ceiling.
    pub const OTHERS: u16 = 2;
    pub const BASE: u16 = 0x10;
}

/// Owner clawgress-enforcer, group clawgress.
pub const DIRECTORY: &str = "/run/clawgress/enforcer";
pub const NAMED_CONF: &str = "/run/clawgress/enforcer/named.conf";
pub const ZONES: &str = "/run/clawgress/enforcer/zones";
/// The last policy zone: it denies whatever no other zone let pass.
pub const DENY_ZONE: &str = "rpz.clawgress";
/// Each policy zone answers `<zone's label>.<this>` with a TXT of what it holds: asked by the enforcer alone.
pub const MARKER: &str = "marker.clawgress";

/// The generation as it is stamped on flows: 24 bits, never 0.
pub fn stamp(generation: u32) -> u32 {
    generation.wrapping_sub(1) % mark::GENERATION + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_never_zero_and_fits() {
        for generation in [0, 1, 2, 0x00ff_ffff, 0x0100_0000, u32::MAX] {
            let stamp = stamp(generation);
            assert!(stamp != 0 && stamp <= mark::GENERATION, "{generation}");
        }
        assert_ne!(stamp(0x00ff_ffff), stamp(0x0100_0000));
        assert_eq!(stamp(7), 7);
    }
}
