//! One daemon with its directories, a control socket that answers as told, and a client that speaks plain HTTP.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clawgress_link::control::{Reply, Report, Request, Stage, Status, Telemetry, Window};
use clawgress_policy::Revision;
use serde_json::{Value, json};

/// What the enforcer says and remembers.
#[derive(Debug, Default)]
pub(crate) struct Enforcer {
    pub(crate) revision: Option<u64>,
    /// The one revision it holds, whole.
    pub(crate) held: Option<Revision>,
    /// Stages that fail, with their words.
    pub(crate) fails: Vec<(&'static str, &'static str)>,
    /// It applies, and hangs up without a word.
    pub(crate) dies_when_done: bool,
    pub(crate) takes: Duration,
    pub(crate) checks: usize,
    pub(crate) applications: usize,
    /// Who is blocked, and whether everybody is.
    pub(crate) blocked: (Vec<String>, bool),
}

pub(crate) struct Service {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) enforcer: Arc<Mutex<Enforcer>>,
    port: u16,
    process: Option<Child>,
}

pub(crate) const ENABLED: &str = "
interfaces {
  ethernet eth0 { address dhcp role wan }
  ethernet eth1 { address 192.168.10.1/24 role lan }
}
service { clawgress { enable policy { domain boot.example } } }";

