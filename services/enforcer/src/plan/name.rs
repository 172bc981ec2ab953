//! What objects in the kernel are called. Names by id are valid within one plan; those by digest outlive it.

use clawgress_policy::{PrincipalId, Reason};
use sha2::{Digest, Sha256};

/// The chain that judges flows by address.
pub fn chain(id: PrincipalId) -> String {
    format!("p{id}")
}

/// The chain that judges the front's own leg of a flow.
pub fn front_chain(id: PrincipalId) -> String {
    format!("f{id}")
}

/// Addresses that names were resolved to: `pins` open now, `shut` outside their window.
pub fn pins(id: PrincipalId, v6: bool) -> String {
    format!("p{id}_pins{}", digit(v6))
}

pub fn shut(id: PrincipalId, v6: bool) -> String {
    format!("p{id}_shut{}", digit(v6))
}

pub fn nets(id: PrincipalId, v6: bool) -> String {
    format!("p{id}_nets{}", digit(v6))
}

/// What rules open: addresses with one port, of TCP and of UDP, and addresses at all TCP ports that nobody names.
pub fn at(id: PrincipalId, v6: bool) -> String {
    format!("p{id}_at{}", digit(v6))
}

pub fn udp(id: PrincipalId, v6: bool) -> String {
    format!("p{id}_udp{}", digit(v6))
}

pub fn rest(id: PrincipalId, v6: bool) -> String {
    format!("p{id}_rest{}", digit(v6))
}

/// Networks that rules and lists open alike, by number.
pub fn class(id: PrincipalId, number: usize, v6: bool) -> String {
    format!("p{id}_nets{number}_{}", digit(v6))
}

/// Networks that a rule denies.
pub fn ruled(id: PrincipalId, v6: bool) -> String {
    format!("p{id}_ruled{}", digit(v6))
}

/// Where the front may take this principal's flows.
pub fn front_pins(id: PrincipalId, v6: bool) -> String {
    format!("f{id}_pins{}", digit(v6))
}

/// The same where rules tell ports apart: addresses with the port that the name may be had at.
pub fn front_at(id: PrincipalId, v6: bool) -> String {
    format!("f{id}_at{}", digit(v6))
}

pub fn denied(id: PrincipalId, reason: Reason) -> String {
    format!("p{id}_{}", reason.word().replace('-', "_"))
}

/// By digest: what one principal was denied must never be taken for another's.
pub fn deny_counter(principal: &str, reason: Reason) -> String {
    let digest = digest(&[principal]);
    format!("d_{:.12}_{}", digest, reason.word().replace('-', "_"))
}

/// Counter of denials that are nobody's.
pub fn anonymous_counter(reason: Reason) -> String {
    format!("deny_{}", reason.word().replace('-', "_"))
}

/// What the log says: who (0: nobody known), and why.
pub fn log_prefix(id: u16, reason: Reason) -> String {
    format!("{id}:{reason}")
}

pub fn cap(principal: &str, pattern: &str) -> String {
    format!("cap_{}", digest(&[principal, "\0", pattern]))
}

/// Addresses that count against a cap.
pub fn cap_set(principal: &str, pattern: &str, v6: bool) -> String {
    format!("{}_{}", cap(principal, pattern), digit(v6))
}

/// The chain that counts flows of the gateway with this number.
pub fn proxied(number: u32) -> String {
    format!("proxied_{number}")
}

/// `kind` is `out`, `in`, `flows`, `over` or `spent`.
pub fn meter(kind: &str, principal: &str) -> String {
    format!("{kind}_{}", digest(&[principal]))
}

fn digit(v6: bool) -> char {
    if v6 { '6' } else { '4' }
}

/// Sixteen hexadecimal digits.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    hash.finalize()
        .iter()
        .take(8)
        .fold(String::with_capacity(16), |hex, byte| {
            format!("{hex}{byte:02x}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_what_the_kernel_takes() {
        // NFT_NAME_MAXLEN is 256, but listings of 1.0.6 cut set names at 31 letters in places.
        let id = PrincipalId(u16::MAX);
        for name in [
            deny_counter("agent-1", Reason::NotAllowlisted),
            denied(id, Reason::NotAllowlisted),
            front_pins(id, true),
            cap_set("agent-1", "*.example.com", true),
        ] {
            assert!(name.len() < 32, "{name}");
        }
    }

    #[test]
    fn principal_and_pattern_do_not_run_into_each_other() {
        assert_ne!(cap("agent", "1.example"), cap("agent1.", "example"));
    }
}
