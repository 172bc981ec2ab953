//! The whole of enforcement in a namespace of the lab: the image's own configuration files, this machine's named, haproxy
//! and nft, and the daemons as they are built now, each under the user that it has in the image.
//!
//! Only what a systemd would do is done here in its stead: directories, users, capabilities, order.

mod measured;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, IoContext, Result};
use crate::lab::{Host, Lab};
use crate::process::{self, words};

/// How long a daemon may take to be there, and a policy to be in force.
const PATIENCE: Duration = Duration::from_secs(60);

/// User, group, and the groups beside it, as in sysusers.d.
const BIND: (u32, u32) = (963, 963);
/// Of the group clawgress-front in the lab, for the host's group file knows no such name to give the runtime socket to.
const HAPROXY: (u32, u32) = (964, FRONT);
const POLICY: (u32, u32) = (970, 970);
const ENFORCER: (u32, u32) = (971, 960);
const RESOLVER: (u32, u32) = (972, 972);
const CLAWGRESS: u32 = 960;
const FRONT: u32 = 979;

/// A box that runs everything; dropping it ends it all.
pub struct Stack {
    pub host: Host,
    scratch: tempfile::TempDir,
    programs: PathBuf,
    daemons: Vec<(String, Child)>,
    logs: PathBuf,
}

impl Drop for Stack {
    fn drop(&mut self) {
        for (_, child) in self.daemons.iter_mut().rev() {
            process::end(child);
        }
    }
}

/// Builds the daemons and the console program as they are now, beside the program that runs, and answers where.
pub fn build() -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let binary = std::env::current_exe().doing("finding", Path::new("this program"))?;
    // A test lies in target/<profile>/deps, a program in target/<profile>.
    let directory = binary
        .ancestors()
        .skip(1)
        .find(|directory| !directory.ends_with("deps"))
        .unwrap_or(Path::new("."));
    let release = if directory.ends_with("release") {
        "--release "
    } else {
        ""
    };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let target = directory.parent().unwrap_or(directory);
    process::run(&words(&format!(
        "{cargo} build --quiet {release}--package clawgress-policy --package clawgress-enforcer --package clawgress-dns \
         --package clawgress-cli --bins --manifest-path {} --target-dir {}",
        manifest.display(),
        target.display()
    )))?;
    Ok(directory.to_owned())
}

/// A file of the image.
pub fn overlay(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../rootfs-overlay")
        .join(path)
}

impl Stack {
    /// Starts everything on `host`, with this boot configuration.
    pub fn start(lab: &Lab, host: Host, configuration: &str, logs: &Path) -> Result<Self> {
        let mut stack = Self::bare(lab, host, configuration, logs)?;
        stack.named()?;
        stack.haproxy()?;
        stack.resolver()?;
        stack.enforcer()?;
        stack.policy()?;
        Ok(stack)
    }

