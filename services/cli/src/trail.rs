//! `audit`: questions about events, the live stream, the export, the proof.
//!
//! Holds no more of an answer than is shown; a stream that was cut off is a failure, never a short answer.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clawgress_link::{terminal, unix_http::Answer};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    arguments::agent::{Audit, Between, Filter},
    ask::{Api, Failure, Said, pretty},
    style::{Align, Style, bytes, count, some, table, tame},
};

/// Every byte of the trail is read for it.
const PROOF: Duration = Duration::from_secs(930);
/// What the policy API takes of anchors.
const LARGEST_ANCHORS: u64 = 60_000;
/// A page of events, as the audit service gives them out.
const PAGE: usize = 1000;

pub(crate) async fn run(
    api: &Api<'_>,
    audit: &Audit,
    json: bool,
    style: Style,
) -> Result<Said, Failure> {
    match audit {
        Audit::Query {
            filter,
            between,
            limit,
        } => query(api, filter, between, *limit as usize, json, style).await,
        Audit::Tail { filter } => tail(api, filter, json, style).await,
        Audit::Export {
            filter,
            between,
            output,
        } => export(api, filter, between, output.as_deref(), json).await,
        Audit::Verify { anchor } => verify(api, anchor.as_deref(), json, style).await,
    }
}

fn question(filter: &Filter, between: Option<&Between>) -> Map<String, Value> {
    let mut question = Map::new();
    let fields = filter.fields();
    if !fields.is_empty() {
        question.insert("where".to_owned(), json!(fields));
    }
    let now = Timestamp::now();
    for (name, time) in between
        .map(|between| [("from", between.from), ("to", between.to)])
        .into_iter()
        .flatten()
    {
        if let Some(time) = time {
            question.insert(name.to_owned(), time.text(now).into());
        }
    }
    question
}

/// The newest are asked for first, and shown in the order of time.
async fn query(
    api: &Api<'_>,
    filter: &Filter,
    between: &Between,
    limit: usize,
    json: bool,
    style: Style,
) -> Result<Said, Failure> {
    let mut question = question(filter, Some(between));
    question.insert("newest_first".to_owned(), true.into());
    let mut events: Vec<Value> = Vec::new();
    let mut more = true;
    while more && events.len() < limit {
        question.insert("limit".to_owned(), (limit - events.len()).min(PAGE).into());
        let mut answer = api
            .ask("/clawgress/audit/query", question.clone().into())
            .await?;
        let Some(page) = answer["events"].as_array_mut() else {
            return Err(Failure::Answer("the answer holds no events".to_owned()));
        };
        events.append(page);
        match answer["next"].take() {
            Value::String(next) => {
                question.insert("after".to_owned(), next.into());
            }
            _ => more = false,
        }
    }
    // They come in the order of their ends; what took long began before what ended before it.
    events.sort_by(|one, other| one["timestamp"].as_str().cmp(&other["timestamp"].as_str()));
    if json {
        return Ok(pretty(&json!({ "events": events, "more": more })).into());
    }
    if events.is_empty() {
        return Ok("no event fits".to_owned().into());
    }
    let rows: Vec<Vec<String>> = events.iter().map(cells).collect();
    let mut text = table(&HEAD, &rows, style);
    if more {
        text.push_str(&format!(
            "\nthe newest {}; there may be older ones: --limit and --from show more",
            count(events.len() as u64)
        ));
    }
    Ok(text.into())
}

pub(crate) const HEAD: [(&str, Align); 6] = [
    ("TIME", Align::Left),
    ("AGENT", Align::Left),
    ("DECISION", Align::Left),
    ("WHAT", Align::Left),
    ("BY", Align::Left),
    ("REASON", Align::Left),
];

