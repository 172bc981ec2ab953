//! The policy of these tests.

use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_config::policy::Policy;
use clawgress_policy::{Card, Logging, Network, Revision};
use serde_json::json;

/// agent-1 is 10.66.0.1 and agent-2 10.66.0.2; the rest of 10.66.0.0/24 and 127.0.0.0/16 is the LAN.
pub(crate) fn policy() -> serde_json::Value {
    json!({
        "version": 1,
        "allow": {"domains": ["everybody.example"]},
        "labels": {"denied.example": "no-such-luck", "api.example": "llm"},
        "hosts": {
            "agent-1": {
                "sources": ["10.66.0.1/32"],
                "allow": {
                    "domains": ["api.example", "capped.example", "*.wild.example", "late.example"],
                    "ips": ["10.9.0.0/16"],
                },
                "exfil": {"domains": {"capped.example": {"bytes": 1, "period": "hour"}}},
            },
            "agent-2": {
                "sources": ["10.66.0.2/32"],
                "allow": {"domains": ["two.example"]},
                "proxy": {"mode": "sni-allowlist"},
            },
        },
    })
}

pub(crate) fn revision(number: u64, policy: &serde_json::Value) -> Revision {
    Revision {
        number,
        created: 1,
        enabled: true,
        policy: Policy::from_json(policy.to_string().as_bytes()).unwrap(),
        network: Network {
            lan: vec![Card {
                name: "eth1".to_owned(),
                addresses: vec![
                    Cidr {
                        address: IpAddr::from([127, 0, 0, 200]),
                        length: 16,
                    },
                    Cidr {
                        address: IpAddr::from([10, 66, 0, 200]),
                        length: 24,
                    },
                ],
            }],
            wan: vec![Card {
                name: "eth0".to_owned(),
                addresses: vec![Cidr {
                    address: IpAddr::from([203, 0, 113, 77]),
                    length: 24,
                }],
            }],
            ..Network::default()
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: false,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: Vec::new(),
        access: clawgress_config::access::Access::default(),
    }
}
