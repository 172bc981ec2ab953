//! Looking into one block device: is our medium on it, and if not, what is?
//!
//! Everything is read-only, and what was mounted for a look is unmounted again unless it is ours.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clawgress_initramfs::identity::{
    ImageIdentity, MANIFEST_ON_MEDIUM, Manifest, SQUASHFS_ON_MEDIUM, short_id,
};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::devices::node;
use crate::modload::Loader;
use crate::superblock::{self, Content, FileSystem};

/// What came of looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Our medium, mounted at [`mount_point`].
    Ours(FileSystem),
    /// Not ours, and looking again would not change that.
    Settled(String),
    /// Not readable now; worth another look after the pause.
    Later(String, Duration),
}

/// A drive that loads its disc, a device that another look holds busy: ready any moment.
const SOON: Duration = Duration::from_millis(50);
/// After a read error; each attempt makes the kernel log it.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// No manifest of ours is larger.
const MANIFEST_LIMIT: u64 = 4 << 20;

/// Where a device is mounted while it is being looked at.
pub(crate) fn mount_point(name: &str) -> String {
    format!("{}/probe-{name}", crate::root::INITRAMFS)
}

/// Looks into one device. `taken` is set by whoever finds the medium first: the same image often
/// shows twice, as a whole stick and as its first partition.
pub(crate) fn probe(
    name: &str,
    identity: &ImageIdentity,
    loader: &Loader,
    taken: &AtomicBool,
) -> Outcome {
    let head = match read_head(&node(name)) {
        Ok(head) => head,
        Err(error) => return unreadable(&error),
    };
    if head.is_empty() {
        return Outcome::Settled("empty".to_owned());
    }
    let content = superblock::detect(&head);
    let Content::Known(kind) = content else {
        return Outcome::Settled(content.to_string());
    };
    for module in kind.modules() {
        loader.load(module);
    }
    let target = mount_point(name);
    if let Err(error) = mount_read_only(&node(name), &target, kind) {
        let _ = fs::remove_dir(&target);
        return match error.raw_os_error().map(Errno::from_raw) {
            // The whole disk and its partition exclude each other while one is being looked at.
            Some(Errno::EBUSY) => Outcome::Later(format!("{content}, in use"), SOON),
            Some(Errno::EIO) => {
                Outcome::Later(format!("{content}, mounting it: read error"), AFTER_ERROR)
            }
            _ => Outcome::Settled(format!("{content}, mounting it: {error}")),
        };
    }
    let outcome = match judge(Path::new(&target), kind, identity) {
        Outcome::Ours(_) if taken.swap(true, Ordering::SeqCst) => {
            Outcome::Settled("the same image once more".to_owned())
        }
        other => other,
    };
    if !matches!(outcome, Outcome::Ours(_)) {
        unmount(&target);
    }
    outcome
}

/// Removes a mount made for a look.
pub(crate) fn unmount(target: &str) {
    let _ = umount2(target, MntFlags::MNT_DETACH);
    let _ = fs::remove_dir(target);
}

fn read_head(device: &str) -> io::Result<Vec<u8>> {
    let file = File::open(device)?;
    let mut head = vec![0; superblock::NEEDED];
    let mut have: usize = 0;
    while let Some(rest) = head.get_mut(have..)
        && !rest.is_empty()
    {
        match file.read_at(rest, have as u64) {
            Ok(0) => break,
            Ok(more) => have = have.saturating_add(more),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(have);
    Ok(head)
}

fn unreadable(error: &io::Error) -> Outcome {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOMEDIUM) => Outcome::Later("no medium in the drive".to_owned(), SOON),
        Some(Errno::EIO) => Outcome::Later("read error".to_owned(), AFTER_ERROR),
        // The node may come a moment after the announcement, and some drives answer ENXIO or
        // EBUSY until they are ready.
        _ => Outcome::Later(format!("can't be opened: {error}"), SOON),
    }
}

fn mount_read_only(device: &str, target: &str, kind: FileSystem) -> io::Result<()> {
    fs::create_dir_all(target)?;
    mount(
        Some(device),
        target,
        Some(kind.name()),
        MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        kind.options(),
    )?;
    Ok(())
}