pub(crate) fn cells(event: &Value) -> Vec<String> {
    let text = |name: &str| match &event[name] {
        Value::Null => String::new(),
        Value::String(text) => tame(text),
        other => tame(&other.to_string()),
    };
    let time = text("timestamp");
    let source = text("source");
    let mut what = Vec::new();
    if source != "proxy" {
        what.push(format!("{source}:"));
    }
    let (host, port) = (text("destination_host"), text("destination_port"));
    let to = if host.is_empty() || port.is_empty() {
        host
    } else {
        format!("{host}:{port}")
    };
    what.extend([text("http_method"), to, text("path")]);
    let folded = event["folded"].as_u64().filter(|times| *times > 1);
    if let Some(times) = folded {
        what.push(format!("({} times)", count(times)));
    }
    let mut decision = text("decision");
    if event["interrupted"] == true {
        decision.push_str(", interrupted");
    }
    let by = if source == "admin" {
        text("credential")
    } else {
        text("policy_id")
    };
    // To the millisecond; the rest is for machines.
    let time = match time.split_once('.') {
        Some((seconds, micros)) => format!("{seconds}.{}Z", micros.get(..3).unwrap_or("000")),
        None => time,
    };
    what.retain(|part| !part.is_empty());
    let what = what.join(" ");
    let cells = [time, text("agent_id"), decision, what, by, text("reason")];
    cells
        .map(|cell| match cell.trim() {
            "" => "-".to_owned(),
            cell => cell.to_owned(),
        })
        .to_vec()
}

async fn tail(api: &Api<'_>, filter: &Filter, json: bool, style: Style) -> Result<Said, Failure> {
    let question = Value::from(question(filter, None));
    let mut answer = api.open("/clawgress/audit/tail", &question).await?;
    if !json && style.is_for_people() {
        // For whoever waits: nothing is wrong.
        eprintln!("waiting for events; Ctrl-C ends this");
    }
    let following = follow(&mut answer, |line| {
        if json {
            return print_line(terminal::json(&String::from_utf8_lossy(line)).as_bytes());
        }
        match serde_json::from_slice::<Value>(line) {
            Ok(event) => print_line(cells(&event).join("  ").as_bytes()),
            Err(_) => print_line(terminal::line(&String::from_utf8_lossy(line)).as_bytes()),
        }
    });
    tokio::select! {
        followed = following => match followed? {
            // The reader has seen enough.
            Followed::Enough => Ok(String::new().into()),
            Followed::Ended => Err(Failure::Cut("the stream of events ended; follow it again with: clawgress audit tail".to_owned())),
        },
        _ = tokio::signal::ctrl_c() => Ok(String::new().into()),
    }
}

enum Followed {
    Ended,
    Enough,
}

/// An event's line is never longer; what is has no end.
const LONGEST_LINE: usize = 1024 * 1024;

/// Hands over each line of an answer. False from `take`: nobody reads on.
async fn follow(
    answer: &mut Answer,
    mut take: impl FnMut(&[u8]) -> io::Result<bool>,
) -> Result<Followed, Failure> {
    let cut = |error: &dyn std::fmt::Display| Failure::Cut(error.to_string());
    let mut held: Vec<u8> = Vec::new();
    loop {
        let Some(piece) = answer.piece().await.map_err(|error| cut(&error))? else {
            return Ok(Followed::Ended);
        };
        held.extend_from_slice(&piece);
        let mut rest = held.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, tail) = rest.split_at(end);
            if !take(line).map_err(|error| cut(&error))? {
                return Ok(Followed::Enough);
            }
            rest = tail.get(1..).unwrap_or_default();
        }
        held = rest.to_vec();
        if held.len() > LONGEST_LINE {
            return Err(Failure::Answer("an event has no end".to_owned()));
        }
    }
}

fn print_line(line: &[u8]) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(line)
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

async fn export(
    api: &Api<'_>,
    filter: &Filter,
    between: &Between,
    output: Option<&Path>,
    json: bool,
) -> Result<Said, Failure> {
    let question = Value::from(question(filter, Some(between)));
    let Some(path) = output else {
        let mut answer = api.open("/clawgress/audit/export", &question).await?;
        // To a pipe goes the very line that the trail's proof is about.
        let looked_at = io::stdout().is_terminal();
        follow(&mut answer, |line| {
            if looked_at {
                return print_line(terminal::json(&String::from_utf8_lossy(line)).as_bytes());
            }
            print_line(line)
        })
        .await?;
        return Ok(String::new().into());
    };
    // Before anything is asked: an export that can't be kept is not to be taken.
    let mut draft = Draft::new(path)?;
    let mut answer = api.open("/clawgress/audit/export", &question).await?;
    let (mut events, mut size) = (0_u64, 0_u64);
    follow(&mut answer, |line| {
        draft.file.write_all(line)?;
        draft.file.write_all(b"\n")?;
        events += 1;
        size += line.len() as u64 + 1;
        Ok(true)
    })
    .await?;
    draft.finish()?;
    if json {
        let told = json!({ "file": path, "events": events, "bytes": size });
        return Ok(pretty(&told).into());
    }
    Ok(format!(
        "{}, {}, in {}",
        some(events, "event"),
        bytes(size),
        path.display()
    )
    .into())
}

