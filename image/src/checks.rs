//! What must hold of the root before it becomes an image. Every violation is named with its path; all are told at once.

use anyhow::{Result, bail};
use clawgress_initramfs::modules::Index;

use crate::base::Base;
use crate::tree::{Kind, Tree};
use crate::{accounts, initrd};

/// The only programs that may change identity when started.
const SET_ID: &[&str] = &[
    "usr/lib/dbus-1.0/dbus-daemon-launch-helper", // the bus starts services through it
    "usr/sbin/unix_chkpwd",                       // PAM reads the shadow file through it
    "usr/lib/polkit-1/polkit-agent-helper-1",
];
/// Sticky directories that everybody may write to.
const SHARED: &[&str] = &["tmp", "var/tmp", "run/lock", "dev/shm", "var/crash"];
/// Systemd's unit directories, where a link must lead somewhere.
const UNIT_DIRECTORIES: &[&str] = &[
    "etc/systemd/system",
    "etc/systemd/user",
    "usr/lib/systemd/system",
    "usr/lib/systemd/user",
];
/// Left by package tools.
const LEFTOVERS: &[&str] = &["var/lib/apt/lists", "var/cache/apt", "var/cache/debconf"];

pub(crate) fn check(tree: &Tree, base: &Base, kernel: &str) -> Result<()> {
    let mut wrong: Vec<String> = Vec::new();
    for (path, name) in &tree.attributes {
        wrong.push(format!(
            "/{path} carries the extended attribute {name}, which the squashfs would lose: grant capabilities in its unit"
        ));
    }
    for (path, node) in tree.iter() {
        modes(path, node, &mut wrong);
        leftovers(path, &node.kind, &mut wrong);
    }
    unit_links(tree, &mut wrong);
    passwords(tree, &mut wrong);
    service_users(tree, base, &mut wrong);
    claims(tree, base, &mut wrong);
    modules(tree, base, kernel, &mut wrong);
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "the root is not fit to become an image:\n  {}",
        wrong.join("\n  ")
    )
}

fn modes(path: &str, node: &crate::tree::Node, wrong: &mut Vec<String>) {
    let is_directory = node.kind == Kind::Directory;
    if !is_directory && node.mode & 0o6000 != 0 && !SET_ID.contains(&path) {
        wrong.push(format!(
            "/{path} is set-uid or set-gid ({:o}) and not on the list of those that may be",
            node.mode
        ));
    }
    if matches!(node.kind, Kind::Symlink(_)) || node.mode & 0o002 == 0 {
        return;
    }
    if !(is_directory && node.mode & 0o1000 != 0 && SHARED.contains(&path)) {
        wrong.push(format!(
            "/{path} is writable by everybody ({:o})",
            node.mode
        ));
    }
}

