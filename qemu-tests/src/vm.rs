//! Owns one running machine: its QEMU, console, control socket and logs. Dropping it ends it at once.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::accel::Accelerator;
use crate::case::Case;
use crate::error::{Error, IoContext, Result};
use crate::machine::Machine;
use crate::process;
use crate::qmp::Qmp;
use crate::serial::Serial;
use crate::shell::{Output, Shell};

/// For a command that does no waiting of its own.
const COMMAND_LIMIT: Duration = Duration::from_secs(15);
/// What the console shows last when it has logged in by itself.
const SHELL_PROMPTS: [&str; 2] = ["root@", "# "];

pub struct Vm {
    accelerator: Accelerator,
    child: Child,
    serial: Serial,
    shell: Option<Shell>,
    qmp: Qmp,
    logs: PathBuf,
    power_on: Instant,
    /// Socket and UEFI variables; a short path, for a socket's name has little room.
    _scratch: TempDir,
}

impl Vm {
    pub(crate) fn power_on(
        case: &Case,
        machine: &Machine,
        accelerator: Accelerator,
    ) -> Result<Self> {
        let logs = case.log_directory(machine.log_name())?;
        let scratch = tempfile::Builder::new()
            .prefix("clawgress-vm-")
            .tempdir()
            .doing("making a scratch directory in", std::env::temp_dir())?;
        let firmware = machine.firmware_files(scratch.path())?;
        let qemu = machine.command_line(accelerator, scratch.path(), firmware.as_ref());
        let arguments = [machine.lab_entry(), &qemu].concat();
        let command_log = logs.join("qemu-command");
        fs::write(&command_log, arguments.join(" ") + "\n").doing("writing", &command_log)?;
        let stderr_path = logs.join("qemu-stderr");
        let stderr = File::create(&stderr_path).doing("creating", &stderr_path)?;
        let serial_path = logs.join("serial.log");
        let serial_log = File::create(&serial_path).doing("creating", &serial_path)?;

        let power_on = Instant::now();
        let mut child = process::spawn(&arguments, |command| {
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(stderr);
        })?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            process::end(&mut child);
            return Err(Error::other("QEMU was started without a console"));
        };
        let serial = Serial::new(input, output, serial_log, power_on);
        let connected = Qmp::connect(
            &scratch.path().join("qmp"),
            accelerator.scale(Duration::from_secs(5)),
        );
        let qmp = connected.map_err(|error| {
            process::end(&mut child);
            let said = fs::read_to_string(&stderr_path).unwrap_or_default();
            Error::other(format!("{error}; QEMU said: {}", said.trim()))
        })?;
        Ok(Self {
            accelerator,
            child,
            serial,
            shell: None,
            qmp,
            logs,
            power_on,
            _scratch: scratch,
        })
    }

    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    pub fn logs(&self) -> &std::path::Path {
        &self.logs
    }

    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// A time limit meant for KVM, as it must be here.
    pub fn scale(&self, limit: Duration) -> Duration {
        self.accelerator.scale(limit)
    }

    pub fn since_power_on(&self) -> Duration {
        self.power_on.elapsed()
    }

    /// Waits for text on the serial console; `limit` is meant for KVM.
    pub fn wait_for(&self, pattern: &str, limit: Duration) -> Result {
        self.serial.wait_for(pattern, self.scale(limit))
    }

    /// Waits until the console has logged in by itself, and takes the shell over.
    pub fn login(&mut self) -> Result {
        let limit = self.scale(crate::machine::BOOT_LIMIT);
        self.serial.wait_for_any(&SHELL_PROMPTS, limit)?;
        let shell = Shell::take_over(&self.serial, self.scale(COMMAND_LIMIT))?;
        self.shell = Some(shell);
        Ok(())
    }

    pub fn has_shell(&self) -> bool {
        self.shell.is_some()
    }

    /// Runs a command as root on the console.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.run_within(command, COMMAND_LIMIT)
    }

    /// Runs a command that may take long; `limit` is meant for KVM.
    pub fn run_within(&mut self, command: &str, limit: Duration) -> Result<Output> {
        let limit = self.scale(limit);
        let Some(shell) = self.shell.as_mut() else {
            return Err(Error::other(format!(
                "command {command:?} before login on the console"
            )));
        };
        shell.run(&self.serial, command, limit)
    }

    /// Runs a command that must succeed and returns what it printed.
    pub fn run_ok(&mut self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        if output.status == 0 {
            return Ok(output.stdout);
        }
        Err(Error::other(format!(
            "in the box: {command}\nended with {output:?}"
        )))
    }

    /// Repeats a command until it succeeds; `limit` is meant for KVM.
    pub fn run_until_ok(&mut self, command: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + self.scale(limit);
        loop {
            let output = self.run(command)?;
            if output.status == 0 {
                return Ok(output.stdout);
            }
            if Instant::now() > deadline {
                return Err(Error::TimedOut {
                    wanted: format!("`{command}` to succeed in the box"),
                    waited_s: self.scale(limit).as_secs(),
                    context: format!("; its last answer: {output:?}"),
                });
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Plugs a raw image in as a read-only disk while the machine runs.
    pub fn plug_virtio_disk(&mut self, file: &std::path::Path) -> Result {
        let node = json!({
            "driver": "raw",
            "node-name": "plugged",
            "read-only": true,
            "file": {"driver": "file", "filename": file, "read-only": true},
        });
        self.qmp.execute("blockdev-add", &node)?;
        let device = json!({"driver": "virtio-blk-pci", "bus": "free-slot", "drive": "plugged", "id": "plugged"});
        self.qmp.execute("device_add", &device).map(drop)
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self) -> Result {
        self.qmp.execute("system_powerdown", &json!({})).map(drop)
    }

    /// Waits until the machine has switched itself off; `limit` is as it is, not widened.
    pub fn wait_for_power_off(&mut self, limit: Duration) -> Result {
        let ended = process::wait_bounded(&mut self.child, limit)?;
        if ended.is_some() {
            return Ok(());
        }
        Err(Error::TimedOut {
            wanted: "the machine to switch itself off".to_owned(),
            waited_s: limit.as_secs(),
            context: format!("; its last lines:\n{}", self.serial.last_lines()),
        })
    }

    /// Waits until the machine has reset itself; the console must then log in anew. `limit` is meant for KVM.
    pub fn wait_for_reset(&mut self, limit: Duration) -> Result {
        self.shell = None;
        let limit = self.scale(limit);
        self.qmp.wait_event("RESET", limit)?;
        // What the old system said last is not the new one's prompt.
        self.serial.take();
        Ok(())
    }

    /// Tells the guest to restart, and waits for the machine's reset.
    pub fn reboot(&mut self) -> Result {
        // The firmware itself may have reset the machine while it booted.
        self.qmp.forget_events()?;
        self.serial.send("systemctl reboot\n")?;
        self.wait_for_reset(Duration::from_secs(30))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}