/// A file that has its name only once it is whole.
struct Draft {
    path: PathBuf,
    beside: PathBuf,
    file: BufWriter<File>,
    finished: bool,
}

impl Draft {
    fn new(path: &Path) -> Result<Self, Failure> {
        let failed = |why: String| Failure::Output {
            path: path.to_owned(),
            why,
        };
        if path.exists() {
            return Err(failed("it is there already; name another file".to_owned()));
        }
        let mut draft = path.as_os_str().to_owned();
        draft.push(".part");
        let draft = PathBuf::from(draft);
        // Who was allowed what is not for everybody.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            beside: draft,
            file: BufWriter::new(file),
            finished: false,
        })
    }

    fn finish(mut self) -> Result<(), Failure> {
        let mut place = || {
            self.file.flush()?;
            self.file.get_ref().sync_all()?;
            // Never over a file that somebody else has made meanwhile.
            fs::hard_link(&self.beside, &self.path)
        };
        place().map_err(|error| Failure::Output {
            path: self.path.clone(),
            why: error.to_string(),
        })?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Half an export is none; a whole one has its own name by now.
        let _ = fs::remove_file(&self.beside);
    }
}

async fn verify(
    api: &Api<'_>,
    anchor: Option<&Path>,
    json: bool,
    style: Style,
) -> Result<Said, Failure> {
    let anchors: Vec<String> = match anchor {
        None => Vec::new(),
        Some(path) => {
            let failed = |why: &str| Failure::File {
                path: path.to_owned(),
                why: why.to_owned(),
            };
            let text = crate::ask::read(path, LARGEST_ANCHORS)?;
            let text = String::from_utf8(text).map_err(|_| failed("it is no text"))?;
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            if lines.is_empty() {
                return Err(failed("it holds no checkpoint line"));
            }
            lines
        }
    };
    let body = json!({ "anchors": anchors }).to_string().into_bytes();
    let report = api
        .post("/clawgress/audit/verify", body, PROOF, None)
        .await?;
    let good = report["good"] == true;
    let text = if json {
        pretty(&report)
    } else {
        proof(&report, anchors.len(), style)
    };
    Ok(Said {
        text,
        code: u8::from(!good),
    })
}

pub(crate) fn proof(report: &Value, anchors: usize, style: Style) -> String {
    let number = |name: &str, what| some(report[name].as_u64().unwrap_or(0), what);
    let array = |name: &str| {
        report[name]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .to_vec()
    };
    let mut lines = Vec::new();
    let faults = array("faults");
    for fault in &faults {
        let mut place = tame(fault["place"].as_str().unwrap_or_default());
        if let Some(line) = fault["line"].as_u64() {
            place.push_str(&format!(", line {line}"));
        }
        if let Some(byte) = fault["byte"].as_u64() {
            place.push_str(&format!(" (byte {byte})"));
        }
        let what = tame(fault["what"].as_str().unwrap_or_default());
        lines.push(format!("{place}: {what}"));
    }
    let unproven = array("unproven");
    for anchor in &unproven {
        let anchor: String = anchor
            .as_str()
            .unwrap_or_default()
            .chars()
            .take(80)
            .collect();
        lines.push(format!(
            "an anchor is older than all that is kept, and proves nothing: {}…",
            tame(&anchor)
        ));
    }
    lines.push(format!(
        "{} in {} ({} pruned), {}, {} not signed yet",
        number("events", "event"),
        number("segments", "segment"),
        count(report["pruned"].as_u64().unwrap_or(0)),
        number("checkpoints", "checkpoint"),
        number("unsigned", "event"),
    ));
    lines.push(if report["good"] == true {
        let held = match anchors - unproven.len().min(anchors) {
            0 => "; without an anchor that was kept elsewhere, what was cut off at the end does not show".to_owned(),
            held => format!(", and holds against {}", some(held as u64, "anchor")),
        };
        style.good(&format!("the trail is whole{held}"))
    } else {
        style.bad(&format!("the trail is NOT whole: {}",
            some(faults.len() as u64, "fault")))
    });
    lines.join("\n")
}
