//! A daemon's own configuration: one TOML file, read whole and judged before anything is listened on.
//!
//! No default fills in for a missing key: what runs is what is written.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// What a daemon's configuration says of itself.
pub trait Configuration: DeserializeOwned {
    /// As its unit is called.
    const PROGRAM: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// Where it is read from unless `--config` says otherwise.
    const FILE: &'static str;

    /// What is wrong with the values, beginning with the key, and how to put it right.
    fn fault(&self) -> Option<String>;
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("reading the configuration {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the configuration {} is wrong: {source}", path.display())]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("the configuration {} is wrong: {why}", path.display())]
    Value { path: PathBuf, why: String },
}

pub fn read<C: Configuration>(path: &Path) -> Result<C, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

/// Judges a text as if it stood in this file.
pub fn parse<C: Configuration>(path: &Path, text: &str) -> Result<C, ConfigError> {
    let config: C = toml::from_str(text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    match config.fault() {
        None => Ok(config),
        Some(why) => Err(ConfigError::Value {
            path: path.to_owned(),
            why,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        port: u16,
    }

    impl Configuration for Example {
        const PROGRAM: &'static str = "example";
        const ABOUT: &'static str = "An example";
        const FILE: &'static str = "/etc/clawgress/example.toml";

        fn fault(&self) -> Option<String> {
            (self.port == 0).then(|| "port is 0; write one from 1 to 65535".to_owned())
        }
    }

    #[test]
    fn each_error_names_the_file_and_the_fault() {
        let file = Path::new("/nonexistent/example.toml");
        assert_eq!(parse::<Example>(file, "port = 1").unwrap().port, 1);
        for (text, expected) in [
            ("port = 0", "port is 0"),
            ("", "missing field `port`"),
            ("port = 1\nprt = 2", "unknown field `prt`"),
        ] {
            let error = parse::<Example>(file, text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("/nonexistent/example.toml"), "{error}");
        }
        let error = read::<Example>(file).unwrap_err().to_string();
        assert!(
            error.starts_with("reading the configuration /nonexistent/example.toml"),
            "{error}"
        );
    }
}
