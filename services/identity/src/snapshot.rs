//! What the identity service tells every gateway, signed and numbered: hashes, public keys, and what was revoked.
//!
//! Holds nothing that opens anything: no secret, and no hash that could be tried without the credential key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use clawgress_config::Cidr;
use serde::{Deserialize, Serialize};

/// As the bundle is called that carries it.
pub const KIND: &str = "identity";

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    pub keys: Vec<KeyRecord>,
    /// The appliance's own issuer: a JWK set; absent until it has a key.
    pub own_keys: Option<String>,
    /// JWK sets by the name that the configuration gives the issuer.
    pub key_sets: BTreeMap<String, String>,
    /// PEM texts.
    pub client_ca: Option<String>,
    pub client_crl: Option<String>,
    pub revoked_tokens: Vec<RevokedToken>,
    /// By agent: tokens issued before this second are revoked.
    pub tokens_before: BTreeMap<String, i64>,
    /// Serial numbers in hex, beside the revocation list.
    pub revoked_certificates: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    pub prefix: String,
    pub agent: String,
    /// Keyed hash of the whole text, in base64url.
    pub hash: String,
    /// Networks from which alone it may be used; empty: from everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_fingerprint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedToken {
    /// Name in the configuration.
    pub issuer: String,
    /// Its `jti`, or what events call a token that has none.
    pub id: String,
    /// When it would have expired; after that it need not be remembered.
    pub until: i64,
}

/// A network as it stands in a record: an address, a length, no host bits.
pub fn network(text: &str) -> Option<Cidr> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let cidr = Cidr { address, length };
    (length <= widest && cidr.network() == cidr && cidr.to_string() == text).then_some(cidr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_one_spelling() {
        for text in ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "0.0.0.0/0"] {
            assert_eq!(network(text).unwrap().to_string(), text);
        }
        for text in [
            "10.0.0.1/8",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "2001:DB8::/32",
            "/",
            "",
        ] {
            assert_eq!(network(text), None, "{text}");
        }
    }
}
