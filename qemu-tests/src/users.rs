//! Gives a user namespace its users: the daemons of the image run under numbers of their own, and the ruleset speaks
//! of those numbers. Root hands over the whole range; anybody else what /etc/subuid and /etc/subgid grant.

use std::fs;

use crate::error::{Error, IoContext, Result};
use crate::process;

/// More than any number in an image.
const USERS: u32 = 65_536;

/// Maps users and groups 0 to 65535 of the namespace that process `pid` has made.
pub(crate) fn map(pid: u32) -> Result {
    if nix::unistd::geteuid().is_root() {
        for file in ["uid_map", "gid_map"] {
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, format!("0 0 {USERS}\n")).doing("writing", &path)?;
        }
        return Ok(());
    }
    let (user, group) = (
        nix::unistd::getuid().as_raw(),
        nix::unistd::getgid().as_raw(),
    );
    for (tool, file, own) in [
        ("newuidmap", "/etc/subuid", user),
        ("newgidmap", "/etc/subgid", group),
    ] {
        let (start, count) = granted(&fs::read_to_string(file).unwrap_or_default(), user)
            .ok_or_else(|| {
                Error::other(format!(
                    "the lab's daemons need users of their own, and {file} grants this user none: install the \
                     package uidmap and add a line `{user}:100000:65536`, or run the tests as root"
                ))
            })?;
        let count = count.min(USERS - 1);
        let line = format!("{tool} {pid} 0 {own} 1 1 {start} {count}");
        process::run(&process::words(&line))?;
    }
    Ok(())
}

/// The first range that is granted to a user, by number or by name.
fn granted(text: &str, user: u32) -> Option<(u32, u32)> {
    let name = nix::unistd::User::from_uid(user.into())
        .ok()
        .flatten()
        .map(|user| user.name);
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let whose = fields.next()?;
        if whose != user.to_string() && Some(whose) != name.as_deref() {
            return None;
        }
        Some((
            fields.next()?.parse().ok()?,
            fields.next()?.trim().parse().ok()?,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_found_by_number() {
        let text = "other:100000:65536\n4242:200000:65536\n";
        assert_eq!(granted(text, 4242), Some((200_000, 65_536)));
        assert_eq!(granted(text, 4243), None);
        assert_eq!(granted("4242:x:1\n", 4242), None);
    }
}
