//! The program as a process against the policy API as a process: what is printed where, and how it ends.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    time::{Duration, Instant},
};

use clawgress_link::control::{Reply, Report, Request, Stage};
use serde_json::Value;

struct Console {
    directory: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }
}

impl Console {
    fn without_daemon() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            daemon: None,
        }
    }

    fn new() -> Self {
        let mut console = Self::without_daemon();
        let at = |name: &str| console.path(name).display().to_string();
        for name in ["state", "revisions"] {
            fs::create_dir(console.path(name)).unwrap();
        }
        let text = "interfaces { ethernet eth1 { address 192.168.10.1/24 role lan } }\n\
                    service { clawgress { enable policy { domain boot.example } } }";
        fs::write(console.path("taken.boot"), format!("test\n{text}")).unwrap();
        serve_control(UnixListener::bind(console.path("control.sock")).unwrap());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let uid = fs::metadata(console.directory.path()).unwrap().uid();
        let settings = format!(
            "listen = \"127.0.0.1:{port}\"\ninit_socket = \"{}\"\nresolver = \"127.0.0.1:1\"\n\
             agents_resolver = \"127.0.0.1:1\"\nfront = \"127.0.0.1:1\"\nfront_certificate = \"{}\"\n\
             enforcer_socket = \"{}\"\nconsole_socket = \"{}\"\nconsole_uids = [{uid}]\nstate = \"{}\"\n\
             revisions = \"{}\"\npolicy_file = \"{}\"\ntaken_configuration = \"{}\"\n\
             committed_configuration = \"{}\"\nunits = []\ndeadline_ms = 1000\n",
            at("init.sock"),
            at("front.crt"),
            at("control.sock"),
            at("admin.sock"),
            at("state"),
            at("revisions"),
            at("policy.json"),
            at("taken.boot"),
            at("config.boot"),
        );
        fs::write(console.path("policy.toml"), settings).unwrap();
        let daemon = Command::new(policy_program())
            .arg("--config")
            .arg(console.path("policy.toml"))
            .spawn()
            .unwrap();
        console.daemon = Some(daemon);
        let begun = Instant::now();
        while UnixStream::connect(console.path("admin.sock")).is_err()
            || !console.path("policy.json").exists()
        {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the policy API does not start"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        console
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        let output: Output = Command::new(env!("CARGO_BIN_EXE_clawgress"))
            .arg("--socket")
            .arg(self.path("admin.sock"))
            .args(words)
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    fn policy(&self, text: &str) -> String {
        let path = self.path("mine.json");
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// An enforcer that finds everything right; the real one needs a kernel to itself.
fn serve_control(listener: UnixListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let report = |file: &str, applied| {
                let number = Path::new(file)
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .parse();
                Reply::Report(Report {
                    revision: number.unwrap_or(1),
                    ok: true,
                    applied,
                    stages: vec![Stage {
                        name: "compile".to_owned(),
                        ok: true,
                        took_ms: 1,
                        detail: "2 principals".to_owned(),
                    }],
                })
            };
            let reply = match serde_json::from_str(&line).unwrap() {
                Request::Check { file } => report(&file, false),
                Request::Apply { file } => report(&file, true),
                Request::Firewall => Reply::Text {
                    text: "table inet clawgress {\n}\n".to_owned(),
                },
                Request::Zone { .. } => Reply::Zone {
                    names: vec!["a.example".to_owned()],
                    total: 2001,
                },
                other => Reply::Error {
                    error: format!("not in this test: {other:?}"),
                },
            };
            let mut text = serde_json::to_vec(&reply).unwrap();
            text.push(b'\n');
            let _ = stream.write_all(&text);
        }
    });
}

