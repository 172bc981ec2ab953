//! Sockets of this daemon that others of the box speak to: in place of what a dead process left there, and open to the
//! daemons' group once all else about them is right.

use std::io;
use std::path::Path;

use crate::apply::files;

/// `bind` makes the socket at the path.
pub(super) fn open<S>(
    path: &str,
    group: Option<u32>,
    bind: impl FnOnce(&Path) -> io::Result<S>,
) -> Result<S, String> {
    let failed = |error: &dyn std::fmt::Display| format!("listening on {path}: {error}");
    let place = Path::new(path);
    if let Err(error) = std::fs::remove_file(place)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(failed(&error));
    }
    let socket = bind(place).map_err(|error| failed(&error))?;
    files::admit(place, 0o660, group).map_err(|error| failed(&error))?;
    Ok(socket)
}
