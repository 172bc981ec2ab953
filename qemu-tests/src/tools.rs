//! The programs of this machine that tests without a VM run, and the packages they come in.

use std::path::Path;

use crate::error::Result;

pub const NFT: (&str, &str) = ("/usr/sbin/nft", "nftables");
pub const NAMED: (&str, &str) = ("/usr/sbin/named", "bind9");
pub const HAPROXY: (&str, &str) = ("/usr/sbin/haproxy", "haproxy");
pub const DIG: (&str, &str) = ("/usr/bin/dig", "bind9-dnsutils");
pub const CURL: (&str, &str) = ("/usr/bin/curl", "curl");
pub const PTUNNEL: (&str, &str) = ("/usr/bin/ptunnel-ng", "ptunnel-ng");
pub const HPING: (&str, &str) = ("/usr/sbin/hping3", "hping3");

/// Fails with the command that installs what is missing.
pub fn need(tools: &[(&str, &str)]) -> Result {
    let missing: Vec<&str> = tools
        .iter()
        .filter(|(path, _)| !Path::new(path).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    crate::fail!("this test needs: apt-get install -y {}", missing.join(" "))
}
