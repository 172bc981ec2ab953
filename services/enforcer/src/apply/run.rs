//! Runs a program of the base with an input, a bound on its time and one on what it says.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// nft writes a line for each wrong element; the first few say it all.
const LONGEST_COMPLAINT: u64 = 16 * 1024;
/// A ruleset as text, with all its sets.
const LONGEST_OUTPUT: u64 = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("starting {program}: {source}")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("{doing}: {program} did not end within {deadline:?}")]
    Deadline {
        doing: String,
        program: String,
        deadline: Duration,
    },
    #[error("{doing}: {program}: {said}")]
    Failed {
        doing: String,
        program: String,
        said: String,
    },
}

/// Runs it to its end. What it printed is returned if it succeeded.
pub async fn run(
    doing: &str,
    program: &Path,
    arguments: &[&str],
    input: Option<&str>,
    deadline: Duration,
) -> Result<String, RunError> {
    let name = || program.display().to_string();
    let start = |source| RunError::Start {
        program: name(),
        source,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    // All at once: a program that prints before it has read all would wait for ever otherwise.
    let whole = async {
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // A program that stops reading says why on its way out.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let ((), output, complaint, status) = tokio::join!(
            feed,
            bounded(stdout, LONGEST_OUTPUT),
            bounded(stderr, LONGEST_COMPLAINT),
            child.wait(),
        );
        (output, complaint, status)
    };
    let (output, complaint, status) =
        tokio::time::timeout(deadline, whole)
            .await
            .map_err(|_| RunError::Deadline {
                doing: doing.to_owned(),
                program: name(),
                deadline,
            })?;
    if status.map_err(start)?.success() {
        return Ok(output);
    }
    let said = [complaint.trim(), output.trim()]
        .into_iter()
        .find(|text| !text.is_empty())
        .map_or_else(|| "it failed without a word".to_owned(), short);
    Err(RunError::Failed {
        doing: doing.to_owned(),
        program: name(),
        said,
    })
}

/// The first lines, on one line.
fn short(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).take(4).collect();
    lines.join("; ").chars().take(600).collect()
}

/// Reads to the end and keeps the beginning.
async fn bounded(source: Option<impl AsyncReadExt + Unpin>, most: u64) -> String {
    let Some(mut source) = source else {
        return String::new();
    };
    let mut kept = Vec::new();
    let mut limited = (&mut source).take(most);
    if limited.read_to_end(&mut kept).await.is_ok() {
        let mut rest = vec![0; 8192];
        while matches!(source.read(&mut rest).await, Ok(length) if length > 0) {}
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn shell(script: &str, input: Option<&str>) -> Result<String, RunError> {
        run(
            "trying",
            Path::new("/bin/sh"),
            &["-c", script],
            input,
            SECOND,
        )
        .await
    }

    #[tokio::test]
    async fn output_input_and_complaints_are_told_apart() {
        assert_eq!(shell("cat; echo x >&2", Some("in")).await.unwrap(), "in");
        let error = shell("echo out; echo why >&2; exit 3", None)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "trying: /bin/sh: why");
        let error = shell("exit 1", None).await.unwrap_err();
        assert!(error.to_string().contains("without a word"));
    }

    #[tokio::test]
    async fn nobody_is_waited_for_longer_than_said() {
        let error = shell("sleep 10", None).await.unwrap_err();
        assert!(matches!(error, RunError::Deadline { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_flood_of_complaints_is_cut() {
        let script =
            "i=0; while [ $i -lt 20000 ]; do echo complaint $i >&2; i=$((i+1)); done; exit 1";
        let error = run(
            "trying",
            Path::new("/bin/sh"),
            &["-c", script],
            None,
            20 * SECOND,
        )
        .await;
        assert!(error.unwrap_err().to_string().len() < 700);
    }
}