fn leftovers(path: &str, kind: &Kind, wrong: &mut Vec<String>) {
    if path.starts_with("etc/ssh/ssh_host_") {
        wrong.push(format!(
            "/{path} is a host key: every appliance would have the same"
        ));
    }
    if matches!(path, "etc/machine-id" | "var/lib/dbus/machine-id")
        && matches!(kind, Kind::File(bytes) if !bytes.is_empty())
    {
        wrong.push(format!(
            "/{path} is not empty: every appliance would have the same"
        ));
    }
    if let (Kind::File(_), Some(directory)) = (
        kind,
        LEFTOVERS
            .iter()
            .find(|directory| path.starts_with(&format!("{directory}/"))),
    ) {
        wrong.push(format!("/{path} is left in the package cache /{directory}"));
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if path.contains("bin/") && (name.starts_with("iptables") || name.starts_with("ip6tables")) {
        wrong.push(format!("/{path}: no iptables may be in the image"));
    }
}

fn unit_links(tree: &Tree, wrong: &mut Vec<String>) {
    for (path, node) in UNIT_DIRECTORIES
        .iter()
        .flat_map(|directory| tree.below(directory))
    {
        if let Kind::Symlink(target) = &node.kind {
            // A mask is a link to where nothing is yet.
            if target != "/dev/null" && tree.resolve(path).is_none() {
                wrong.push(format!(
                    "/{path} is a unit link to {target}, which is not there"
                ));
            }
        }
    }
}

/// No account may be entered with a password: none is shipped, and an empty one would let anybody in.
fn passwords(tree: &Tree, wrong: &mut Vec<String>) {
    for line in tree.text("etc/shadow").unwrap_or_default().lines() {
        let mut fields = line.split(':');
        let (name, password) = (
            fields.next().unwrap_or_default(),
            fields.next().unwrap_or_default(),
        );
        if !password.starts_with(['!', '*']) {
            wrong.push(format!("/etc/shadow: the account {name} is not locked"));
        }
    }
}

fn service_users(tree: &Tree, base: &Base, wrong: &mut Vec<String>) {
    let fixed = match accounts::fixed(tree) {
        Ok(fixed) => fixed,
        Err(error) => return wrong.push(format!("{error:#}")),
    };
    let passwd = tree.text("etc/passwd").unwrap_or_default();
    let rows: Vec<(&str, u32)> = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?.parse().ok()?))
        })
        .collect();
    for (name, uid) in &rows {
        let numbered_by_policy = *uid < 100 || *uid >= 65534;
        if !numbered_by_policy
            && !fixed
                .iter()
                .any(|(known, number)| known == name && number == uid)
        {
            wrong.push(format!(
                "the service user {name} ({uid}) has no fixed number: add it to rootfs-overlay/{}",
                accounts::SYSUSERS
            ));
        }
    }
    for user in &base.claims.service_users {
        if !rows.iter().any(|(name, _)| name == user) {
            wrong.push(format!(
                "the base claims the service user {user}, which /etc/passwd does not have"
            ));
        }
    }
}

fn claims(tree: &Tree, base: &Base, wrong: &mut Vec<String>) {
    for path in &base.claims.binaries {
        let executable = tree
            .resolve(path)
            .and_then(|real| tree.get(&real))
            .is_some_and(|node| matches!(node.kind, Kind::File(_)) && node.mode & 0o111 != 0);
        if !executable {
            wrong.push(format!(
                "the base claims the program /{path}, which is not in its packages"
            ));
        }
    }
    for unit in &base.claims.units {
        let known = ["usr/lib/systemd/system", "etc/systemd/system"]
            .iter()
            .any(|directory| tree.resolve(&format!("{directory}/{unit}")).is_some());
        if !known {
            wrong.push(format!(
                "the base claims the unit {unit}, which is not in its packages"
            ));
        }
    }
}

