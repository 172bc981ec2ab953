//! Where the front's files and sockets lie. The same text is compiled for a directory in which it is only checked.

use crate::front::MapName;

/// Absolute paths without blanks or quotes; none ends in a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Holds the maps and the joined files.
    pub directory: String,
    /// hello.lua as shipped.
    pub lua: String,
    /// Runtime API; haproxy makes it.
    pub runtime: String,
    /// Group that may use the runtime API. None: haproxy's own.
    pub runtime_group: Option<String>,
    /// Datagram socket on which one line per event arrives (see `log`).
    pub log: String,
    /// Certificate and key of the TLS front of the policy API.
    pub certificate: String,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            directory: "/run/clawgress/enforcer/front".to_owned(),
            lua: "/usr/share/clawgress/front/hello.lua".to_owned(),
            runtime: "/run/clawgress/haproxy/runtime.sock".to_owned(),
            runtime_group: Some("clawgress-front".to_owned()),
            log: "/run/clawgress/enforcer/front.sock".to_owned(),
            certificate: "/var/lib/clawgress/tls/front.pem".to_owned(),
        }
    }
}

impl Places {
    pub fn map(&self, name: MapName) -> String {
        format!("{}/{}", self.directory, name.file())
    }
}
