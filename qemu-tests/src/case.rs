//! Owns one test's life: its log directory, its steps, and what is kept when it fails.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use crate::error::{IoContext, Result};

/// A running test.
pub struct Case {
    name: String,
    logs: PathBuf,
    began: Instant,
    failures: Mutex<Vec<String>>,
}

/// Runs a test body. Its logs are removed if it succeeds; else they are kept and the panic says where.
pub fn case(name: &str, body: impl FnOnce(&Case) -> Result) {
    let logs = logs_root().join(name);
    // An earlier run's logs would mislead.
    let _ = fs::remove_dir_all(&logs);
    fs::create_dir_all(&logs).unwrap_or_else(|error| panic!("making {}: {error}", logs.display()));
    let case = Case {
        name: name.to_owned(),
        logs,
        began: Instant::now(),
        failures: Mutex::new(Vec::new()),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&case)));
    let mut failures = case.failures.into_inner().unwrap_or_default();
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => failures.push(error.to_string()),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            failures.push(format!("panicked: {}", text.unwrap_or_default()));
        }
    }
    if failures.is_empty() {
        let _ = fs::remove_dir_all(&case.logs);
        return;
    }
    panic!(
        "{name}: {} failed\n\n{}\n\nlogs: {}",
        failures.len(),
        failures.join("\n\n"),
        case.logs.display()
    );
}

impl Case {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory of this test for logs; kept only on failure.
    pub fn log_directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.logs.join(name);
        fs::create_dir_all(&directory).doing("making", &directory)?;
        Ok(directory)
    }

    /// A step on which the rest depends: its failure ends the test.
    pub fn step<T>(&self, what: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let result = body();
        self.report(what, began, result.is_ok());
        result.map_err(|error| crate::Error::other(format!("{what}: {error}")))
    }

    /// An independent finding: its failure is noted and the test goes on, so that one run shows them all.
    pub fn check(&self, what: &str, body: impl FnOnce() -> Result) {
        let began = Instant::now();
        let result = body();
        self.report(what, began, result.is_ok());
        if let Err(error) = result
            && let Ok(mut failures) = self.failures.lock()
        {
            failures.push(format!("{what}: {error}"));
        }
    }

    /// Prints a measured figure beside the steps.
    pub fn note(&self, text: &str) {
        println!(
            "{:>7.1} s        {text}",
            self.began.elapsed().as_secs_f32()
        );
    }

    fn report(&self, what: &str, began: Instant, ok: bool) {
        println!(
            "{:>7.1} s {} {what} ({:.1} s)",
            self.began.elapsed().as_secs_f32(),
            if ok { "  ok  " } else { "FAILED" },
            began.elapsed().as_secs_f32(),
        );
    }
}

/// `target/vm-logs`, found from where this program lies: `target/debug/deps/` if it is a test, else `target/debug/`.
fn logs_root() -> PathBuf {
    let program =
        std::env::current_exe().unwrap_or_else(|error| panic!("finding this program: {error}"));
    let directory = program.parent().unwrap_or(Path::new("."));
    let up = if directory.ends_with("deps") { 2 } else { 1 };
    let target = directory.ancestors().nth(up);
    target.unwrap_or(directory).join("vm-logs")
}
