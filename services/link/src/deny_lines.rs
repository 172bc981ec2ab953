//! Where denials are told to people: to the syslog under the facility of the configuration, and where there is none, or
//! a person or a test reads the standard output, on that. Never to both: journald keeps what comes by either.
//!
//! Whoever writes says what a line holds; a line that could not be told is his to count.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

const SYSLOG: &str = "/dev/log";
/// Notice.
const SEVERITY: u16 = 5;
/// `local0`: what is meant where nothing is written.
pub const USUAL_FACILITY: u8 = 16;

pub struct DenyLines {
    program: &'static str,
    path: Option<PathBuf>,
    socket: Option<UnixDatagram>,
    /// Where there is no syslog.
    output: Box<dyn Write + Send>,
}

impl std::fmt::Debug for DenyLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DenyLines")
            .field("program", &self.program)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl DenyLines {
    /// Of a program, under whose name its lines are found.
    pub fn of(program: &'static str) -> Self {
        // Set by systemd for a service whose output is the journal's.
        let is_service = std::env::var_os("JOURNAL_STREAM").is_some();
        let path = is_service.then_some(Path::new(SYSLOG));
        Self::to(program, path, Box::new(std::io::stdout()))
    }

    fn to(program: &'static str, path: Option<&Path>, output: Box<dyn Write + Send>) -> Self {
        Self {
            program,
            path: path.map(Path::to_owned),
            socket: None,
            output,
        }
    }

    /// False: it is lost, because whoever reads is behind. Never waits for the syslog.
    pub fn write(&mut self, facility: u8, line: &str) -> bool {
        // Without a time: the receiver on this machine has the same clock.
        let priority = u16::from(facility) * 8 + SEVERITY;
        let message = format!("<{priority}>{}: {line}", self.program);
        // Twice: the syslog may have been started anew since the last line.
        for _ in 0..2 {
            let Some(socket) = self.connected() else {
                break;
            };
            match socket.send(message.as_bytes()) {
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => self.socket = None,
            }
        }
        let written = writeln!(self.output, "{line}").and_then(|()| self.output.flush());
        written.is_ok()
    }

    fn connected(&mut self) -> Option<&UnixDatagram> {
        if self.socket.is_none() {
            let path = self.path.as_ref()?;
            self.socket = UnixDatagram::unbound().ok().filter(|socket| {
                socket.set_nonblocking(true).is_ok() && socket.connect(path).is_ok()
            });
        }
        self.socket.as_ref()
    }
}

/// The number of RFC 5424 for a word of the configuration.
pub fn facility(word: &str) -> Option<u8> {
    const WORDS: [(&str, u8); 20] = [
        ("kern", 0),
        ("user", 1),
        ("mail", 2),
        ("daemon", 3),
        ("auth", 4),
        ("syslog", 5),
        ("lpr", 6),
        ("news", 7),
        ("uucp", 8),
        ("cron", 9),
        ("authpriv", 10),
        ("ftp", 11),
        ("local0", 16),
        ("local1", 17),
        ("local2", 18),
        ("local3", 19),
        ("local4", 20),
        ("local5", 21),
        ("local6", 22),
        ("local7", 23),
    ];
    WORDS
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Output {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn received(syslog: &UnixDatagram) -> String {
        let mut buffer = [0; 200];
        let length = syslog.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_line_goes_to_the_syslog_or_else_to_the_output_and_to_one_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let output = Output::default();
        let mut lines = DenyLines::to("clawgress-dns", Some(&path), Box::new(output.clone()));
        assert!(lines.write(19, "{\"n\":1}"));
        assert_eq!(output.text(), "{\"n\":1}\n");
        for n in 2..4 {
            // The second one takes the place of the first.
            let _ = std::fs::remove_file(&path);
            let syslog = UnixDatagram::bind(&path).unwrap();
            assert!(lines.write(19, &format!("{{\"n\":{n}}}")));
            assert_eq!(
                received(&syslog),
                format!("<157>clawgress-dns: {{\"n\":{n}}}")
            );
        }
        assert_eq!(output.text(), "{\"n\":1}\n");
    }

    #[test]
    fn a_line_that_the_syslog_has_no_room_for_is_lost_and_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let syslog = UnixDatagram::bind(&path).unwrap();
        let output = Output::default();
        let mut lines = DenyLines::to("clawgress-dns", Some(&path), Box::new(output.clone()));
        let told = (0..10_000).take_while(|_| lines.write(16, "{}")).count();
        assert!(told > 0 && told < 10_000, "{told}");
        assert_eq!(output.text(), "");
        received(&syslog);
        assert!(lines.write(16, "{}"));
    }

    #[test]
    fn facilities_have_the_numbers_of_the_standard() {
        assert_eq!(facility("local3"), Some(19));
        assert_eq!(facility("daemon"), Some(3));
        assert_eq!(facility("local8"), None);
    }
}