    /// The box as the boot leaves it before any daemon: sealed.
    pub fn bare(lab: &Lab, host: Host, configuration: &str, logs: &Path) -> Result<Self> {
        let programs = build()?;
        let scratch = tempfile::Builder::new()
            .prefix("clawgress-stack-")
            .tempdir()
            .doing("making a directory in", std::env::temp_dir())?;
        open_to_all(scratch.path())?;
        let stack = Self {
            host,
            scratch,
            programs,
            daemons: Vec::new(),
            logs: logs.to_owned(),
        };
        stack.directories(lab)?;
        stack.file("config.boot", configuration)?;
        stack.certificate()?;
        stack.host.sysctl("ipv4/ip_forward", "0")?;
        stack.host.sysctl("ipv6/conf/all/forwarding", "0")?;
        stack.load_sealed()?;
        measured::serve(stack.host.entry(), &stack.path("init.sock"))?;
        Ok(stack)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).doing("writing", &path)?;
        Ok(path)
    }

    pub fn load_sealed(&self) -> Result {
        let rules = overlay("etc/clawgress/sealed.nft");
        self.host
            .run(&format!("/usr/sbin/nft -f {}", rules.display()))
            .map(drop)
    }

    /// Runs the console program on the box.
    pub fn console(&self, arguments: &str) -> Result<String> {
        let program = self.programs.join("clawgress");
        self.host.run(&format!(
            "{} --socket /run/clawgress/policy/admin.sock {arguments}",
            program.display()
        ))
    }

    /// Puts a policy into force by the console, as an operator would.
    pub fn import(&self, policy: &str) -> Result<String> {
        let file = self.file("policy-to-import.json", policy)?;
        self.console(&format!("import --policy {}", file.display()))
    }

    /// Waits until this revision is in force.
    pub fn wait_for_revision(&self, number: u64) -> Result {
        let wanted = format!("\"revision\":{number}");
        let began = Instant::now();
        loop {
            let said = self.console("status --json");
            match &said {
                Ok(text)
                    if text.replace(' ', "").contains(&wanted)
                        && text.replace(' ', "").contains("\"enforcing\":true") =>
                {
                    return Ok(());
                }
                _ if began.elapsed() > PATIENCE => {
                    return Err(Error::other(format!(
                        "revision {number} did not come into force; the console says {said:?}; logs are in {}",
                        self.logs.display()
                    )));
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Ends a daemon without warning.
    pub fn kill(&mut self, name: &str) -> Result {
        let at = self.daemons.iter().position(|(known, _)| known == name);
        let at = at.ok_or_else(|| Error::other(format!("no daemon {name} runs")))?;
        let (_, mut child) = self.daemons.remove(at);
        process::end(&mut child);
        Ok(())
    }

    /// The number of a daemon's process.
    pub fn pid(&self, name: &str) -> Option<u32> {
        let (_, child) = self.daemons.iter().find(|(known, _)| known == name)?;
        Some(child.id())
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// What tmpfiles.d makes in the image. /run belongs to the lab alone: its mounts are its own.
    fn directories(&self, lab: &Lab) -> Result {
        let run = |line: &str| -> Result {
            let mut arguments = lab.entry();
            arguments.extend(words(line));
            process::run(&arguments).map(drop)
        };
        run("mount -t tmpfs -o mode=755 tmpfs /run")?;
        for (path, mode, (user, group)) in [
            ("/run/clawgress", "755", (0, CLAWGRESS)),
            ("/run/clawgress/enforcer", "750", ENFORCER),
            ("/run/clawgress/haproxy", "755", HAPROXY),
            ("/run/clawgress/policy", "2750", (POLICY.0, CLAWGRESS)),
        ] {
            run(&format!("install -d -m {mode} -o {user} -g {group} {path}"))?;
        }
        for (name, mode, (user, group)) in [
            ("revisions", "2750", (POLICY.0, CLAWGRESS)),
            ("policy", "700", POLICY),
            ("enforcer", "750", ENFORCER),
            ("config", "755", POLICY),
            ("cache", "755", BIND),
        ] {
            let path = self.path(name);
            run(&format!(
                "install -d -m {mode} -o {user} -g {group} {}",
                path.display()
            ))?;
        }
        // Where the image's configuration has named keep its own files.
        run(&format!(
            "mount --bind {} /var/cache/bind",
            self.path("cache").display()
        ))?;
        for (from, name) in [
            (self.sealed_named()?, "named.conf"),
            (self.sealed_front()?, "haproxy.cfg"),
        ] {
            let (user, group) = ENFORCER;
            run(&format!(
                "install -m 640 -o {user} -g {group} {} /run/clawgress/enforcer/{name}",
                from.display()
            ))?;
        }
        Ok(())
    }

    fn sealed_named(&self) -> Result<PathBuf> {
        let zones = overlay("etc/clawgress/rpz");
        let text = read(&overlay("etc/bind/named.conf"))?
            .replace("/etc/clawgress/rpz", &zones.display().to_string())
            .replace("/var/cache/bind", &self.path("cache").display().to_string());
        self.file("sealed-named.conf", &text)
    }

    fn sealed_front(&self) -> Result<PathBuf> {
        let here = format!("{}/", self.scratch.path().display());
        let text =
            read(&overlay("etc/haproxy/haproxy.cfg"))?.replace("/var/lib/clawgress/tls/", &here);
        self.file("sealed-haproxy.cfg", &text)
    }

    /// Makes the front's certificate, and its key.
    pub fn certificate(&self) -> Result {
        let (key, certificate) = (self.path("front.key"), self.path("front.crt"));
        process::run(&words(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=clawgress \
             -addext subjectAltName=DNS:clawgress -keyout {} -out {}",
            key.display(),
            certificate.display()
        )))?;
        let pem = read(&key)? + &read(&certificate)?;
        let path = self.file("front.pem", &pem)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).doing("opening", &path)
    }

    pub fn named(&mut self) -> Result {
        // AppArmor, where the host has it, confines named by the path of its program.
        let program = self.path("named");
        fs::copy("/usr/sbin/named", &program).doing("copying", "/usr/sbin/named")?;
        let line = format!(
            "{} -f -n 2 -c /run/clawgress/enforcer/named.conf",
            program.display()
        );
        self.daemon("named", BIND, &[CLAWGRESS], "net_bind_service", &line)
    }

    pub fn haproxy(&mut self) -> Result {
        let line = "/usr/sbin/haproxy -Ws -q -f /run/clawgress/enforcer/haproxy.cfg";
        self.daemon(
            "haproxy",
            HAPROXY,
            &[CLAWGRESS],
            "net_bind_service,net_raw",
            line,
        )
    }

    /// One that is not the front, of the same user and with the same capabilities.
    pub fn another_haproxy(&mut self, name: &str, config: &Path) -> Result {
        let line = format!("/usr/sbin/haproxy -db -q -f {}", config.display());
        self.daemon(
            name,
            HAPROXY,
            &[CLAWGRESS],
            "net_bind_service,net_raw",
            &line,
        )
    }

    pub fn resolver(&mut self) -> Result {
        let queue = self.scratch.path().join("dns");
        std::fs::create_dir_all(&queue).doing("making", &queue)?;
        std::os::unix::fs::chown(&queue, Some(RESOLVER.0), None).doing("giving away", &queue)?;
        let config = read(&overlay("etc/clawgress/dns.toml"))?;
        let config = config.replace("/var/lib/clawgress/dns", &queue.display().to_string());
        let config = self.file("dns.toml", &config)?;
        let line = format!(
            "{} --config {}",
            self.programs.join("clawgress-dns").display(),
            config.display()
        );
        self.daemon("clawgress-dns", RESOLVER, &[CLAWGRESS], "", &line)
    }

    /// Starts the enforcer, also again after it was killed.
    pub fn enforcer(&mut self) -> Result {
        let pid_file = |name: &str, pid: Option<u32>| -> Result<PathBuf> {
            let pid = pid.ok_or_else(|| Error::other(format!("{name} does not run")))?;
            self.file(&format!("{name}.pid"), &format!("{pid}\n"))
        };
        let named = pid_file("named", self.pid("named"))?;
        let haproxy = pid_file("haproxy", self.pid("haproxy"))?;
        let here = self.scratch.path().display().to_string();
        let text = read(&overlay("etc/clawgress/enforcer.toml"))?
            .replace(
                "[reload]\nappliance-init = \"/run/clawgress/reload.sock\"",
                &format!(
                    "[reload.pid-files]\nnamed = \"{}\"\nhaproxy = \"{}\"",
                    named.display(),
                    haproxy.display()
                ),
            )
            .replace("/var/lib/clawgress/revisions", &format!("{here}/revisions"))
            .replace("/var/lib/clawgress/enforcer", &format!("{here}/enforcer"))
            .replace("/var/lib/clawgress/tls", &here)
            .replace(
                "/etc/clawgress/",
                &format!("{}/", overlay("etc/clawgress").display()),
            )
            .replace(
                "/usr/share/clawgress",
                &overlay("usr/share/clawgress").display().to_string(),
            )
            .replace("runtime_group = \"clawgress-front\"\n", "");
        let config = self.file("enforcer.toml", &text)?;
        let line = format!(
            "{} --config {}",
            self.programs.join("clawgress-enforcer").display(),
            config.display()
        );
        // Signals to named and haproxy take the place of appliance-init.
        self.daemon(
            "clawgress-enforcer",
            ENFORCER,
            &[FRONT],
            "net_admin,kill",
            &line,
        )
    }

    pub fn policy(&mut self) -> Result {
        let here = self.scratch.path().display().to_string();
        let shipped = read(&overlay("etc/clawgress/policy.toml"))?;
        let (head, rest) = shipped
            .split_once("units = [")
            .ok_or_else(|| Error::other("policy.toml has no units"))?;
        let (_, tail) = rest
            .split_once(']')
            .ok_or_else(|| Error::other("the units of policy.toml do not end"))?;
        // There is no systemd in the lab; all other questions are asked.
        let text = format!("{head}units = []{tail}")
            .replace("/run/clawgress/init.sock", &format!("{here}/init.sock"))
            .replace("/var/lib/clawgress/revisions", &format!("{here}/revisions"))
            .replace("/var/lib/clawgress/policy", &format!("{here}/policy"))
            .replace("/var/lib/clawgress/tls", &here)
            .replace("/config/clawgress", &format!("{here}/config"))
            .replace("/config/config.boot", &format!("{here}/config.boot"));
        let config = self.file("policy.toml", &text)?;
        let line = format!(
            "{} --config {}",
            self.programs.join("clawgress-policy").display(),
            config.display()
        );
        self.daemon("clawgress-policy", POLICY, &[CLAWGRESS], "", &line)
    }

    /// Starts a daemon under its user with these capabilities and no others.
    fn daemon(
        &mut self,
        name: &str,
        (user, group): (u32, u32),
        groups: &[u32],
        capabilities: &str,
        line: &str,
    ) -> Result {
        let log = self.logs.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .doing("opening", &log)?;
        let errors = output.try_clone().doing("opening", &log)?;
        let mut arguments = self.host.entry();
        let groups = match groups {
            [] => "--clear-groups".to_owned(),
            groups => {
                let list: Vec<String> = groups.iter().map(u32::to_string).collect();
                format!("--groups {}", list.join(","))
            }
        };
        let plus = |capabilities: &str| {
            let list: Vec<String> = capabilities
                .split(',')
                .filter(|word| !word.is_empty())
                .map(|word| format!(",+{word}"))
                .collect();
            format!("-all{}", list.concat())
        };
        let granted = plus(capabilities);
        arguments.extend(words(&format!(
            "setpriv --reuid {user} --regid {group} {groups} --inh-caps {granted} --ambient-caps {granted} \
             --bounding-set {granted} --no-new-privs --pdeathsig KILL --"
        )));
        arguments.extend(words(line));
        let child = process::spawn(&arguments, |command| {
            // As the units of our own daemons say.
            if name.starts_with("clawgress-") {
                command
                    .env("MALLOC_ARENA_MAX", "1")
                    .env("MALLOC_TRIM_THRESHOLD_", "1048576");
            }
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        })?;
        self.daemons.push((name.to_owned(), child));
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).doing("reading", path)
}

fn open_to_all(path: &Path) -> Result {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).doing("opening", path)
}
