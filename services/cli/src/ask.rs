//! One command is one question to the policy API; what it answers is shown or is the failure.
//!
//! Changes nothing by itself. The only files it touches are those that a command names, and it only reads them.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use clawgress_link::{
    ProbeError,
    admin::{self, Enforced, Keys, NewKey, Overview, PolicyReply, Refused},
    control, terminal,
    unix_http::Answer,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    agents,
    arguments::{Arguments, Command, Import, Key, Policy, Show},
    explain, show,
    style::Style,
    telemetry, trail,
};

/// As long as the policy API gives the enforcer, and a little.
const WORK: Duration = Duration::from_secs(180);
const QUESTION: Duration = Duration::from_secs(30);
/// What the policy API takes.
const LARGEST_POLICY: u64 = 64 * 1024 * 1024;
const LARGEST_REFUSAL: usize = 1024 * 1024;

/// Why a command came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The policy API said no.
    Refused {
        /// The file that was sent, for the places in it.
        file: Option<PathBuf>,
        refused: Box<Refused>,
    },
    /// Before anything was asked.
    File {
        path: PathBuf,
        why: String,
    },
    Unreachable {
        error: ProbeError,
        socket: PathBuf,
    },
    /// It answered something that this program does not understand.
    Answer(String),
    /// A file could not be written.
    Output {
        path: PathBuf,
        why: String,
    },
    /// An answer ended before its end.
    Cut(String),
    /// What was typed means nothing.
    Usage(String),
}

/// What is printed on success, and how the program ends.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Empty: all has been printed already.
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl From<String> for Said {
    fn from(text: String) -> Self {
        Self { text, code: 0 }
    }
}

impl Failure {
    pub(crate) const USAGE: u8 = 2;

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => Self::USAGE,
            Self::Unreachable { .. } => 3,
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { refused, .. } => write!(f, "{}", refused.reason),
            Self::File { path, why } => write!(f, "reading {}: {why}", path.display()),
            Self::Unreachable { error, socket } => {
                let denied = matches!(error, ProbeError::Io { source, .. }
                    if source.kind() == std::io::ErrorKind::PermissionDenied);
                if denied {
                    write!(f, "{error}; only root may ask on {}", socket.display())
                } else {
                    write!(f, "{error}; see systemctl status clawgress-policy")
                }
            }
            Self::Output { path, why } => write!(f, "writing {}: {why}", path.display()),
            Self::Cut(why) | Self::Usage(why) => f.write_str(why),
            Self::Answer(why) => write!(
                f,
                "{why}; is this program of the same version as the policy API?"
            ),
        }
    }
}

pub(crate) async fn run(arguments: &Arguments, style: Style) -> Result<Said, Failure> {
    let api = Api {
        socket: &arguments.socket,
    };
    let json = arguments.json;
    match &arguments.command {
        Command::Audit(audit) => trail::run(&api, audit, json, style).await,
        other => text(&api, other, json, style).await.map(Said::from),
    }
}

/// What a command prints whose answer is shown whole.
async fn text(
    api: &Api<'_>,
    command: &Command,
    json: bool,
    style: Style,
) -> Result<String, Failure> {
    match command {
        Command::Status => {
            let answer = api.ask("/clawgress/console/overview", json!({})).await?;
            shown(json, answer, |overview: Overview| {
                show::status(&overview, style)
            })
        }
        Command::Stats => {
            let answer = api.telemetry(control::Window::Day).await?;
            shown(json, answer, |told| telemetry::denials(&told, style))
        }
        Command::Telemetry { window } => {
            let answer = api.telemetry((*window).into()).await?;
            shown(json, answer, |told| telemetry::whole(&told, style))
        }
        Command::Firewall => {
            let answer = api.ask("/clawgress/console/firewall", json!({})).await?;
            shown(json, answer, |answer: Value| {
                answer["text"]
                    .as_str()
                    .unwrap_or_default()
                    .trim_end()
                    .to_owned()
            })
        }
        Command::Rpz { limit } => {
            let answer = api
                .ask("/clawgress/console/zone", json!({ "limit": limit }))
                .await?;
            shown(json, answer, |answer: Value| show::zone(&answer, style))
        }
        Command::Show(Show { policy }) => match policy.first() {
            Some(path) => {
                let text = read(path, LARGEST_POLICY)?;
                let policy: Value =
                    serde_json::from_slice(&text).map_err(|error| Failure::File {
                        path: path.clone(),
                        why: format!("it is no JSON: {error}"),
                    })?;
                Ok(pretty(&policy))
            }
            None => api.enforced(json).await,
        },
        Command::Policy(Policy::Show) => api.enforced(json).await,
        Command::Policy(Policy::Apply) => {
            let answer = api
                .work("/clawgress/console/policy/apply", b"{}".to_vec(), None)
                .await?;
            shown(json, answer, |reply: PolicyReply| {
                show::applied(&reply, style)
            })
        }
        Command::Import { policy: path }
        | Command::Policy(Policy::Import(Import::File { path })) => {
            let answer = api.policy(path, true).await?;
            shown(json, answer, |reply: PolicyReply| {
                show::applied(&reply, style)
            })
        }
        Command::Policy(Policy::Check { path }) => {
            let answer = api.policy(path, false).await?;
            shown(json, answer, |reply: PolicyReply| {
                show::applied(&reply, style)
            })
        }
        Command::Key(Key::Create { name, role }) => {
            let call = json!({ "name": name, "role": role.word() });
            let answer = api.ask("/clawgress/console/keys/create", call).await?;
            shown(json, answer, |new: NewKey| show::new_key(&new, style))
        }
        Command::Key(Key::List) => {
            let answer = api.ask("/clawgress/console/keys", json!({})).await?;
            shown(json, answer, |keys: Keys| show::keys(&keys.keys, style))
        }
        Command::Key(Key::Revoke { id }) => {
            let answer = api
                .ask("/clawgress/console/keys/revoke", json!({ "id": id }))
                .await?;
            shown(json, answer, |key: admin::Key| {
                format!("key {} ({}) is revoked", key.id, key.name)
            })
        }
        Command::Agent(agent) => {
            agents::agent(api, &agent.id, agent.action.as_ref(), json, style).await
        }
        Command::Flows { agent } => agents::flows(api, agent.as_deref(), json, style).await,
        Command::Explain(asked) => explain::run(api, asked, json, style).await,
        Command::Audit(_) => Ok(String::new()),
    }
}

