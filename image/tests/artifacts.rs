//! The artifacts of an image, held against other implementations, against themselves built again, and against
//! everything that can go wrong while they are made.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

fn dist() -> PathBuf {
    std::env::var_os("CLAWGRESS_DIST")
        .map(PathBuf::from)
        .expect("CLAWGRESS_DIST must name a built image's directory: run `cargo xtask test image`")
}

fn manifest(directory: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(directory.join("manifest.json")).unwrap()).unwrap()
}

fn text<'a>(value: &'a serde_json::Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("the manifest lacks {key}"))
}

fn sha256(path: &Path) -> String {
    let mut hash = Sha256::new();
    std::io::copy(
        &mut std::fs::File::open(path).unwrap(),
        &mut Writer(&mut hash),
    )
    .unwrap();
    hash.finalize()
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

struct Writer<'a>(&'a mut Sha256);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The image builder, asked for this very image into `directory`.
fn build_into(directory: &Path) -> Command {
    let manifest = manifest(&dist());
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .args([
            "image",
            "--base",
            text(&manifest, "base"),
            "--flavour",
            text(&manifest, "flavour"),
            "--into",
        ])
        .arg(directory);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The one line that an error is.
fn complaint(output: &Output) -> String {
    assert!(
        !output.status.success(),
        "it should have failed: {}",
        said(output)
    );
    said(output)
        .lines()
        .find(|line| line.starts_with("error: "))
        .unwrap_or_else(|| panic!("no error line in: {}", said(output)))
        .to_owned()
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_manifest_tells_the_truth() {
    let dist = dist();
    let manifest = manifest(&dist);
    let artifacts = manifest["artifacts"].as_array().unwrap();
    assert!(artifacts.len() >= 4, "ISO, squashfs, kernel, initramfs");
    for artifact in artifacts {
        let path = dist.join(text(artifact, "name"));
        assert_eq!(
            artifact["size"].as_u64(),
            Some(path.metadata().unwrap().len()),
            "{}",
            path.display()
        );
        assert_eq!(
            text(artifact, "sha256"),
            sha256(&path),
            "{}",
            path.display()
        );
    }
    assert_eq!(
        text(&manifest, "image_id"),
        sha256(&dist.join("root.squashfs"))
    );
    let packages = manifest["packages"].as_array().unwrap();
    for wanted in [
        "bind9",
        "haproxy",
        "nftables",
        "chrony",
        "conntrack",
        "jq",
        "curl",
    ] {
        assert!(
            packages
                .iter()
                .any(|package| text(package, "name") == wanted),
            "{wanted} is not listed"
        );
    }
}

#[test]
fn building_again_gives_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let output = build_into(scratch.path()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let (old, new) = (manifest(&dist()), manifest(scratch.path()));
    for artifact in old["artifacts"].as_array().unwrap() {
        let name = text(artifact, "name");
        assert_eq!(
            text(artifact, "sha256"),
            sha256(&scratch.path().join(name)),
            "{name} differs"
        );
    }
    assert_eq!(old, new);
}

#[test]
fn another_implementation_unpacks_the_same_files() {
    let scratch = tempfile::tempdir().unwrap();
    let target = scratch.path().join("root");
    let squashfs = dist().join("root.squashfs");
    let output = Command::new("unsquashfs")
        .args(["-quiet", "-no-progress", "-ignore-errors", "-dest"])
        .arg(&target)
        .arg(&squashfs)
        .output()
        .expect("unsquashfs is missing: apt-get install squashfs-tools");
    // Without root, devices and owners cannot be made; nothing else may be wrong.
    assert!(
        target.join("usr/lib/clawgress/release.json").exists(),
        "{}",
        said(&output)
    );
    let reader = backhand::FilesystemReader::from_reader(std::io::BufReader::new(
        std::fs::File::open(&squashfs).unwrap(),
    ))
    .unwrap();
    let mut compared = 0;
    for node in reader.files() {
        let path = target.join(node.fullpath.strip_prefix("/").unwrap());
        match &node.inner {
            backhand::InnerNode::File(file) => {
                let (mut wanted, mut found) = (Vec::new(), Vec::new());
                reader.file(file).reader().read_to_end(&mut wanted).unwrap();
                std::fs::File::open(&path)
                    .unwrap()
                    .read_to_end(&mut found)
                    .unwrap();
                assert!(wanted == found, "{} differs", path.display());
                let mode = path.metadata().unwrap().permissions().mode() & 0o777;
                assert_eq!(
                    mode as u16,
                    node.header.permissions & 0o777,
                    "{}",
                    path.display()
                );
                compared += 1;
            }
            backhand::InnerNode::Symlink(link) => {
                assert_eq!(
                    std::fs::read_link(&path).unwrap(),
                    link.link,
                    "{}",
                    path.display()
                );
            }
            backhand::InnerNode::Dir(_) => assert!(path.is_dir(), "{}", path.display()),
            _ => {}
        }
    }
    assert!(compared > 2000, "only {compared} files were compared");
}

#[test]
fn no_program_of_ours_asks_for_a_loader_and_no_identity_is_baked_in() {
    let reader = backhand::FilesystemReader::from_reader(std::io::BufReader::new(
        std::fs::File::open(dist().join("root.squashfs")).unwrap(),
    ))
    .unwrap();
    let mut ours = BTreeMap::new();
    for node in reader.files() {
        let name = node.fullpath.to_str().unwrap();
        assert!(!name.contains("ssh_host_"), "{name}");
        assert!(
            !name.contains("iptables") || !name.contains("bin/"),
            "{name}"
        );
        if let (true, backhand::InnerNode::File(file)) =
            (name.starts_with("/usr/lib/clawgress/"), &node.inner)
        {
            let mut bytes = Vec::new();
            reader.file(file).reader().read_to_end(&mut bytes).unwrap();
            if bytes.starts_with(b"\x7fELF") {
                let names_a_loader = bytes.windows(11).any(|part| part == b"/lib64/ld-l");
                ours.insert(name.to_owned(), names_a_loader);
            }
        }
    }
    assert!(ours.len() >= 2, "{ours:?}");
    assert!(ours.values().all(|dynamic| !dynamic), "{ours:?}");
}

#[test]
fn what_nobody_knows_is_named() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(arguments)
            .output()
            .unwrap()
    };
    let output = run(&["image", "--base", "debian-99"]);
    let line = complaint(&output);
    assert!(
        line.contains("debian-99") && line.contains("ubuntu-24.04"),
        "{line}"
    );
    for arguments in [
        &["imago"][..],
        &["image", "--bass", "x"],
        &["image", "--flavour", "tiny"],
        &["test", "everything"],
    ] {
        let output = run(arguments);
        assert!(
            !output.status.success() && said(&output).starts_with("error: "),
            "{arguments:?}: {}",
            said(&output)
        );
    }
}

