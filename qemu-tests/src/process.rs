//! Owns how the framework starts programs: every child dies with the test process, none outlives its owner.
//! Nothing else in the framework starts a program.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// A job for the spawning thread: the command, and where the child goes.
type Job = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts `arguments` so that the kernel kills it when this process ends, however it ends.
///
/// The kernel sends the parent-death signal when the *thread* that forked ends. Test threads end early, so one
/// thread that lives as long as the process does all the forking.
pub fn spawn(arguments: &[String], configure: impl FnOnce(&mut Command)) -> Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                // A dropped receiver means that the asking test is gone; there is nobody to tell.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).args(arguments);
    configure(&mut command);
    let (answer, child) = mpsc::channel();
    let sent = spawner.send((command, answer));
    sent.ok()
        .and_then(|()| child.recv().ok())
        .ok_or_else(|| Error::other("the thread that starts programs has died"))?
        .map_err(|source| tool_error(arguments, source.to_string()))
}

/// Runs a program to its end and returns what it wrote to standard output; its standard error is in the error.
pub fn run(arguments: &[String]) -> Result<String> {
    let child = spawn(arguments, |command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    })?;
    let output = child
        .wait_with_output()
        .map_err(|source| tool_error(arguments, source.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim(),
        String::from_utf8_lossy(&output.stdout).trim(),
    );
    Err(tool_error(arguments, why))
}

/// Splits a command line at blanks. For literal commands of the framework; arguments with blanks go in a slice.
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn tool_error(arguments: &[String], why: String) -> Error {
    Error::Tool {
        command: arguments.join(" "),
        why,
    }
}

/// A helper that runs beside the test: says `ready` in a line, works until its standard input closes, then says
/// its last line. Dropping it ends it.
pub struct Helper {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Helper {
    /// Starts the helper and waits for its `ready`.
    pub fn start(name: &str, arguments: &[String]) -> Result<Self> {
        let mut child = spawn(arguments, |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        })?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let Some(stdout) = stdout else { return };
            for line in BufReader::new(stdout)
                .lines()
                .map_while(std::result::Result::ok)
            {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let helper = Self {
            name: name.to_owned(),
            child,
            stdin,
            lines,
        };
        let first = helper.line(Duration::from_secs(20))?;
        if first == "ready" {
            Ok(helper)
        } else {
            Err(Error::other(format!(
                "{name} said {first:?} instead of being ready; its command was: {}",
                arguments.join(" ")
            )))
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that the helper prints.
    pub fn line(&self, limit: Duration) -> Result<String> {
        self.lines.recv_timeout(limit).map_err(|error| {
            Error::other(format!(
                "{} printed nothing more ({error}); its complaint, if any, is above",
                self.name
            ))
        })
    }

    /// Closes the helper's input, waits for its end, and returns its last line.
    pub fn finish(mut self) -> Result<String> {
        drop(self.stdin.take());
        let mut last = self.line(Duration::from_secs(20))?;
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(20)) {
            last = line;
        }
        let ended = wait_bounded(&mut self.child, Duration::from_secs(20))?;
        match ended {
            Some(status) if status.success() => Ok(last),
            Some(status) => Err(Error::other(format!("{} ended with {status}", self.name))),
            None => Err(Error::other(format!("{} did not end when told", self.name))),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.stdin.take());
        end(&mut self.child);
    }
}

/// Kills a child and takes its exit status, so that no zombie stays.
pub fn end(child: &mut Child) {
    // It may have ended by itself: both calls then fail harmlessly.
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits for a child at most so long.
pub fn wait_bounded(
    child: &mut Child,
    limit: Duration,
) -> Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        let status = child
            .try_wait()
            .map_err(|source| Error::other(format!("waiting for a child process: {source}")))?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