pub(crate) fn shown<T: DeserializeOwned>(
    json: bool,
    answer: Value,
    show: impl FnOnce(T) -> String,
) -> Result<String, Failure> {
    if json {
        return Ok(pretty(&answer));
    }
    serde_json::from_value(answer)
        .map(show)
        .map_err(|error| Failure::Answer(format!("the answer is not understood: {error}")))
}

pub(crate) fn pretty(value: &Value) -> String {
    terminal::json(&serde_json::to_string_pretty(value).unwrap_or_default()).into_owned()
}

pub(crate) struct Api<'a> {
    socket: &'a Path,
}

impl Api<'_> {
    async fn telemetry(&self, window: control::Window) -> Result<Value, Failure> {
        let call = json!({ "window": window });
        self.ask("/clawgress/telemetry", call).await
    }

    async fn enforced(&self, json: bool) -> Result<String, Failure> {
        let answer = self.ask("/clawgress/console/policy", json!({})).await?;
        shown(json, answer, |enforced: Enforced| pretty(&enforced.policy))
    }

    /// Sends the text of a file as it is, so that places in it are those of the file.
    async fn policy(&self, path: &Path, apply: bool) -> Result<Value, Failure> {
        let text = read(path, LARGEST_POLICY)?;
        let mut body = format!("{{\"apply\":{apply},\"policy\":\n").into_bytes();
        body.extend_from_slice(&text);
        body.extend_from_slice(b"\n}");
        self.work("/clawgress/policy", body, Some(path)).await
    }

    pub(crate) async fn ask(&self, path: &str, call: Value) -> Result<Value, Failure> {
        self.post(path, call.to_string().into_bytes(), QUESTION, None)
            .await
    }

    pub(crate) async fn work(
        &self,
        path: &str,
        body: Vec<u8>,
        file: Option<&Path>,
    ) -> Result<Value, Failure> {
        self.post(path, body, WORK, file).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        body: Vec<u8>,
        deadline: Duration,
        file: Option<&Path>,
    ) -> Result<Value, Failure> {
        let (status, answer) = admin::post(self.socket, path, body, deadline)
            .await
            .map_err(|error| Failure::Unreachable {
                error,
                socket: self.socket.to_owned(),
            })?;
        if status == 200 {
            return serde_json::from_slice(&answer)
                .map_err(|error| Failure::Answer(format!("the answer is no JSON: {error}")));
        }
        Err(refusal(status, &answer, file))
    }

    /// Returns when the answer has begun.
    pub(crate) async fn open(&self, path: &str, call: &Value) -> Result<Answer, Failure> {
        let body = call.to_string().into_bytes();
        let unreachable = |error| Failure::Unreachable {
            error,
            socket: self.socket.to_owned(),
        };
        let opened = admin::open(self.socket, path, body, WORK).await;
        let mut answer = opened.map_err(unreachable)?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let text = answer.whole(LARGEST_REFUSAL).await.map_err(unreachable)?;
        Err(refusal(answer.status, &text, None))
    }
}

fn refusal(status: u16, answer: &[u8], file: Option<&Path>) -> Failure {
    let mut refused: Refused = match serde_json::from_slice(answer) {
        Ok(refused) => refused,
        Err(error) => {
            return Failure::Answer(format!("the answer {status} is no refusal: {error}"));
        }
    };
    if file.is_some() {
        in_the_file(&mut refused);
    }
    Failure::Refused {
        file: file.map(Path::to_owned),
        refused: Box::new(refused),
    }
}

/// The policy began on the second line of what was sent and below `policy`: the operator sees places of the file.
fn in_the_file(refused: &mut Refused) {
    for problem in &mut refused.problems {
        problem.line = problem.line.map(|line| line.saturating_sub(1).max(1));
        let path = problem.path.strip_prefix("policy").unwrap_or(&problem.path);
        problem.path = path.strip_prefix('.').unwrap_or(path).to_owned();
    }
}

pub(crate) fn read(path: &Path, largest: u64) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let failure = |why: String| Failure::File {
        path: path.to_owned(),
        why,
    };
    let file = std::fs::File::open(path).map_err(|error| failure(error.to_string()))?;
    let mut text = Vec::new();
    file.take(largest + 1)
        .read_to_end(&mut text)
        .map_err(|error| failure(error.to_string()))?;
    if text.len() as u64 > largest {
        return Err(failure(format!("it is larger than {largest} bytes")));
    }
    Ok(text)
}