#[test]
fn a_half_written_artifact_is_made_again() {
    let scratch = tempfile::tempdir().unwrap();
    let run = || {
        let output = build_into(scratch.path()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    run();
    assert!(
        run().contains("Nothing is stale"),
        "the second build should have found all of it fresh"
    );
    let victim = scratch.path().join("initrd.img");
    let whole = std::fs::read(&victim).unwrap();
    std::fs::write(&victim, &whole[..whole.len() / 2]).unwrap();
    run();
    assert!(
        std::fs::read(&victim).unwrap() == whole,
        "the initramfs is still half"
    );
}

#[test]
fn a_full_disk_is_one_line_and_leaves_nothing_broken() {
    let scratch = tempfile::tempdir().unwrap();
    let inner = build_into(scratch.path());
    // The mount lives in a namespace of its own: it is gone with the process, so it must also be looked at from inside.
    let arguments: Vec<_> = inner
        .get_args()
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    let script = "mount -t tmpfs -o size=16m none \"$1\" && shift && \"$@\"; code=$?; ls -A \"$directory\"; exit $code";
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(scratch.path())
        .arg(inner.get_program())
        .args(arguments)
        .env("directory", scratch.path())
        .output()
        .unwrap();
    let line = complaint(&output);
    assert!(
        line.contains("disk full") || line.contains("No space left"),
        "{line}"
    );
    let left = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(left, "", "left behind under a name: {left}");
}

#[test]
fn a_damaged_cache_entry_is_replaced() {
    let cache = tempfile::tempdir().unwrap();
    let own = cache.path().join("clawgress");
    std::fs::create_dir(&own).unwrap();
    let user = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
            PathBuf::from,
        )
        .join("clawgress");
    let mut damaged = None;
    for name in files(&user) {
        // Bases are taken as they are; the boot images are cut, as by a download that broke off.
        let (from, to) = (user.join(&name), own.join(&name));
        std::fs::copy(&from, &to).unwrap();
        if name.starts_with("boot-images-") && !name.ends_with("sha256") {
            let bytes = std::fs::read(&to).unwrap();
            std::fs::write(&to, &bytes[..bytes.len() - 100]).unwrap();
            damaged = Some(to);
        }
    }
    assert!(damaged.is_some(), "no boot images in {}", user.display());
    let scratch = tempfile::tempdir().unwrap();
    let output = build_into(scratch.path())
        .env("XDG_CACHE_HOME", cache.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("damaged"), "{}", said(&output));
    assert_eq!(
        manifest(scratch.path())["artifacts"],
        manifest(&dist())["artifacts"]
    );
}

#[test]
fn a_missing_tool_is_named_with_the_command_that_brings_it() {
    let mut command = Command::new("unshare");
    // Firmware hidden by a mount, and a user who is not root: it may only ask, and nobody is there to answer.
    let script = "mount -t tmpfs none /usr/share/OVMF && exec unshare --user \"$@\"";
    let output = command
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(env!("CARGO_BIN_EXE_xtask"))
        .args(["run", "--base", "debian-13"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let line = complaint(&output);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        shown.contains("apt-get install") && shown.contains("ovmf"),
        "{shown}"
    );
    assert!(line.contains("not installed"), "{line}");
}
