//! Owns the QMP conversation with one QEMU: commands, their answers, and the events in between.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Error, IoContext, Result};

/// No command of ours takes longer, even in software emulation.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

pub struct Qmp {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    /// A line of which only the beginning came before the time was over.
    partial: Vec<u8>,
    events: VecDeque<Value>,
}

/// One line from QEMU.
#[derive(Debug, PartialEq)]
enum Message {
    Greeting,
    Answer(Value),
    Refusal(String),
    Event(Value),
}

fn parse(line: &str) -> Result<Message> {
    let value: Value = serde_json::from_str(line)
        .map_err(|error| Error::other(format!("QEMU sent {line:?}, which is no JSON: {error}")))?;
    if let Some(answer) = value.get("return") {
        return Ok(Message::Answer(answer.clone()));
    }
    if let Some(error) = value.get("error") {
        let text = error["desc"].as_str().unwrap_or("no reason given");
        return Ok(Message::Refusal(text.to_owned()));
    }
    if value.get("event").is_some() {
        return Ok(Message::Event(value));
    }
    if value.get("QMP").is_some() {
        return Ok(Message::Greeting);
    }
    Err(Error::other(format!(
        "QEMU sent {line:?}, which is neither answer nor event"
    )))
}

impl Qmp {
    /// Connects (QEMU may still be making its socket) and negotiates.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Self> {
        let deadline = Instant::now() + limit;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(source) if Instant::now() > deadline => {
                    return Err(source).doing("connecting to QEMU's control socket", socket);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let reader = stream
            .try_clone()
            .doing("duplicating the connection to", socket)?;
        let mut qmp = Self {
            stream,
            reader: BufReader::new(reader),
            partial: Vec::new(),
            events: VecDeque::new(),
        };
        match qmp.read(limit)? {
            Some(Message::Greeting) => {}
            other => {
                return Err(Error::other(format!(
                    "QEMU did not greet, it said {other:?}"
                )));
            }
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its answer; events that come meanwhile are kept.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let refused = |why: String| Error::Qmp {
            command: command.to_owned(),
            why,
        };
        let request = json!({"execute": command, "arguments": arguments}).to_string() + "\n";
        self.stream
            .write_all(request.as_bytes())
            .map_err(|source| refused(source.to_string()))?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.read(left)? {
                Some(Message::Answer(answer)) => return Ok(answer),
                Some(Message::Refusal(why)) => return Err(refused(why)),
                Some(Message::Event(event)) => self.events.push_back(event),
                Some(Message::Greeting) => {}
                None => return Err(refused("no answer".to_owned())),
            }
        }
    }

    /// Waits for an event by name, among those already received too, and consumes it and all before it.
    pub fn wait_event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            while let Some(event) = self.events.pop_front() {
                if event["event"] == name {
                    return Ok(event);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.read(left)? {
                Some(Message::Event(event)) => self.events.push_back(event),
                Some(_) => {}
                None => {
                    return Err(Error::TimedOut {
                        wanted: format!("QEMU's event {name}"),
                        waited_s: limit.as_secs(),
                        context: String::new(),
                    });
                }
            }
        }
    }

    /// Forgets the events so far.
    pub fn forget_events(&mut self) -> Result {
        // An answer comes after every event that happened before the question.
        self.execute("query-status", &json!({}))?;
        self.events.clear();
        Ok(())
    }

    /// The next message, `None` when the time is over.
    fn read(&mut self, limit: Duration) -> Result<Option<Message>> {
        if limit.is_zero() {
            return Ok(None);
        }
        self.stream
            .set_read_timeout(Some(limit))
            .map_err(|source| Error::other(format!("bounding the wait for QEMU: {source}")))?;
        match self.reader.read_until(b'\n', &mut self.partial) {
            Ok(0) => Err(Error::other("QEMU closed its control socket: it has ended")),
            Ok(_) => {
                let line = std::mem::take(&mut self.partial);
                parse(&String::from_utf8_lossy(&line)).map(Some)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(source) => Err(Error::other(format!(
                "reading from QEMU's control socket: {source}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(
            parse(r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#).expect("a greeting"),
            Message::Greeting
        );
        assert_eq!(
            parse(r#"{"return": {"status": "running"}}"#).expect("an answer"),
            Message::Answer(json!({"status": "running"}))
        );
        assert_eq!(
            parse(r#"{"error": {"class": "GenericError", "desc": "no such device"}}"#)
                .expect("a refusal"),
            Message::Refusal("no such device".to_owned())
        );
        assert!(parse("{}").is_err());
        assert!(parse("qemu: oops").is_err());
    }

    #[test]
    fn events_that_come_before_an_answer_are_kept_for_later() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("qmp");
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut lines = BufReader::new(stream.try_clone().expect("a clone")).lines();
            let mut writer = stream;
            writer.write_all(b"{\"QMP\": {}}\n").expect("greeting sent");
            lines.next().expect("capabilities").expect("a line");
            writer.write_all(b"{\"return\": {}}\n").expect("sent");
            lines.next().expect("a command").expect("a line");
            writer
                .write_all(b"{\"event\": \"RESET\"}\n{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}}\n{\"return\": 5}\n")
                .expect("sent");
            // Stay until the client has read everything.
            lines.next();
        });
        let mut qmp = Qmp::connect(&path, Duration::from_secs(5)).expect("a conversation");
        assert_eq!(qmp.execute("x", &json!({})).expect("an answer"), json!(5));
        let event = qmp
            .wait_event("SHUTDOWN", Duration::from_secs(1))
            .expect("the event");
        assert_eq!(event["data"]["guest"], true);
        assert!(
            qmp.wait_event("RESET", Duration::from_millis(50)).is_err(),
            "it came before and was consumed"
        );
        drop(qmp);
        server.join().expect("the server's end");
    }
}
