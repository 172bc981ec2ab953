//! The one error type of the framework: says what was being done, to what, and why it failed.
//! It must never hide a tool's own words.

use std::fmt;
use std::path::{Path, PathBuf};

/// A test body and every framework call return this.
pub type Result<T = ()> = std::result::Result<T, Error>;

#[derive(thiserror::Error)]
pub enum Error {
    #[error("{doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("running {command}: {why}")]
    Tool { command: String, why: String },
    #[error("waited {waited_s} s for {wanted}{context}")]
    TimedOut {
        wanted: String,
        waited_s: u64,
        context: String,
    },
    #[error("QMP command {command}: {why}")]
    Qmp { command: String, why: String },
    #[error("{0}")]
    Other(String),
}

/// A test that returns an error prints it through `Debug`: people should read the sentence, not the struct.
impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Error {
    pub fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }
}

/// Adds the doing and the path to an I/O result.
pub trait IoContext<T> {
    fn doing(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn doing(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io {
            doing,
            path: path.as_ref().to_path_buf(),
            source: source.into(),
        })
    }
}

/// Fails the enclosing function with a formatted sentence.
#[macro_export]
macro_rules! fail {
    ($($argument:tt)*) => {
        return Err($crate::Error::other(format!($($argument)*)))
    };
}

/// Fails the enclosing function with a sentence unless the condition holds.
#[macro_export]
macro_rules! require {
    ($condition:expr, $($argument:tt)*) => {
        if !$condition {
            $crate::fail!($($argument)*);
        }
    };
}
