//! The archive as another program sees it: the host's `cpio` lists and unpacks what `build` wrote.
//!
//! Needs no root; device nodes are therefore only listed.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, str};

use clawgress_initramfs::identity::ImageIdentity;
use clawgress_initramfs::image::{Spec, build};
use clawgress_initramfs::modules::{Selection, Source, Table, Wanted, select};

struct MemorySource(BTreeMap<&'static str, Vec<u8>>);

impl Source for MemorySource {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(path).cloned())
    }
}

fn selection() -> Selection {
    let source = MemorySource(BTreeMap::from([
        (
            "modules.dep",
            b"fs/isofs.ko.xz: lib/cdrom.ko.xz\nlib/cdrom.ko.xz:\n".to_vec(),
        ),
        ("modules.builtin", Vec::new()),
        ("modules.alias", b"alias fs-iso9660 isofs\n".to_vec()),
        ("fs/isofs.ko.xz", b"\x7fELF isofs".to_vec()),
        ("lib/cdrom.ko.xz", b"\x7fELF cdrom!".to_vec()),
    ]));
    let wanted = Wanted {
        required: vec!["isofs".to_owned()],
        ..Wanted::default()
    };
    select(&source, &wanted).unwrap()
}

fn archive(busybox: Option<&[u8]>) -> Vec<u8> {
    build(&Spec {
        init: b"the init",
        busybox,
        identity: &ImageIdentity::from_bytes("0.1.0", b"root").unwrap(),
        modules: &selection(),
        mtime: 1_700_000_000,
    })
    .unwrap()
}

/// Runs the host's cpio on an archive and answers what it printed.
fn cpio(arguments: &[&str], directory: &Path, archive: &[u8]) -> String {
    let mut child = Command::new("cpio")
        .args(arguments)
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cpio: {error}; install it: apt-get install cpio"));
    child.stdin.take().unwrap().write_all(archive).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = str::from_utf8(&output.stderr).unwrap();
    assert!(output.status.success(), "cpio {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn lists_every_entry_as_meant() {
    let directory = tempfile::tempdir().unwrap();
    let list = cpio(
        &["-itv", "--numeric-uid-gid", "--quiet"],
        directory.path(),
        &archive(Some(b"box")),
    );
    let lines: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let find = |name: &str| {
        lines
            .iter()
            .find(|words| words.contains(&name))
            .unwrap_or_else(|| panic!("{name} is not in\n{list}"))
    };
    for (name, mode) in [
        ("bin/busybox", "-rwxr-xr-x"),
        ("bin/sh", "lrwxrwxrwx"),
        ("clawgress-image.json", "-rw-r--r--"),
        ("dev", "drwxr-xr-x"),
        ("dev/console", "crw-------"),
        ("dev/null", "crw-rw-rw-"),
        ("init", "-rwxr-xr-x"),
        ("lib/modules/isofs.ko", "-rw-r--r--"),
        ("newroot", "drwxr-xr-x"),
        ("sbin/modprobe", "lrwxrwxrwx"),
    ] {
        let words = find(name);
        assert_eq!(words[0], mode, "{name}");
        assert_eq!(words[2..4], ["0", "0"], "{name}: owner");
    }
    assert_eq!(find("dev/console")[4..6], ["5,", "1"]);
    assert_eq!(find("dev/null")[4..6], ["1,", "3"]);
    assert_eq!(find("bin/sh").last(), Some(&"busybox"));

    let names = cpio(&["-it", "--quiet"], directory.path(), &archive(None));
    assert!(names.lines().is_sorted(), "{names}");
}

#[test]
fn unpacks_to_what_went_in() {
    let directory = tempfile::tempdir().unwrap();
    cpio(
        &["-idm", "--quiet", "--no-preserve-owner", "-f", "dev/*"],
        directory.path(),
        &archive(None),
    );
    let read = |name: &str| fs::read(directory.path().join(name)).unwrap();
    assert_eq!(read("init"), b"the init");
    assert_eq!(read("lib/modules/isofs.ko"), b"\x7fELF isofs");
    assert_eq!(read("lib/modules/cdrom.ko"), b"\x7fELF cdrom!");
    assert!(!directory.path().join("bin").exists(), "no shell unasked");

    let init = fs::metadata(directory.path().join("init")).unwrap();
    assert_eq!(init.permissions().mode() & 0o7777, 0o755);
    let modified = init.modified().unwrap();
    let date = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(date.as_secs(), 1_700_000_000);

    let identity: ImageIdentity = serde_json::from_slice(&read("clawgress-image.json")).unwrap();
    assert_eq!(
        identity,
        ImageIdentity::from_bytes("0.1.0", b"root").unwrap()
    );
    let table = Table::parse(str::from_utf8(&read("clawgress-modules")).unwrap()).unwrap();
    assert_eq!(table, selection().table());
    let isofs = &table.modules[table.find("fs-iso9660")[0]];
    assert_eq!(isofs.path, "/lib/modules/isofs.ko");
    assert_eq!(table.modules[isofs.before[0]].name, "cdrom");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    assert_eq!(archive(Some(b"box")), archive(Some(b"box")));
}

#[test]
fn a_defective_identity_is_refused() {
    let mut identity = ImageIdentity::from_bytes("0.1.0", b"root").unwrap();
    identity.squashfs.chunks.clear();
    let error = build(&Spec {
        init: b"",
        busybox: None,
        identity: &identity,
        modules: &Selection::default(),
        mtime: 0,
    })
    .unwrap_err();
    assert!(error.to_string().contains("lists 0 chunks"), "{error}");
}
