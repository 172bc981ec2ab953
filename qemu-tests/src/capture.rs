//! Owns a recording of one interface, from a moment that is certain to a moment that is certain.

use std::path::PathBuf;

use crate::case::Case;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::lab::helper_path;
use crate::pcap;
use crate::process::Helper;

pub struct Capture {
    helper: Helper,
    file: PathBuf,
}

impl Capture {
    /// From the return on, every frame is recorded.
    pub(crate) fn start(
        case: &Case,
        mut arguments: Vec<String>,
        interface: &str,
        name: &str,
    ) -> Result<Self> {
        let file = case.log_directory("captures")?.join(format!("{name}.pcap"));
        arguments.push(helper_path()?);
        for argument in ["capture", "--interface", interface, "--file"] {
            arguments.push(argument.to_owned());
        }
        arguments.push(file.display().to_string());
        let helper = Helper::start(&format!("the capture of {name}"), &arguments)?;
        Ok(Self { helper, file })
    }

    /// All frames seen until now. An error if a single one may be missing.
    pub fn stop(self) -> Result<Vec<Frame>> {
        let said = self.helper.finish()?;
        let summary: serde_json::Value = serde_json::from_str(&said)
            .map_err(|error| Error::other(format!("the capture ended with {said:?}: {error}")))?;
        let frames = pcap::read(&self.file)?;
        if summary["dropped"] != 0 {
            return Err(Error::other(format!(
                "the capture lost {} frames: it proves nothing",
                summary["dropped"]
            )));
        }
        if summary["frames"] != frames.len() {
            return Err(Error::other(format!(
                "the capture counted {} frames and its file holds {}",
                summary["frames"],
                frames.len()
            )));
        }
        Ok(frames)
    }
}