/// Reads the manifest of a mounted medium and compares it with what is sought.
fn judge(medium: &Path, kind: FileSystem, identity: &ImageIdentity) -> Outcome {
    let kind_name = kind.name();
    let mut text = Vec::new();
    let read = File::open(medium.join(MANIFEST_ON_MEDIUM))
        .and_then(|file| file.take(MANIFEST_LIMIT).read_to_end(&mut text));
    if let Err(error) = read {
        return match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTDIR) => {
                Outcome::Settled(format!("{kind_name}, no {MANIFEST_ON_MEDIUM}"))
            }
            Some(Errno::EIO) => Outcome::Later(
                format!("{kind_name}, {MANIFEST_ON_MEDIUM}: read error"),
                AFTER_ERROR,
            ),
            _ => Outcome::Settled(format!("{kind_name}, {MANIFEST_ON_MEDIUM}: {error}")),
        };
    }
    match serde_json::from_slice::<Manifest>(&text) {
        Ok(manifest) if manifest.name != "clawgress" => Outcome::Settled(format!(
            "{kind_name}, {MANIFEST_ON_MEDIUM} is that of {:?}",
            clean(&manifest.name)
        )),
        Ok(manifest) if manifest.image_id != identity.image_id => Outcome::Settled(format!(
            "Clawgress {}, image {}: another image",
            clean(&manifest.version),
            clean(short_id(&manifest.image_id))
        )),
        Ok(manifest) => match fs::symlink_metadata(medium.join(SQUASHFS_ON_MEDIUM)) {
            Ok(found) if found.is_file() && found.len() == identity.squashfs.size => {
                Outcome::Ours(kind)
            }
            // Only its name is right: another copy elsewhere may be whole.
            Ok(found) => Outcome::Settled(format!(
                "Clawgress {}, this image, but its {SQUASHFS_ON_MEDIUM} has {} bytes instead of {}",
                clean(&manifest.version),
                found.len(),
                identity.squashfs.size
            )),
            Err(error) => Outcome::Settled(format!(
                "Clawgress {}, this image, but its {SQUASHFS_ON_MEDIUM} can't be read: {error}",
                clean(&manifest.version)
            )),
        },
        Err(error) => Outcome::Settled(format!(
            "{kind_name}, {MANIFEST_ON_MEDIUM} can't be understood: {error}"
        )),
    }
}

/// A stranger's medium must not write control characters or novels to the console.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(40)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medium(manifest: Option<&str>) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        if let Some(manifest) = manifest {
            fs::create_dir(directory.path().join("clawgress")).unwrap();
            fs::write(directory.path().join(MANIFEST_ON_MEDIUM), manifest).unwrap();
        }
        directory
    }

    fn verdict(manifest: Option<&str>) -> Outcome {
        let identity = ImageIdentity::from_bytes("0.1.0", b"root").unwrap();
        judge(medium(manifest).path(), FileSystem::Iso9660, &identity)
    }

    fn settled(manifest: Option<&str>) -> String {
        match verdict(manifest) {
            Outcome::Settled(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_same_image_is_ours() {
        let identity = ImageIdentity::from_bytes("0.1.0", b"root").unwrap();
        let ours = format!(
            r#"{{"name":"clawgress","version":"0.1.0","image_id":"{}"}}"#,
            identity.image_id
        );
        let directory = medium(Some(&ours));
        let judged = || judge(directory.path(), FileSystem::Iso9660, &identity);
        let said = |words: &str| match judged() {
            Outcome::Settled(reason) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        };
        // The name alone does not make a medium: another one may hold the whole image.
        said("can't be read");
        fs::write(directory.path().join(SQUASHFS_ON_MEDIUM), b"roo").unwrap();
        said("3 bytes instead of 4");
        fs::write(directory.path().join(SQUASHFS_ON_MEDIUM), b"root").unwrap();
        assert_eq!(judged(), Outcome::Ours(FileSystem::Iso9660));
    }

    #[test]
    fn everything_else_says_what_it_is() {
        assert_eq!(settled(None), "iso9660, no clawgress/manifest.json");
        assert_eq!(
            settled(Some(
                r#"{"name":"clawgress","version":"0.0.9","image_id":"12ab12ab12ab12ab12ab"}"#
            )),
            "Clawgress 0.0.9, image 12ab12ab12ab12ab: another image"
        );
        assert_eq!(
            settled(Some(
                r#"{"name":"x\u001b[2J","version":"1","image_id":"é"}"#
            )),
            "iso9660, clawgress/manifest.json is that of \"x?[2J\""
        );
        assert!(settled(Some("{\"name\":")).contains("can't be understood"));
    }

    #[test]
    fn a_drive_without_disc_is_looked_at_again() {
        let error = io::Error::from(Errno::ENOMEDIUM);
        assert_eq!(
            unreadable(&error),
            Outcome::Later("no medium in the drive".to_owned(), SOON)
        );
        assert!(matches!(
            unreadable(&io::Error::from(Errno::EIO)),
            Outcome::Later(_, AFTER_ERROR)
        ));
    }

    #[test]
    fn a_head_shorter_than_wanted_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("short");
        fs::write(&path, b"abc").unwrap();
        assert_eq!(read_head(path.to_str().unwrap()).unwrap(), b"abc");
    }
}
