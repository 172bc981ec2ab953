//! The service manager's part of a restart: keeps the sockets that a service hands over, and gives them to its next process.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

type Kept = Arc<Mutex<Vec<(String, OwnedFd)>>>;

pub(crate) struct Manager {
    socket: PathBuf,
    kept: Kept,
}

impl Manager {
    pub(crate) fn at(socket: &Path) -> Self {
        let listener = UnixDatagram::bind(socket).unwrap();
        let kept = Kept::default();
        let keeping = Arc::clone(&kept);
        std::thread::spawn(move || {
            while let Ok((text, fds)) = receive(&listener) {
                let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
                let name = name.unwrap_or_default().to_owned();
                let mut kept = keeping.lock().unwrap();
                if text.contains("FDSTOREREMOVE=1") {
                    kept.retain(|(known, _)| *known != name);
                } else if text.contains("FDSTORE=1") {
                    kept.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
                }
            }
        });
        Self {
            socket: socket.to_owned(),
            kept,
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap();
        kept.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The command of a program that gets what was kept, as a service manager passes it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let kept = self.kept.lock().unwrap();
        // The number of the process is known in the process alone.
        let mut script = format!("export LISTEN_PID=$$ LISTEN_FDS={};", kept.len());
        // First out of the way of where they belong.
        for (at, (_, fd)) in kept.iter().enumerate() {
            script += &format!(" exec {}<&{};", 500 + at, fd.as_raw_fd());
        }
        for (_, fd) in &*kept {
            script += &format!(" exec {}<&-;", fd.as_raw_fd());
        }
        for at in 0..kept.len() {
            script += &format!(" exec {}<&{}; exec {}<&-;", 3 + at, 500 + at, 500 + at);
        }
        script += " exec \"$0\" \"$@\"";
        let mut command = Command::new("bash");
        command
            .args(["-c", &script, program])
            .env("NOTIFY_SOCKET", &self.socket);
        command
    }
}

fn receive(socket: &UnixDatagram) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut room = nix::cmsg_space!([RawFd; 16]);
    let mut parts = [io::IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::empty(),
    )?;
    let length = message.bytes;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows them.
            #[allow(unsafe_code)]
            fds.extend(
                received
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
    Ok((text, fds))
}
