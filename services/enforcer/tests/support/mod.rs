//! Runs a test again in a user, network and mount namespace of its own, where it is root and the kernel's tables are
//! empty: real nft, no root needed, nothing of the machine touched.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const INSIDE: &str = "CLAWGRESS_TEST_INSIDE";

/// True inside. Outside it runs the test of this name inside, and fails as that one does.
pub(crate) fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        return true;
    }
    for (program, package) in [
        ("/usr/sbin/nft", "nftables"),
        ("/usr/bin/unshare", "util-linux"),
    ] {
        assert!(
            Path::new(program).exists(),
            "this test needs {program}: apt-get install -y {package}"
        );
    }
    let output = Command::new("/usr/bin/unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{test} failed inside:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// Runs a program and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Loads rules written as nft reads them.
pub(crate) fn nft(rules: &str) {
    let mut child = Command::new("/usr/sbin/nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(rules.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "nft refuses:\n{rules}");
}
