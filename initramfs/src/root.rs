//! The new root: squashfs below, tmpfs above, `/usr` read-only; and the passage into it.
//!
//! What stays of the initramfs lies under `/run/initramfs`, because systemd leaves everything
//! mounted there alone until the very end: it must not try to unmount what the root stands on.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::{chdir, chroot, dup2_stderr, dup2_stdin, dup2_stdout};

use crate::failure::Failure;
use crate::loopdev;

/// Where the parts of the root are mounted, now and after the switch.
pub(crate) const INITRAMFS: &str = "/run/initramfs";
const NEW_ROOT: &str = "/newroot";
/// What the kernel unpacks an initramfs into when it was given a `root=`; nix does not name it.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
const NOTHING: Option<&str> = None;

/// Init programs of the new root, best first.
const INITS: [&str; 2] = ["/usr/lib/systemd/systemd", "/sbin/init"];

/// A part of the root by the name under which others may rely on it (`/run/clawgress/<part>`).
fn part(name: &str) -> String {
    format!("{INITRAMFS}/{name}")
}

fn failed(doing: impl Into<String>, error: impl std::fmt::Display) -> Failure {
    Failure::of_step(doing, error)
        .advice("Start the machine again; if this happens again, write the medium anew.")
}

/// The file systems that every later step needs.
pub(crate) fn mount_kernel_file_systems() -> Result<(), Failure> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for (kind, target, flags, options) in [
        ("proc", "/proc", safe, None),
        ("sysfs", "/sys", safe, None),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID, Some("mode=755")),
        // As systemd would mount it, which keeps this one.
        (
            "tmpfs",
            "/run",
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_STRICTATIME,
            Some("mode=755,size=20%,nr_inodes=800k"),
        ),
    ] {
        mount(Some(kind), target, Some(kind), flags, options)
            .map_err(|error| failed(format!("mounting {kind} on {target}"), error))?;
    }
    for directory in [INITRAMFS, "/run/clawgress"] {
        fs::create_dir_all(directory)
            .map_err(|error| failed(format!("creating {directory}"), error))?;
    }
    Ok(())
}

/// Gives the mounted medium its lasting place and answers it.
pub(crate) fn keep_medium(mounted_at: &str) -> Result<String, Failure> {
    let target = part("medium");
    fs::create_dir_all(&target).map_err(|error| failed(format!("creating {target}"), error))?;
    mount(
        Some(mounted_at),
        target.as_str(),
        NOTHING,
        MsFlags::MS_MOVE,
        NOTHING,
    )
    .map_err(|error| failed(format!("moving {mounted_at} to {target}"), error))?;
    let _ = fs::remove_dir(mounted_at);
    Ok(target)
}

/// Builds the new root on the squashfs in `file`, which has been checked.
pub(crate) fn assemble(file: &File) -> Result<(), Failure> {
    let attached = loopdev::attach(file)
        .map_err(|error| failed("attaching the squashfs to a loop device", error))?;
    let (lower, rw) = (part("lower"), part("rw"));
    let own = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    new_mount(
        &attached.device,
        &lower,
        "squashfs",
        MsFlags::MS_RDONLY | MsFlags::MS_NODEV,
        None,
    )?;
    new_mount("tmpfs", &rw, "tmpfs", own, Some("mode=755,size=40%"))?;
    let (upper, work) = (format!("{rw}/upper"), format!("{rw}/work"));
    for directory in [&upper, &work] {
        fs::create_dir(directory)
            .map_err(|error| failed(format!("creating {directory}"), error))?;
    }
    let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    new_mount(
        "overlay",
        NEW_ROOT,
        "overlay",
        MsFlags::empty(),
        Some(&layers),
    )?;

    // The programs themselves can't be overlaid, by nobody.
    let (usr, target) = (format!("{lower}/usr"), format!("{NEW_ROOT}/usr"));
    mount(
        Some(usr.as_str()),
        target.as_str(),
        NOTHING,
        MsFlags::MS_BIND,
        NOTHING,
    )
    .map_err(|error| failed(format!("binding {usr} to {target}"), error))?;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(NOTHING, target.as_str(), NOTHING, read_only, NOTHING)
        .map_err(|error| failed(format!("making {target} read-only"), error))?;

    for name in ["medium", "lower", "rw"] {
        let link = format!("/run/clawgress/{name}");
        symlink(format!("../initramfs/{name}"), &link)
            .map_err(|error| failed(format!("creating {link}"), error))?;
    }
    Ok(())
}

