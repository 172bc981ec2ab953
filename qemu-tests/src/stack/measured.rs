//! Stands in for appliance-init on its socket: says what the kernel of the lab's box holds.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use clawgress_link::seal::{Forwarding, Measured};

use crate::error::{IoContext, Result};
use crate::listing::judged;
use crate::process::{self, words};

/// Answers each connection with what the kernel holds at that moment.
pub(super) fn serve(entry: Vec<String>, path: &Path) -> Result {
    let listener = UnixListener::bind(path).doing("listening on", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).doing("opening", path)?;
    let inside = move |command: &str| {
        let mut arguments = entry.clone();
        arguments.extend(words(command));
        process::run(&arguments).unwrap_or_default()
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let forwards = |file: &str| inside(&format!("cat /proc/sys/net/{file}")).trim() != "0";
            let measured = Measured {
                ruleset: judged(&inside),
                forwarding: Forwarding {
                    ipv4: forwards("ipv4/ip_forward"),
                    ipv6: forwards("ipv6/conf/all/forwarding"),
                },
            };
            let Ok(document) = serde_json::to_vec(&measured) else {
                return;
            };
            // An asker that has gone is no business of ours.
            let _ = stream.write_all(&document);
        }
    });
    Ok(())
}
