//! Enforcement without a VM: the ruleset, the resolver and the front as the image ships them, run with this machine's
//! own nft, named and haproxy inside namespaces. A packet that leaves is seen on a wire, not inferred from a counter.

mod access;
mod dns;
mod dns_evasion;
mod dns_lab;
mod dns_tunnel;
mod front;
mod gateway;
mod loopback;
mod plan;
mod plan_address;
mod plan_flows;
mod plan_front;
mod plan_named;
mod plan_packets;
mod plan_rates;
mod resolver;
mod rules;
mod ruleset;
mod sni;
mod sni_hello;
mod sni_host;
mod sni_host_lies;
mod sni_lies;
mod sni_live;
mod sni_policy;
mod sni_retry;
mod sni_shared;
mod sni_tls;
