//! The build cache: entries keyed by everything that determines them, under the user's cache directory. An
//! entry carries its own digest, so that a truncated or edited one is rebuilt and never used. It may vanish
//! at any time; nothing is ever found under a final name before it is whole.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::progress::Step;

pub(crate) fn directory() -> Result<PathBuf> {
    let root = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME says where the cache may be: set HOME")?;
    let directory = root.join("clawgress");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("creating the cache directory {}", directory.display()))?;
    Ok(directory)
}

/// Collects what determines an entry.
#[derive(Default)]
pub(crate) struct Key(Sha256);

impl Key {
    pub(crate) fn add(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    pub(crate) fn finish(self) -> String {
        hex(&self.0.finalize())[..32].to_owned()
    }
}

/// The file of the entry `name` with `key`: a good cached one, or what `make` now writes.
pub(crate) fn entry(
    name: &str,
    extension: &str,
    key: Key,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let directory = directory()?;
    let path = directory.join(format!("{name}-{}.{extension}", key.finish()));
    let seal = path.with_added_extension("sha256");
    if path.exists() {
        if is_whole(&path, &seal)? {
            return Ok(path);
        }
        eprintln!(
            "  the cache entry {} is damaged: making it anew",
            path.display()
        );
        std::fs::remove_file(&path).ok();
    }
    std::fs::remove_file(&seal).ok();
    let scratch = tempfile::Builder::new()
        .prefix(".partial-")
        .suffix(&format!(".{extension}"))
        .tempfile_in(&directory)
        .with_context(|| format!("creating a scratch file in {}", directory.display()))?
        .into_temp_path();
    make(&scratch)?;
    let digest = digest_of(&scratch)?;
    File::open(&scratch)?.sync_all()?;
    atomic_write(&seal, digest.as_bytes())?;
    scratch
        .persist(&path)
        .with_context(|| format!("naming the cache entry {}", path.display()))?;
    Ok(path)
}

fn is_whole(path: &Path, seal: &Path) -> Result<bool> {
    let Ok(wanted) = std::fs::read_to_string(seal) else {
        return Ok(false);
    };
    Ok(digest_of(path)? == wanted)
}

/// Writes a file so that its final name holds all of it or nothing.
pub(crate) fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().context("a file needs a directory")?;
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let mut scratch = tempfile::Builder::new()
            .prefix(".partial-")
            .tempfile_in(directory)?;
        scratch.write_all(bytes)?;
        scratch.as_file().sync_all()?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        scratch.as_file().set_permissions(mode)?;
        scratch.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

pub(crate) fn digest_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file
            .read(&mut buffer)
            .with_context(|| format!("reading {}", path.display()))?;
        if read == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Removes every entry; says how many bytes that freed.
pub(crate) fn clear() -> Result<u64> {
    let directory = directory()?;
    let step = Step::begin("clearing the cache");
    let mut freed = 0;
    for entry in std::fs::read_dir(&directory)? {
        let entry = entry?;
        let data = entry.metadata()?;
        if data.is_file() {
            freed += data.len();
            std::fs::remove_file(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    step.done(crate::progress::size(freed));
    Ok(freed)
}