fn new_mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), Failure> {
    fs::create_dir_all(target).map_err(|error| failed(format!("creating {target}"), error))?;
    mount(Some(source), target, Some(kind), flags, options)
        .map_err(|error| failed(format!("mounting {kind} {source} on {target}"), error))
}

/// Leaves the initramfs for the new root. Comes back only if that fails.
pub(crate) fn enter() -> Failure {
    match prepare_and_exec() {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn prepare_and_exec() -> Result<std::convert::Infallible, Failure> {
    let inits: Vec<&str> = INITS
        .into_iter()
        .filter(|init| fs::symlink_metadata(format!("{NEW_ROOT}{init}")).is_ok())
        .collect();
    if inits.is_empty() {
        return Err(failed(
            "entering the new root",
            format!("it has none of {}", INITS.join(", ")),
        ));
    }
    for directory in ["dev", "proc", "run", "sys"] {
        let target = format!("{NEW_ROOT}/{directory}");
        fs::create_dir_all(&target).map_err(|error| failed(format!("creating {target}"), error))?;
        let source = format!("/{directory}");
        mount(
            Some(source.as_str()),
            target.as_str(),
            NOTHING,
            MsFlags::MS_MOVE,
            NOTHING,
        )
        .map_err(|error| failed(format!("moving {source} to {target}"), error))?;
    }
    chdir(NEW_ROOT).map_err(|error| failed(format!("entering {NEW_ROOT}"), error))?;
    free_initramfs();
    mount(Some("."), "/", NOTHING, MsFlags::MS_MOVE, NOTHING)
        .map_err(|error| failed(format!("moving {NEW_ROOT} to /"), error))?;
    chroot(".").map_err(|error| failed("changing the root to the new root", error))?;
    chdir("/").map_err(|error| failed("entering the new root", error))?;
    reopen_console();

    let mut reasons = Vec::new();
    for init in inits {
        let error = Command::new(init).arg0("/sbin/init").exec();
        reasons.push(format!("{init}: {error}"));
    }
    Err(failed(
        "starting the init of the new root",
        reasons.join("; "),
    ))
}

/// The standard streams still point at the initramfs's own node.
fn reopen_console() {
    if let Ok(console) = File::options().read(true).write(true).open("/dev/console") {
        let _ = dup2_stdin(&console);
        let _ = dup2_stdout(&console);
        let _ = dup2_stderr(&console);
    }
}

/// Gives back the memory that the initramfs occupies. Deletes only if `/` really is one.
fn free_initramfs() {
    let root = Path::new("/");
    let in_memory =
        statfs(root).is_ok_and(|s| [RAMFS_MAGIC, TMPFS_MAGIC].contains(&s.filesystem_type()));
    if in_memory
        && root.join("init").exists()
        && let Ok(metadata) = fs::metadata(root)
    {
        let _ = delete_below(root, metadata.dev());
    }
}

/// Deletes everything below a directory that lies on the same device.
fn delete_below(directory: &Path, device: u64) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            let _ = delete_below(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleting_follows_no_link_and_leaves_no_file() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "x").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        symlink(outside.path(), inner.join("link")).unwrap();
        let device = fs::metadata(directory.path()).unwrap().dev();

        delete_below(directory.path(), device + 1).unwrap();
        assert!(inner.join("file").exists(), "another device is not touched");

        delete_below(directory.path(), device).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }
}
