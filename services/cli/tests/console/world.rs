//! The policy API with a directory of its own and an enforcer that finds everything right; where a test needs them, with
//! the daemons that serve the gateway's agents, each as the program that it is.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use clawgress_link::control::{Reply, Report, Request, Stage, Status};
use serde_json::Value;

const SEALED_OFF: &str = "interfaces { ethernet eth1 { address 192.168.10.1/24 role lan } }
service { clawgress { enable policy { domain boot.example } } }";

/// Two agents with keys, one of them disabled, one with tokens, and rules; nothing of it listens.
pub(crate) const AGENTS: &str = "
interfaces { ethernet eth1 { address 192.168.10.1/24 role lan } }
service { clawgress {
  enable
  policy { domain boot.example }
  gateway { enable }
  agent agent-1 { team red project search environment prod auth-type api-key }
  agent agent-2 { team blue project search environment prod auth-type api-key status disabled }
  agent robot { team blue project search environment prod auth-type jwt }
  identity { issuer box { issuer https://gw.example audience agents algorithm EdDSA own } }
  rule no-secrets { action deny; priority 10; domain *.secret.example; label keep-out }
  rule red-http { action allow; priority 20; identity { team red }; domain web.example; port 80; method GET; path-prefix /v1 }
} }";

pub(crate) struct Console {
    directory: tempfile::TempDir,
    daemons: Vec<(&'static str, Child)>,
}

impl Drop for Console {
    fn drop(&mut self) {
        for (_, mut daemon) in self.daemons.drain(..) {
            daemon.kill().ok();
            daemon.wait().ok();
        }
    }
}

impl Console {
    pub(crate) fn without_daemon() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            daemons: Vec::new(),
        }
    }

    pub(crate) fn new() -> Self {
        Self::with(SEALED_OFF)
    }

    /// The policy API with this configuration, committed.
    pub(crate) fn with(configuration: &str) -> Self {
        let mut console = Self::without_daemon();
        for name in ["state", "revisions"] {
            fs::create_dir(console.path(name)).unwrap();
        }
        fs::write(console.path("taken.boot"), format!("test\n{configuration}")).unwrap();
        let control = UnixListener::bind(console.path("control.sock")).unwrap();
        serve_control(control, console.path("distrusted"));
        let at = |name: &str| console.path(name).display().to_string();
        let mut settings = format!(
            "listen = \"127.0.0.1:{}\"\nresolver = \"127.0.0.1:1\"\nagents_resolver = \"127.0.0.1:1\"\n\
             front = \"127.0.0.1:1\"\nconsole_uids = [{}]\nunits = []\ndeadline_ms = 1000\n",
            free_port(),
            console.uid()
        );
        for (key, name) in [
            ("init_socket", "init.sock"),
            ("front_certificate", "front.crt"),
            ("enforcer_socket", "control.sock"),
            ("identity_socket", "identity.sock"),
            ("gateway_socket", "gateway.sock"),
            ("quota_socket", "quota.sock"),
            ("audit_socket", "audit.sock"),
            ("ship_socket", "ship.sock"),
            ("console_socket", "admin.sock"),
            ("state", "state"),
            ("revisions", "revisions"),
            ("policy_file", "policy.json"),
            ("taken_configuration", "taken.boot"),
            ("committed_configuration", "config.boot"),
        ] {
            settings.push_str(&format!("{key} = \"{}\"\n", at(name)));
        }
        fs::write(console.path("policy.toml"), settings).unwrap();
        console.start("policy", "admin.sock");
        console.eventually("there is a revision", || {
            console.path("policy.json").exists()
        });
        console
    }

    /// All of them, as on a box whose agents have a gateway.
    pub(crate) fn with_everybody() -> Self {
        let mut console = Self::with(AGENTS);
        console.identity();
        console.audit();
        console.quota_and_gateway();
        console
    }

    pub(crate) fn identity(&mut self) {
        let at = |name: &str| self.path(name).display().to_string();
        let port = free_port();
        for name in ["identity", "files"] {
            fs::create_dir_all(self.path(name)).unwrap();
        }
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\nadmin_socket = {:?}\nadmin_uids = [{uid}]\nenrol_socket = {:?}\n\
             state = {:?}\nrevision = {:?}\nfiles = {:?}\nservices = [{{ uid = {uid}, role = \"gateway\" }}]\n",
            at("identity.sock"),
            at("enrol.sock"),
            at("identity"),
            at("revisions/boot.json"),
            at("files"),
            uid = self.uid(),
        );
        fs::write(self.path("identity.toml"), text).unwrap();
        fs::write(self.path("identity.port"), port.to_string()).unwrap();
        self.start("identity", "identity.sock");
    }

    /// As it is shipped, with the places of this test in it.
    pub(crate) fn audit(&mut self) {
        const SHIPPED: &str = include_str!("../../../../rootfs-overlay/etc/clawgress/audit.toml");
        for name in ["audit", "files"] {
            fs::create_dir_all(self.path(name)).unwrap();
        }
        let at = |name: &str| self.path(name).display().to_string();
        let (settings, _) = SHIPPED.split_once("\n[").unwrap();
        let mut text = String::new();
        for line in settings.lines() {
            let (key, value) = line.split_once(" = ").unwrap_or((line, ""));
            let line = match key {
                "state" => format!("state = {:?}", at("audit")),
                "api_socket" => format!("api_socket = {:?}", at("audit.sock")),
                "ship_socket" => format!("ship_socket = {:?}", at("ship.sock")),
                "enrol_socket" => format!("enrol_socket = {:?}", at("none.sock")),
                "revision" => format!("revision = {:?}", at("revisions/boot.json")),
                "files" => format!("files = {:?}", at("files")),
                "api_uids" => format!("api_uids = [{}]", self.uid()),
                "segment_bytes" => "segment_bytes = 65536".to_owned(),
                "checkpoint_seconds" => "checkpoint_seconds = 1".to_owned(),
                "ship_listen" => continue,
                _ if value.is_empty() => continue,
                _ => line.to_owned(),
            };
            text.push_str(&line);
            text.push('\n');
        }
        text.push_str(&format!("[shippers]\npolicy = {}\n", self.uid()));
        fs::write(self.path("audit.toml"), text).unwrap();
        self.start("audit", "audit.sock");
    }

    pub(crate) fn quota_and_gateway(&mut self) {
        self.quota();
        self.gateway();
    }

    fn quota(&mut self) {
        let at = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "socket = {:?}\ngateway_uids = [{}]\nstate = {:?}\nsave_every_ms = 1000\n",
            at("quota.sock"),
            self.uid(),
            at("used.json")
        );
        fs::write(self.path("quota.toml"), text).unwrap();
        self.start("quota", "quota.sock");
    }

    fn gateway(&mut self) {
        let at = |name: &str| self.path(name).display().to_string();
        fs::create_dir_all(self.path("gateway/credentials")).unwrap();
        let port = fs::read_to_string(self.path("identity.port")).unwrap();
        // Its own events go nowhere: the kernel tells one user of this machine from another, and here there is one.
        let mut text = format!(
            "named = \"127.0.0.1:1\"\nworkers = 1\ncontrol_uids = [{}]\nidentity = \"127.0.0.1:{port}\"\n",
            self.uid()
        );
        for (key, name) in [
            ("revision", "revisions/boot.json"),
            ("state", "gateway"),
            ("control_socket", "gateway.sock"),
            ("enrol_socket", "enrol.sock"),
            ("quota_socket", "quota.sock"),
            ("ship_socket", "none.sock"),
            ("certificate", "gateway.crt"),
            ("key", "gateway.key"),
        ] {
            text.push_str(&format!("{key} = {:?}\n", at(name)));
        }
        text.push_str(
            "[limits]\nhead_ms = 10000\nbetween_requests_ms = 60000\nanswer_ms = 300000\n\
             unknown_per_source = 1024\nqueue_bytes = 67108864\nqueue_bytes_per_agent = 16777216\n",
        );
        fs::write(self.path("gateway.toml"), text).unwrap();
        self.start("gateway", "gateway.sock");
    }

    pub(crate) fn start(&mut self, name: &'static str, socket: &str) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let daemon = Command::new(programs().join(format!("clawgress-{name}")))
            .arg("--config")
            .arg(self.path(&format!("{name}.toml")))
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.daemons.push((name, daemon));
        self.eventually(&format!("{name} listens"), || {
            UnixStream::connect(self.path(socket)).is_ok()
        });
    }

    /// The enforcer says from now on that no time server has answered.
    pub(crate) fn distrust_the_clock(&self) {
        fs::write(self.path("distrusted"), "").unwrap();
    }

    /// As a crash would.
    pub(crate) fn kill(&mut self, name: &str) {
        let at = self.daemons.iter().position(|(other, _)| *other == name);
        let (_, mut daemon) = self.daemons.remove(at.unwrap());
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    fn uid(&self) -> u32 {
        fs::metadata(self.directory.path()).unwrap().uid()
    }

    pub(crate) fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            if begun.elapsed() > Duration::from_secs(30) {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                panic!("{what}: not so; the daemons said:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn run(&self, words: &[&str]) -> (i32, String, String) {
        let output: Output = self.command(words).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clawgress"));
        command
            .arg("--socket")
            .arg(self.path("admin.sock"))
            .args(words);
        command
    }

    /// A command that does what it should, and its answer.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let (code, out, error) = self.run(&[words, &["--json"]].concat());
        assert_eq!(code, 0, "{words:?}: {out}{error}");
        serde_json::from_str(&out).unwrap()
    }

    pub(crate) fn policy(&self, text: &str) -> String {
        let path = self.path("mine.json");
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// An enforcer that finds everything right; the real one needs a kernel to itself.
fn serve_control(listener: UnixListener, distrusted: PathBuf) {
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
                Request::Status => Reply::Status(Box::new(Status {
                    revision: None,
                    generation: 1,
                    enforcing: true,
                    detail: String::new(),
                    principals: 1,
                    domains: 1,
                    pins: 0,
                    clock_trusted: !distrusted.exists(),
                    next_change: None,
                    warnings: Vec::new(),
                })),
                Request::Firewall => Reply::Text {
                    text: "table inet clawgress {\n}\n".to_owned(),
                },
                Request::Zone { .. } => Reply::Zone {
                    names: vec!["a.example".to_owned()],
                    total: 2001,
                },
                Request::Block { .. } => report("1", true),
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

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Builds the daemons as they are now, beside this test.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let own = Path::new(env!("CARGO_BIN_EXE_clawgress"));
        let directory = own.parent().unwrap();
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet"]);
        for name in ["policy", "identity", "audit", "quota", "gateway"] {
            build.args(["--package", &format!("clawgress-{name}")]);
        }
        build
            .arg("--manifest-path")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
            .arg("--target-dir")
            .arg(directory.parent().unwrap());
        if directory.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().unwrap().success(),
            "the daemons do not build"
        );
        directory.to_owned()
    })
}
