//! A person at a machine's console: this terminal, raw, and the socket of its serial line. Ctrl-] leaves.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Context;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

const LEAVE: u8 = 0x1d;

/// Puts the terminal back as it was.
struct Raw(Option<Termios>);

impl Raw {
    fn begin() -> Self {
        let input = std::io::stdin();
        // Not a terminal: then nothing has to be changed.
        let Ok(before) = tcgetattr(&input) else {
            return Self(None);
        };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let _ = tcsetattr(&input, SetArg::TCSANOW, &raw);
        Self(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

pub(crate) fn run(socket: &Path) -> anyhow::Result<()> {
    let mut line = UnixStream::connect(socket)
        .with_context(|| format!("connecting to the console {}", socket.display()))?;
    let mut back = line.try_clone().context("reading the console")?;
    let _raw = Raw::begin();
    // A getty that waits shows its prompt again.
    line.write_all(b"\r")?;
    std::thread::spawn(move || {
        let mut output = std::io::stdout();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = back.read(&mut buffer) {
            if output
                .write_all(&buffer[..length])
                .and_then(|()| output.flush())
                .is_err()
            {
                return;
            }
        }
    });
    let mut input = std::io::stdin();
    let mut buffer = [0; 256];
    loop {
        let length = input.read(&mut buffer)?;
        let typed = &buffer[..length];
        if length == 0 || typed.contains(&LEAVE) {
            return Ok(());
        }
        line.write_all(typed).context("writing to the console")?;
    }
}
