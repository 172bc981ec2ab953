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
    control,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    arguments::{Arguments, Command, Import, Key, Policy, Show},
    show,
    style::Style,
    telemetry,
};

/// As long as the policy API gives the enforcer, and a little.
const WORK: Duration = Duration::from_secs(180);
const QUESTION: Duration = Duration::from_secs(30);
/// What the policy API takes.
const LARGEST_POLICY: u64 = 64 * 1024 * 1024;

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
}

impl Failure {
    pub(crate) const USAGE: u8 = 2;

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::File { .. } | Self::Answer(_) => 1,
            Self::Unreachable { .. } => 3,
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
            Self::Answer(why) => write!(
                f,
                "{why}; is this program of the same version as the policy API?"
            ),
        }
    }
}

/// What the command prints on success.
pub(crate) async fn run(arguments: &Arguments, style: Style) -> Result<String, Failure> {
    let api = Api {
        socket: &arguments.socket,
    };
    let json = arguments.json;
    match &arguments.command {
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
                let text = read(path)?;
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
    }
}

fn shown<T: DeserializeOwned>(
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

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

struct Api<'a> {
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
        let text = read(path)?;
        let mut body = format!("{{\"apply\":{apply},\"policy\":\n").into_bytes();
        body.extend_from_slice(&text);
        body.extend_from_slice(b"\n}");
        self.work("/clawgress/policy", body, Some(path)).await
    }

    async fn ask(&self, path: &str, call: Value) -> Result<Value, Failure> {
        self.post(path, call.to_string().into_bytes(), QUESTION, None)
            .await
    }

    async fn work(&self, path: &str, body: Vec<u8>, file: Option<&Path>) -> Result<Value, Failure> {
        self.post(path, body, WORK, file).await
    }

    async fn post(
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
        let mut refused: Refused = serde_json::from_slice(&answer).map_err(|error| {
            Failure::Answer(format!("the answer {status} is no refusal: {error}"))
        })?;
        if file.is_some() {
            in_the_file(&mut refused);
        }
        Err(Failure::Refused {
            file: file.map(Path::to_owned),
            refused: Box::new(refused),
        })
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

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let failure = |why: String| Failure::File {
        path: path.to_owned(),
        why,
    };
    let file = std::fs::File::open(path).map_err(|error| failure(error.to_string()))?;
    let mut text = Vec::new();
    file.take(LARGEST_POLICY + 1)
        .read_to_end(&mut text)
        .map_err(|error| failure(error.to_string()))?;
    if text.len() as u64 > LARGEST_POLICY {
        return Err(failure(format!("it is larger than {LARGEST_POLICY} bytes")));
    }
    Ok(text)
}