/// The kernel's own lists say whether a module is there or built in.
fn modules(tree: &Tree, base: &Base, kernel: &str, wrong: &mut Vec<String>) {
    let index = match Index::read(&initrd::Directory::of(tree, kernel)) {
        Ok(index) => index,
        Err(error) => return wrong.push(format!("{error}")),
    };
    for module in &base.claims.modules {
        if !index.is_module(module) && !index.is_builtin(module) {
            wrong.push(format!(
                "the base claims the kernel module {module}, which the kernel {kernel} does not have"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    /// A root in which nothing is wrong.
    fn good() -> (Tree, Base) {
        let mut base = Base::load("debian-13").unwrap();
        base.claims.service_users = vec!["bind".to_owned()];
        base.claims.binaries = vec!["usr/bin/tool".to_owned()];
        base.claims.units = vec!["some.service".to_owned()];
        base.claims.modules = vec!["nf_tables".to_owned(), "dm-verity".to_owned()];
        let mut tree = Tree::default();
        tree.put(
            "etc/passwd",
            Node::file(*b"root:x:0:0::/:/x\nbind:x:401:401::/:/x\n", 0o644),
        )
        .unwrap();
        tree.put(accounts::SYSUSERS, Node::file(*b"u bind 401\n", 0o644))
            .unwrap();
        tree.put("usr/bin/tool", Node::file(*b"", 0o755)).unwrap();
        tree.put(
            "usr/lib/systemd/system/some.service",
            Node::file(*b"", 0o644),
        )
        .unwrap();
        for (name, text) in [
            ("dep", &b"kernel/net/nf_tables.ko.xz:\n"[..]),
            ("builtin", b"kernel/drivers/md/dm-verity.ko\n"),
        ] {
            let path = format!("usr/lib/modules/{KERNEL}/modules.{name}");
            tree.put(&path, Node::file(text, 0o644)).unwrap();
        }
        (tree, base)
    }

    const KERNEL: &str = "6.8.0";

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Tree), words: &[&str]) {
        let (mut tree, base) = good();
        check(&tree, &base, KERNEL).unwrap();
        change(&mut tree);
        let error = check(&tree, &base, KERNEL).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "'{word}' is not in: {error}");
        }
    }

    #[test]
    fn capabilities_and_other_attributes() {
        refused(
            |tree| {
                tree.attributes
                    .push(("usr/bin/tool".to_owned(), "security.capability".to_owned()))
            },
            &["/usr/bin/tool", "security.capability"],
        );
    }

    #[test]
    fn set_uid_programs() {
        refused(
            |tree| tree.get_mut("usr/bin/tool").unwrap().mode = 0o4755,
            &["/usr/bin/tool", "set-uid"],
        );
        refused(
            |tree| tree.get_mut("usr/bin/tool").unwrap().mode = 0o2755,
            &["/usr/bin/tool"],
        );
    }

    #[test]
    fn files_and_directories_that_everybody_may_write() {
        refused(
            |tree| tree.get_mut("usr/bin/tool").unwrap().mode = 0o757,
            &["/usr/bin/tool", "everybody"],
        );
        refused(
            |tree| {
                tree.put(
                    "srv",
                    Node {
                        mode: 0o1777,
                        ..Node::directory()
                    },
                )
                .unwrap()
            },
            &["/srv", "everybody"],
        );
    }

    #[test]
    fn identities() {
        refused(
            |tree| {
                tree.put("etc/machine-id", Node::file(*b"abc\n", 0o444))
                    .unwrap()
            },
            &["/etc/machine-id"],
        );
        refused(
            |tree| {
                tree.put("etc/ssh/ssh_host_rsa_key", Node::file(*b"k", 0o600))
                    .unwrap()
            },
            &["host key"],
        );
    }

    #[test]
    fn package_lists_and_caches() {
        refused(
            |tree| {
                tree.put("var/lib/apt/lists/x_InRelease", Node::file(*b"", 0o644))
                    .unwrap()
            },
            &["x_InRelease"],
        );
    }

    #[test]
    fn dangling_unit_links() {
        refused(
            |tree| {
                tree.put(
                    "etc/systemd/system/a.wants/b.service",
                    Node::symlink("/usr/lib/none"),
                )
                .unwrap()
            },
            &["a.wants/b.service", "/usr/lib/none"],
        );
    }

    #[test]
    fn service_users_without_a_number() {
        refused(
            |tree| {
                tree.put(
                    "etc/passwd",
                    Node::file(*b"bind:x:401:401::/:/x\nother:x:105:105::/:/x\n", 0o644),
                )
                .unwrap();
            },
            &["other", "105", "fixed number"],
        );
    }

    #[test]
    fn claims_that_the_packages_do_not_keep() {
        refused(
            |tree| assert_eq!(tree.remove("usr/bin/tool"), 1),
            &["/usr/bin/tool", "claims"],
        );
        refused(
            |tree| {
                let path = format!("usr/lib/modules/{KERNEL}/modules.dep");
                tree.put(&path, Node::file(*b"", 0o644)).unwrap();
            },
            &["nf_tables", KERNEL],
        );
        refused(
            |tree| assert_eq!(tree.remove("usr/lib/systemd/system/some.service"), 1),
            &["some.service"],
        );
        refused(
            |tree| {
                tree.put("etc/passwd", Node::file(*b"root:x:0:0::/:/x\n", 0o644))
                    .unwrap()
            },
            &["bind"],
        );
    }

    #[test]
    fn accounts_that_a_password_opens() {
        refused(
            |tree| {
                tree.put(
                    "etc/shadow",
                    Node::file(*b"root:*:1::::::\nops::1::::::\n", 0o640),
                )
                .unwrap()
            },
            &["ops", "not locked"],
        );
    }

    #[test]
    fn iptables() {
        refused(
            |tree| {
                tree.put("usr/sbin/iptables", Node::file(*b"", 0o755))
                    .unwrap()
            },
            &["/usr/sbin/iptables"],
        );
    }
}
