//! The box of these tests: a host between an inside and an outside wire, into which the files of the image are loaded
//! one by one. Knows how to find the tools and how to start a daemon that ends with its test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use qemu_tests::agent::{Agent, BOX_WAN_MAC, box_between};
use qemu_tests::error::IoContext;
use qemu_tests::frame::Frame;
use qemu_tests::lab::{Host, Internet, Lab, Wire};
use qemu_tests::process::{self, words};
use qemu_tests::{Case, Error, Result, fail};

pub(crate) use qemu_tests::stack::overlay;
pub(crate) use qemu_tests::tools::{CURL, DIG, HAPROXY, NAMED, NFT, need};

/// A file of the image with pieces replaced; each has to be there, or the test would test something else.
pub(crate) fn altered(path: &str, replacements: &[(&str, &str)]) -> Result<String> {
    let path = overlay(path);
    let mut text = fs::read_to_string(&path).doing("reading", &path)?;
    for (from, to) in replacements {
        if !text.contains(from) {
            fail!(
                "{} no longer contains {from:?}, which this test replaces",
                path.display()
            );
        }
        text = text.replace(from, to);
    }
    Ok(text)
}

pub(crate) struct Gateway {
    pub(crate) host: Host,
    pub(crate) agent: Agent,
    pub(crate) internet: Internet,
    pub(crate) outside: Wire,
    pub(crate) inside: Wire,
    pub(crate) lab: Lab,
    scratch: tempfile::TempDir,
}

impl Gateway {
    /// A box that forwards everything it gets, in both families: only a ruleset stands in the way of an agent.
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let (outside, inside) = (lab.wire("outside")?, lab.wire("inside")?);
        let internet = Internet::on(&lab, &outside)?;
        let host = box_between(&lab, &outside, &inside)?;
        host.forward_everything()?;
        let agent = Agent::on(&lab, &inside)?;
        let scratch = tempfile::Builder::new()
            .prefix("clawgress-net-")
            .tempdir()
            .doing("making a directory in", std::env::temp_dir())?;
        Ok(Self {
            host,
            agent,
            internet,
            outside,
            inside,
            lab,
            scratch,
        })
    }

    /// Writes a file that the box's daemons can read, and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).doing("writing", &path)?;
        Ok(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A copy of a daemon's program. Where AppArmor confines the daemon to its usual places, that goes by the path
    /// of the program; the files of a test lie elsewhere.
    pub(crate) fn unconfined(&self, program: &str) -> Result<String> {
        let copy = self.path(program.rsplit('/').next().unwrap_or(program));
        fs::copy(program, &copy).doing("copying", program)?;
        Ok(copy.display().to_string())
    }

    pub(crate) fn load(&self, ruleset: &Path) -> Result {
        self.host
            .run(&format!("{} -f {}", NFT.0, ruleset.display()))
            .map(drop)
    }

    /// The frames that cross the outside wire at the box's card while `body` runs.
    pub(crate) fn outside_while(
        &self,
        case: &Case,
        body: impl FnOnce() -> Result,
    ) -> Result<Vec<Frame>> {
        let capture = self.lab.capture_at(case, &self.host, &self.outside)?;
        body()?;
        // What is still in a queue has to cross too.
        std::thread::sleep(Duration::from_millis(200));
        let frames = capture.stop()?;
        Ok(frames
            .into_iter()
            .filter(|frame| frame.source_mac == BOX_WAN_MAC)
            .collect())
    }

    /// Starts a daemon on the box; its output goes to the case's logs.
    pub(crate) fn daemon(&self, case: &Case, name: &str, command: &str) -> Result<Daemon> {
        let log = case.log_directory("daemons")?.join(format!("{name}.log"));
        let output = File::create(&log).doing("making", &log)?;
        let errors = output.try_clone().doing("opening", &log)?;
        let mut arguments = self.host.entry();
        arguments.extend(words(command));
        let child = process::spawn(&arguments, |command| {
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        })?;
        Ok(Daemon { child })
    }
}

/// A running daemon; dropping it kills it.
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Tells it to read its files again.
    pub(crate) fn hang_up(&self) -> Result {
        process::run(&words(&format!("kill -HUP {}", self.child.id()))).map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

/// Asks again until it works, for what takes a moment to come up.
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if began.elapsed() > Duration::from_secs(20) => {
                return Err(Error::other(format!("{what} did not come about: {error}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
