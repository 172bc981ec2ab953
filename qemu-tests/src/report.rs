//! Owns the reading of the appliance's own boot report, and the waiting for it to be complete.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::vm::Vm;

const PATH: &str = "/run/clawgress/boot.json";

/// `/run/clawgress/boot.json`. Fields unknown here are an error: the test would otherwise miss a change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootReport {
    pub version: String,
    pub base: String,
    pub state: String,
    pub complete: bool,
    pub steps: Vec<Step>,
    pub warnings: Vec<String>,
    pub config_error: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: String,
    pub started_ms: u64,
    pub took_ms: u64,
    pub ok: bool,
    pub detail: String,
}

impl BootReport {
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| Error::other(format!("{PATH} is not a boot report: {error}: {text}")))
    }

    pub fn step(&self, name: &str) -> Result<&Step> {
        self.steps
            .iter()
            .find(|step| step.name == name)
            .ok_or_else(|| Error::other(format!("the boot report has no step {name:?}: {self:?}")))
    }

    /// When the last step had ended, in milliseconds since the kernel started.
    pub fn ended_ms(&self) -> u64 {
        self.steps
            .iter()
            .map(|step| step.started_ms + step.took_ms)
            .max()
            .unwrap_or(0)
    }
}

impl Vm {
    /// The boot report as it stands.
    pub fn boot_report(&mut self) -> Result<BootReport> {
        BootReport::parse(&self.run_ok(&format!("cat {PATH}"))?)
    }

    /// Logs in if that has not been done, and waits until the box says that everything is enforced.
    pub fn wait_enforcing(&mut self) -> Result<BootReport> {
        if !self.has_shell() {
            self.login()?;
        }
        let limit = self.scale(Duration::from_secs(30));
        let deadline = Instant::now() + limit;
        loop {
            let output = self.run(&format!("cat {PATH}"))?;
            let report = (output.status == 0)
                .then(|| BootReport::parse(&output.stdout))
                .transpose()?;
            if let Some(report) = &report
                && report.complete
                && report.state == "enforcing"
            {
                return Ok(report.clone());
            }
            if Instant::now() > deadline {
                let report = match report {
                    Some(report) => format!("its boot report: {report:#?}"),
                    None => format!("there is no boot report: {output:?}"),
                };
                let journal =
                    self.run("journalctl --boot --priority warning --no-pager | tail -40")?;
                return Err(Error::TimedOut {
                    wanted: "the box to be enforcing".to_owned(),
                    waited_s: limit.as_secs(),
                    context: format!("; {report}\nthe last warnings of its journal: {journal:?}"),
                });
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"version":"0.1.0","base":"debian-13","state":"enforcing","complete":true,
        "steps":[{"name":"seal","started_ms":2100,"took_ms":80,"ok":true,"detail":"loaded"},
                 {"name":"policy","started_ms":9000,"took_ms":500,"ok":true,"detail":"enforcing"}],
        "warnings":["1 CPU"],"config_error":null}"#;

    #[test]
    fn a_report_is_read_whole() {
        let report = BootReport::parse(REPORT).expect("a report");
        assert_eq!(report.ended_ms(), 9500);
        assert!(report.step("seal").expect("the step").ok);
        assert!(report.step("coffee").is_err());
        assert_eq!(report.config_error, None);
    }

    #[test]
    fn an_unknown_field_is_told() {
        let text = REPORT.replacen('{', r#"{"new":1,"#, 1);
        let error = BootReport::parse(&text).expect_err("a refusal").to_string();
        assert!(error.contains("unknown field `new`"), "{error}");
    }
}
