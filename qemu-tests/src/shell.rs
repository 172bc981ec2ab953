//! Owns running a command on the serial console and getting its output back whole.
//!
//! A console is shared with the kernel, with systemd and with the banner, any of which may write in the middle of a
//! line. So a command goes in as base64 and its output comes back as tagged base64 with a digest; what is damaged
//! on the way is sent again, from the file in which it was kept, without running the command twice.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::serial::Serial;

mod base64;

/// A canonical terminal takes lines of at most 4095 bytes.
const LINE_BYTES: usize = 2048;
/// How often damaged output is asked for again.
const RESENDS: u32 = 8;

/// What a command did.
#[derive(Clone, PartialEq)]
pub struct Output {
    pub status: i32,
    pub stdout: String,
}

impl fmt::Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "status {}:\n{}", self.status, self.stdout)
    }
}

/// The functions that the guest's shell needs, typed once after login.
const SETUP: &str = concat!(
    "cg_send() { cg_e=\"@@$1 end $cg_rc $(sha256sum </run/clawgress-test.out)\";",
    " printf '\\n'; base64 -w 96 /run/clawgress-test.out | while read -r cg_l; do printf '@@%s:%s\\n' \"$1\" \"$cg_l\"; done;",
    " printf '\\n%s\\n%s\\n%s\\n' \"$cg_e\" \"$cg_e\" \"$cg_e\"; }\n",
    "cg_run() { base64 -d </run/clawgress-test.b64 >/run/clawgress-test.cmd;",
    " sh /run/clawgress-test.cmd >/run/clawgress-test.out 2>&1 </dev/null; cg_rc=$?; cg_send \"$1\"; }\n",
);

/// A root shell on the console.
pub struct Shell {
    tag: u32,
}

impl Shell {
    /// Takes over the shell that the console has logged in to. `limit` is for the shell to appear.
    pub fn take_over(serial: &Serial, limit: Duration) -> Result<Self> {
        // What is typed before the shell reads is thrown away by getty: ask until something answers.
        // The question is written so that its echo is not the answer.
        let tries = (limit.as_secs() / 3).max(1);
        let mut answered = Ok(());
        for _ in 0..tries {
            serial.send("printf '@@%s@@\\n' shell-here\n")?;
            answered = serial.wait_for("@@shell-here@@", Duration::from_secs(3));
            if answered.is_ok() {
                break;
            }
        }
        answered?;
        // A plain sh has no line editor: nothing is drawn, nothing wraps. Its errors must not end the login shell.
        serial.send("stty -echo cols 500; PS1= PS2= TERM=dumb exec sh\n")?;
        serial.send(SETUP)?;
        serial.send("printf '@@%s@@\\n' shell-ready\n")?;
        serial.wait_for("@@shell-ready@@", limit)?;
        Ok(Self { tag: 0 })
    }

    /// Runs `command` in a shell of its own (no standard input; standard error joins standard output).
    pub fn run(&mut self, serial: &Serial, command: &str, limit: Duration) -> Result<Output> {
        for (index, chunk) in base64::encode(command.as_bytes())
            .as_bytes()
            .chunks(LINE_BYTES)
            .enumerate()
        {
            let redirect = if index == 0 { ">" } else { ">>" };
            let chunk = String::from_utf8_lossy(chunk);
            serial.send(&format!(
                "printf %s {chunk} {redirect}/run/clawgress-test.b64\n"
            ))?;
        }
        self.tag += 1;
        serial.send(&format!("cg_run {}\n", self.tag))?;
        let mut limit = limit;
        for _ in 0..RESENDS {
            let tag = self.tag;
            let wanted = format!("the end of command {command:?}");
            let received = serial.wait_until(&wanted, limit, |text| receive(text, tag));
            match received {
                Ok(Received::Whole(output)) => return Ok(output),
                Ok(Received::Damaged) => {}
                Err(error) => {
                    // Let the next command have the shell.
                    serial.send("\x03\n")?;
                    return Err(error);
                }
            }
            self.tag += 1;
            limit = limit.max(Duration::from_secs(60));
            serial.send(&format!("cg_send {}\n", self.tag))?;
        }
        Err(Error::other(format!(
            "the output of {command:?} came damaged {RESENDS} times: the console is too noisy"
        )))
    }
}