impl Service {
    /// With this boot configuration; runs once its console answers.
    pub(crate) fn new(configuration: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["state", "revisions"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut service = Self {
            directory,
            enforcer: Arc::default(),
            port,
            process: None,
        };
        service.configure(configuration);
        service.write_settings();
        service.serve_control();
        service.start();
        service
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn configure(&self, configuration: &str) {
        fs::write(self.path("taken.boot"), format!("test\n{configuration}")).unwrap();
    }

    fn write_settings(&self) {
        let at = |name| self.path(name).display().to_string();
        let uid = fs::metadata(self.directory.path()).unwrap().uid();
        // Nobody is at the ports of the neighbours: they are silent, and health says so.
        let settings = format!(
            "listen = \"127.0.0.1:{}\"\ninit_socket = \"{}\"\nresolver = \"127.0.0.1:1\"\n\
             agents_resolver = \"127.0.0.1:1\"\nfront = \"127.0.0.1:1\"\nfront_certificate = \"{}\"\n\
             enforcer_socket = \"{}\"\nconsole_socket = \"{}\"\nconsole_uids = [{uid}]\nstate = \"{}\"\n\
             revisions = \"{}\"\npolicy_file = \"{}\"\ntaken_configuration = \"{}\"\n\
             committed_configuration = \"{}\"\nunits = []\ndeadline_ms = 1000\n\
             identity_socket = \"{}\"\ngateway_socket = \"{}\"\nquota_socket = \"{}\"\n\
             audit_socket = \"{}\"\nship_socket = \"{}\"\n",
            self.port,
            at("init.sock"),
            at("front.crt"),
            at("control.sock"),
            at("admin.sock"),
            at("state"),
            at("revisions"),
            at("policy.json"),
            at("taken.boot"),
            at("config.boot"),
            at("identity.sock"),
            at("gateway.sock"),
            at("quota.sock"),
            at("audit.sock"),
            at("ship.sock"),
        );
        fs::write(self.path("policy.toml"), settings).unwrap();
    }

    pub(crate) fn start(&mut self) {
        self.stop();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_clawgress-policy"))
            .arg("--config")
            .arg(self.path("policy.toml"))
            .env("RUST_BACKTRACE", "0")
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.process = Some(child);
        self.eventually("the console answers", || {
            UnixStream::connect(self.path("admin.sock")).is_ok()
        });
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    pub(crate) fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "never: {what}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the boot configuration has become a revision.
    pub(crate) fn booted(self) -> Self {
        self.eventually("a boot revision", || self.boot_revision().is_some());
        self.eventually("the end of the boot", || {
            self.path("state/configuration.json").exists()
        });
        self
    }

    pub(crate) fn boot_revision(&self) -> Option<u64> {
        let target = fs::read_link(self.path("revisions/boot.json")).ok()?;
        target.to_str()?.strip_suffix(".json")?.parse().ok()
    }

    pub(crate) fn policy_json(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("policy.json")).unwrap()).unwrap()
    }

    /// Everything that a refused policy must leave as it was.
    pub(crate) fn footprint(&self) -> (Option<u64>, Option<u64>, String, Vec<String>) {
        let mut files: Vec<String> = fs::read_dir(self.path("revisions"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        (
            self.enforcer.lock().unwrap().revision,
            self.boot_revision(),
            fs::read_to_string(self.path("policy.json")).unwrap_or_default(),
            files,
        )
    }

    pub(crate) fn console(&self, path: &str, body: &Value) -> (u16, Value) {
        let stream = UnixStream::connect(self.path("admin.sock")).unwrap();
        exchange(stream, path, body.to_string().as_bytes(), "")
    }

    pub(crate) fn front(&self, path: &str, body: &Value) -> (u16, Value) {
        self.front_raw(path, body.to_string().as_bytes(), "")
    }

    pub(crate) fn front_raw(&self, path: &str, body: &[u8], headers: &str) -> (u16, Value) {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        exchange(stream, path, body, headers)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn key(&self, role: &str) -> String {
        let (status, new) = self.console(
            "/clawgress/console/keys/create",
            &json!({"name": "test", "role": role}),
        );
        assert_eq!(status, 200, "{new}");
        new["key"].as_str().unwrap().to_owned()
    }

    fn serve_control(&self) {
        let listener = UnixListener::bind(self.path("control.sock")).unwrap();
        let enforcer = Arc::clone(&self.enforcer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let enforcer = Arc::clone(&enforcer);
                std::thread::spawn(move || answer(&enforcer, stream));
            }
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer(enforcer: &Mutex<Enforcer>, mut stream: UnixStream) {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    let Ok(request) = serde_json::from_str(&line) else {
        return;
    };
    let reply = match request {
        Request::Check { file } => {
            enforcer.lock().unwrap().checks += 1;
            Some(report(enforcer, &file, false))
        }
        Request::Apply { file } => {
            enforcer.lock().unwrap().applications += 1;
            let report = report(enforcer, &file, true);
            (!enforcer.lock().unwrap().dies_when_done).then_some(report)
        }
        Request::Status => {
            let enforcer = enforcer.lock().unwrap();
            Some(Reply::Status(Box::new(Status {
                revision: enforcer.revision,
                generation: 3,
                enforcing: enforcer.revision.is_some(),
                detail: "as told".to_owned(),
                principals: 1,
                domains: 1,
                pins: 0,
                clock_trusted: true,
                next_change: None,
                warnings: Vec::new(),
            })))
        }
        Request::Telemetry { window } => Some(Reply::Telemetry(Box::new(Telemetry {
            window: match window {
                Window::Minute => "1m",
                Window::Hour => "1h",
                Window::Day => "24h",
            }
            .to_owned(),
            top_denied: vec![("evil.example".to_owned(), 3)],
            ..Telemetry::default()
        }))),
        Request::Firewall => Some(Reply::Text {
            text: "table inet clawgress {}".to_owned(),
        }),
        Request::Zone { limit } => Some(Reply::Zone {
            names: vec!["a.example".to_owned(); limit.min(2)],
            total: 2,
        }),
        Request::Block { agents, all } => {
            let mut enforcer = enforcer.lock().unwrap();
            enforcer.blocked = (agents, all);
            Some(Reply::Report(Report {
                revision: enforcer.revision.unwrap_or_default(),
                ok: true,
                applied: true,
                stages: Vec::new(),
            }))
        }
        // Not for this service to ask.
        other => Some(Reply::Error {
            error: format!("{other:?}"),
        }),
    };
    if let Some(reply) = reply {
        let mut text = serde_json::to_vec(&reply).unwrap();
        text.push(b'\n');
        // An asker that has gone is no business of ours.
        let _ = stream.write_all(&text);
    }
}

fn report(enforcer: &Mutex<Enforcer>, file: &str, apply: bool) -> Reply {
    let takes = enforcer.lock().unwrap().takes;
    std::thread::sleep(takes);
    let mut enforcer = enforcer.lock().unwrap();
    let stage = |name: &str, ok, detail: &str| Stage {
        name: name.to_owned(),
        ok,
        took_ms: 1,
        detail: detail.to_owned(),
    };
    let revision = match Revision::read(Path::new(file)) {
        Ok(revision) => revision,
        Err(error) => {
            return Reply::Error {
                error: error.to_string(),
            };
        }
    };
    let mut stages = vec![stage("compile", true, "1 principal")];
    stages.extend(
        enforcer
            .fails
            .iter()
            .map(|(name, why)| stage(name, false, why)),
    );
    let number = revision.number;
    let ok = enforcer.fails.is_empty();
    if ok && apply {
        enforcer.revision = revision.enabled.then_some(number);
        enforcer.held = Some(revision);
    }
    Reply::Report(Report {
        revision: number,
        ok,
        applied: ok && apply,
        stages,
    })
}

fn exchange(mut stream: impl Read + Write, path: &str, body: &[u8], headers: &str) -> (u16, Value) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: box\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer to {path}: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    (status, body)
}
