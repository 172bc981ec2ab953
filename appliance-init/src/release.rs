//! What this image is, as the image builder wrote it into the image.

use serde::Deserialize;

use crate::{atomic::read_bounded, paths::Paths};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Release {
    pub(crate) version: String,
    pub(crate) base: String,
    /// Unix time of the build: no true clock can be before it.
    #[serde(default)]
    pub(crate) built: u64,
}

impl Release {
    /// A missing or broken file must not stop a boot; it shows in the version.
    pub(crate) fn read(paths: &Paths) -> Self {
        read_bounded(&paths.release(), 64 * 1024)
            .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
            .unwrap_or_else(|error| {
                eprintln!("the image does not say what it is: {error:#}");
                Self {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    base: "unknown".to_owned(),
                    built: 0,
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        assert_eq!(Release::read(&paths).base, "unknown");
        std::fs::create_dir_all(paths.release().parent().unwrap()).unwrap();
        let text = r#"{"name":"Clawgress","version":"0.1.0","base":"debian-13","commit":null,"built":1700000000}"#;
        std::fs::write(paths.release(), text).unwrap();
        assert_eq!(Release::read(&paths).built, 1_700_000_000);
    }
}