/// Builds the policy API as it is now, beside this test.
fn policy_program() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_clawgress"));
    let directory = own.parent().unwrap();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    build
        .args([
            "build",
            "--quiet",
            "--package",
            "clawgress-policy",
            "--manifest-path",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
        .arg("--target-dir")
        .arg(directory.parent().unwrap());
    if directory.ends_with("release") {
        build.arg("--release");
    }
    assert!(
        build.status().unwrap().success(),
        "clawgress-policy does not build"
    );
    directory.join("clawgress-policy")
}

#[test]
fn a_policy_is_imported_shown_and_applied_again() {
    let console = Console::new();
    let (code, out, _) = console.run(&["show", "--policy"]);
    assert!(code == 0 && out.contains("boot.example"), "{out}");

    let path = console.policy("{\"version\": 1,\n \"allow\": {\"domains\": [\"api.openai.com\"]}}");
    let (code, out, error) = console.run(&["policy", "check", &path]);
    assert!(code == 0 && out.contains("only checked"), "{out}{error}");
    let (code, out, error) = console.run(&["import", "--policy", &path]);
    assert!(
        code == 0 && out.contains("compile") && out.contains("revision 2 is enforced"),
        "{out}{error}"
    );
    assert!(!out.contains('\u{1b}'), "colours without a terminal: {out}");
    let (code, out, _) = console.run(&["policy", "import", "file", &path, "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, answer["revision"].as_u64()), (0, Some(3)), "{out}");
    let (code, out, _) = console.run(&["show", "clawgress", "policy", "show"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &shown["allow"]["domains"][0]),
        (0, &Value::from("api.openai.com"))
    );
    let (code, out, _) = console.run(&["policy", "apply"]);
    assert!(code == 0 && out.contains("revision 4 is enforced"), "{out}");
    let (code, out, _) = console.run(&["show", "--policy", &path]);
    assert!(code == 0 && out.contains("api.openai.com"), "{out}");
}

#[test]
fn a_bad_file_is_refused_with_every_place_and_changes_nothing() {
    let console = Console::new();
    let before = fs::read(console.path("policy.json")).unwrap();
    let path =
        console.policy("{\"version\": 1,\n \"alow\": {},\n \"allow\": {\"ports\": [0, 70000]}}");
    let (code, out, error) = console.run(&["import", "--policy", &path]);
    assert_eq!((code, out.as_str()), (1, ""), "{error}");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    assert!(
        lines[0].starts_with(&format!("{path}:2:")) && lines[0].contains("alow"),
        "{error}"
    );
    assert!(
        lines[1].contains(&format!("{path}:3:22: allow.ports[0]: ")),
        "{error}"
    );
    assert!(lines[2].contains("allow.ports[1]"), "{error}");
    assert_eq!(lines[3], "clawgress: 3 problems; nothing was changed");
    let path = console.policy("{\"version\": 1,\n \"allow\": }");
    let (code, _, error) = console.run(&["import", "--policy", &path]);
    assert!(
        code == 1 && error.starts_with(&format!("{path}:2:")),
        "{error}"
    );
    let (code, out, _) = console.run(&["import", "--policy", &path, "--json"]);
    let refused: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &refused["error"]),
        (1, &Value::from("malformed JSON")),
        "{out}"
    );
    assert_eq!(fs::read(console.path("policy.json")).unwrap(), before);
    let (code, _, error) = console.run(&["import", "--policy", "/nonexistent/p.json"]);
    assert!(
        code == 1 && error.contains("reading /nonexistent/p.json: No such file"),
        "{error}"
    );
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let console = Console::new();
    let (code, out, _) = console.run(&["key", "list"]);
    assert!(code == 0 && out.contains("no key yet"), "{out}");
    let (_, out, _) = console.run(&[
        "key", "create", "--name", "ci", "--role", "viewer", "--json",
    ]);
    let new: Value = serde_json::from_str(&out).unwrap();
    let id = new["id"].as_str().unwrap();
    assert!(
        new["key"]
            .as_str()
            .unwrap()
            .starts_with(&format!("cg_{id}_"))
    );
    let (code, out, _) = console.run(&["key", "list"]);
    assert!(
        code == 0 && out.contains(id) && out.contains("viewer") && out.contains("never"),
        "{out}"
    );
    assert_eq!(console.run(&["key", "revoke", id]).0, 0);
    let (code, _, error) = console.run(&["key", "revoke", id]);
    assert!(code == 1 && error.contains("clawgress key list"), "{error}");
    assert!(console.run(&["key", "list"]).1.contains("revoked"));
}

#[test]
fn what_the_gateway_holds_is_shown() {
    let console = Console::new();
    let (code, out, _) = console.run(&["firewall"]);
    assert_eq!((code, out.as_str()), (0, "table inet clawgress {\n}\n"));
    let (code, out, _) = console.run(&["rpz"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "a.example\n1 of 2,001 names; --limit shows more\n")
    );
    let (code, out, _) = console.run(&["status"]);
    assert!(
        code == 0 && out.contains("NOT as it should be") && out.contains("FAIL"),
        "{out}"
    );
    let (code, out, _) = console.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &status["boot_revision"]), (0, &Value::from(1)));
    let (code, _, error) = console.run(&["telemetry", "--window", "1m"]);
    assert!(code == 1 && error.contains("not in this test"), "{error}");
}

#[test]
fn wrong_usage_and_silence_have_codes_of_their_own() {
    let console = Console::without_daemon();
    for words in [
        &["nonsense"][..],
        &["import"],
        &["telemetry", "--window", "2h"],
        &["key", "create", "--role", "root"],
    ] {
        let (code, _, error) = console.run(words);
        assert!(code == 2 && !error.is_empty(), "{words:?}: {code} {error}");
    }
    let (code, out, error) = console.run(&["status"]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(
        error.contains("admin.sock") && error.contains("systemctl status clawgress-policy"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
    let (code, out, _) = console.run(&["status", "--json"]);
    let failure: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &failure["error"]), (3, &Value::from("unreachable")));
    let (code, out, _) = console.run(&["--version"]);
    assert!(code == 0 && out.starts_with("clawgress "), "{out}");
}
