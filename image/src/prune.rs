//! What packages leave behind that an image must not carry: lists, caches, identities, init scripts, set-uid bits
//! that nobody here needs. Each entry has a reason; what is not listed and still wrong fails the checks.

use crate::tree::{Kind, Node, Tree};

/// Directories that stay, emptied.
const EMPTIED: &[&str] = &[
    "boot",       // kernel and initramfs lie beside the squashfs, not in it
    "etc/init.d", // systemd would make units of them
    "run",
    "tmp",
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/lib/apt",
    "var/log",
    "var/tmp",
];

/// Files and directories that go.
const REMOVED: &[&str] = &[
    "dev", // the kernel fills it; what the base made by hand only ages
    "etc/.pwd.lock",
    "etc/apparmor.d/cache",
    "etc/default/grub.d",
    "etc/hostname",
    "etc/rc0.d",
    "etc/rc1.d",
    "etc/rc2.d",
    "etc/rc3.d",
    "etc/rc4.d",
    "etc/rc5.d",
    "etc/rc6.d",
    "etc/rcS.d",
    "etc/resolv.conf",
    "initrd.img",
    "initrd.img.old",
    "vmlinuz",
    "vmlinuz.old",
    "usr/lib/udev/hwdb.d", // compiled into hwdb.bin beside it
    "var/backups",
    "var/lib/systemd/random-seed",
    "var/lib/systemd/credential.secret",
];

/// Set-uid and set-gid programs of the base that work without the bit for the one who may run them: root.
const STRIPPED: &[&str] = &[
    "usr/bin/chage",
    "usr/bin/chfn",
    "usr/bin/chsh",
    "usr/bin/crontab",
    "usr/bin/expiry",
    "usr/bin/fusermount3",
    "usr/bin/gpasswd",
    "usr/bin/mount",
    "usr/bin/newgrp",
    "usr/bin/passwd",
    "usr/bin/ping",
    "usr/bin/pkexec",
    "usr/bin/ssh-agent",
    "usr/bin/su",
    "usr/bin/sudo",
    "usr/bin/umount",
    "usr/bin/wall",
    "usr/bin/write",
    "usr/lib/openssh/ssh-keysign",
    "usr/sbin/mount.nfs",
];

pub(crate) fn prune(tree: &mut Tree) {
    for directory in EMPTIED {
        let kept = tree.get(directory).cloned();
        tree.remove(directory);
        if let Some(
            node @ Node {
                kind: Kind::Directory,
                ..
            },
        ) = kept
        {
            tree.put(directory, node).ok();
        }
    }
    for path in REMOVED {
        tree.remove(path);
    }
    let by_name: Vec<String> = tree
        .iter()
        .map(|(path, _)| path)
        .filter(|path| {
            (path.starts_with("etc/ssh/ssh_host_"))
                || (path.starts_with("var/lib/dpkg/") && path.ends_with("-old"))
                || path.ends_with("/__pycache__")
                || path.ends_with(".dpkg-new")
        })
        .map(str::to_owned)
        .collect();
    for path in by_name {
        tree.remove(&path);
    }
    for path in STRIPPED {
        if let Some(node) = tree.get_mut(path) {
            node.mode &= 0o777;
        }
    }
    // ping's file capability, where a base gives it one: datagram sockets need none, and root has it anyway.
    tree.attributes
        .retain(|(path, name)| !(path == "usr/bin/ping" && name == "security.capability"));
    // Empty, not absent: systemd then makes one for this boot and writes it into the overlay.
    tree.put("etc/machine-id", Node::file(*b"", 0o444)).ok();
    tree.remove("var/lib/dbus/machine-id");
    tree.put("var/lib/dbus/machine-id", Node::symlink("/etc/machine-id"))
        .ok();
    for mount_point in ["dev", "proc", "sys", "run", "config"] {
        if tree.get(mount_point).is_none() {
            tree.put(mount_point, Node::directory()).ok();
        }
    }
}