#[derive(Debug, PartialEq)]
enum Received {
    Whole(Output),
    Damaged,
}

/// Looks for the end mark of `tag` and decodes what was tagged before it. `None`: not yet.
fn receive(text: &str, tag: u32) -> Option<(usize, Received)> {
    let end_mark = format!("@@{tag} end ");
    let line_mark = format!("@@{tag}:");
    // The mark is sent three times, for one of them may have been cut in two by a kernel message.
    let mut from = 0;
    while let Some(at) = text[from..].find(&end_mark) {
        let after = from + at + end_mark.len();
        let line_length = text[after..].find('\n')?;
        let line = &text[after..after + line_length];
        let mut fields = line.split(' ');
        let status = fields.next().and_then(|field| field.parse::<i32>().ok());
        let digest = fields.next().filter(|field| field.len() == 64);
        if let (Some(status), Some(digest)) = (status, digest) {
            let encoded: String = text[..after]
                .lines()
                .filter_map(|line| line.strip_prefix(&line_mark))
                .collect();
            let received = base64::decode(&encoded)
                .filter(|bytes| hex(&Sha256::digest(bytes)) == digest)
                .map_or(Received::Damaged, |bytes| {
                    Received::Whole(Output {
                        status,
                        stdout: String::from_utf8_lossy(&bytes).into_owned(),
                    })
                });
            return Some((after + line_length, received));
        }
        from = after;
    }
    // All three marks are damaged if the shell has gone on to be silent; the caller's limit ends that.
    None
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(tag: u32, status: i32, body: &str) -> String {
        let digest = hex(&Sha256::digest(body));
        let mut text = String::from("\n");
        for chunk in base64::encode(body.as_bytes()).as_bytes().chunks(96) {
            text.extend([
                "@@",
                &tag.to_string(),
                ":",
                &String::from_utf8_lossy(chunk),
                "\n",
            ]);
        }
        let end = format!("@@{tag} end {status} {digest}  -\n");
        text + "\n" + &end.repeat(3)
    }

    fn whole(status: i32, stdout: &str) -> Received {
        Received::Whole(Output {
            status,
            stdout: stdout.to_owned(),
        })
    }

    #[test]
    fn output_comes_back_with_its_status() {
        let body = "a line\n\x1b[31mred\x1b[0m\n".repeat(20);
        let (_, received) = receive(&reply(7, 3, &body), 7).expect("a whole reply");
        assert_eq!(received, whole(3, &body));
    }

    #[test]
    fn an_empty_output_is_an_output() {
        assert_eq!(
            receive(&reply(1, 0, ""), 1).expect("a reply").1,
            whole(0, "")
        );
    }

    #[test]
    fn lines_of_the_kernel_between_ours_are_noise() {
        let text =
            reply(2, 0, &"x".repeat(300)).replace("\n@@2:", "\n[   12.3] eth0: link up\n@@2:");
        assert_eq!(
            receive(&text, 2).expect("a reply").1,
            whole(0, &"x".repeat(300))
        );
    }

    #[test]
    fn a_line_cut_by_the_kernel_is_damage_and_not_a_wrong_answer() {
        let text = reply(3, 0, "some output").replacen("@@3:c29", "@@3:c2[  1.0] oops\n9", 1);
        assert_eq!(receive(&text, 3).expect("a reply").1, Received::Damaged);
    }

    #[test]
    fn one_whole_end_mark_of_three_is_enough() {
        let text = reply(4, 5, "out").replacen("@@4 end 5 ", "@@4 end 5[ 1.0] usb\n", 2);
        assert_eq!(receive(&text, 4).expect("a reply").1, whole(5, "out"));
    }

    #[test]
    fn the_reply_to_another_command_is_not_ours_and_a_half_reply_is_not_yet_one() {
        assert_eq!(receive(&reply(5, 0, "old"), 6), None);
        let text = reply(6, 0, "new");
        let cut = text.find("@@6 end").expect("the mark") + 20;
        assert_eq!(receive(&text[..cut], 6), None);
    }
}
