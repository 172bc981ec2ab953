//! Owns the making of media for tests: configuration volumes, damaged copies of the ISO, media of another image.
//! It must never write to the image under test.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::dist::Dist;
use crate::error::{Error, IoContext, Result};
use crate::process;

/// A directory for the media of one test; gone with it.
pub struct Shelf {
    directory: TempDir,
}

impl Shelf {
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("clawgress-media-")
            .tempdir()
            .doing("making a scratch directory in", std::env::temp_dir())?;
        Ok(Self { directory })
    }

    /// A volume labelled CLAWGRESS-CFG with this boot configuration.
    pub fn config_volume(&self, config: &str) -> Result<PathBuf> {
        self.iso(
            "config",
            "CLAWGRESS-CFG",
            &[("config.boot", config.as_bytes())],
        )
    }

    /// A medium that looks like ours and holds another image.
    pub fn other_image(&self, dist: &Dist) -> Result<PathBuf> {
        // Of the same version even: only the identity tells them apart.
        let manifest = serde_json::json!({
            "name": "clawgress",
            "version": dist.manifest["version"],
            "base": dist.manifest["base"],
            "flavour": dist.manifest["flavour"],
            "image_id": OTHER_IMAGE_ID,
            "artifacts": [],
        });
        // Four letters by which the kernel and others know a squashfs; a careless search stops here.
        let squashfs = [b"hsqs".as_slice(), &[0; 8188]].concat();
        self.iso(
            "other",
            "CLAWGRESS",
            &[
                ("clawgress/manifest.json", manifest.to_string().as_bytes()),
                ("clawgress/root.squashfs", &squashfs),
            ],
        )
    }

    /// A copy of the ISO in which one byte in the middle of the root filesystem is another.
    pub fn damaged_iso(&self, dist: &Dist) -> Result<PathBuf> {
        let copy = self.directory.path().join("damaged.iso");
        fs::copy(&dist.iso, &copy).doing("copying the ISO to", &copy)?;
        let start = offset_of(&dist.iso, &dist.squashfs)?;
        let size = fs::metadata(&dist.squashfs)
            .doing("looking at", &dist.squashfs)?
            .len();
        flip_byte(&copy, start + size / 2)?;
        Ok(copy)
    }

    /// A copy of the ISO that ends in the middle of the root filesystem, as an interrupted download does.
    pub fn cut_iso(&self, dist: &Dist) -> Result<PathBuf> {
        let copy = self.directory.path().join("cut.iso");
        fs::copy(&dist.iso, &copy).doing("copying the ISO to", &copy)?;
        let start = offset_of(&dist.iso, &dist.squashfs)?;
        let size = fs::metadata(&dist.squashfs)
            .doing("looking at", &dist.squashfs)?
            .len();
        let length = (start + size / 2).next_multiple_of(2048);
        File::options()
            .write(true)
            .open(&copy)
            .and_then(|file| file.set_len(length))
            .doing("cutting", &copy)?;
        Ok(copy)
    }

    /// A disk of zeros, sparse.
    pub fn blank_disk(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        File::create(&path)
            .and_then(|file| file.set_len(bytes))
            .doing("making the blank disk", &path)?;
        Ok(path)
    }

    /// An ISO 9660 volume of these files.
    fn iso(&self, name: &str, label: &str, files: &[(&str, &[u8])]) -> Result<PathBuf> {
        let tree = self.directory.path().join(name);
        for (file, content) in files {
            let path = tree.join(file);
            let parent = path.parent().unwrap_or(&tree);
            fs::create_dir_all(parent).doing("making", parent)?;
            fs::write(&path, content).doing("writing", &path)?;
        }
        let image = self.directory.path().join(format!("{name}.iso"));
        let mut arguments =
            process::words("xorriso -no_rc -as mkisofs -quiet -rational-rock -volid");
        arguments.extend([
            label.to_owned(),
            "-output".to_owned(),
            image.display().to_string(),
            tree.display().to_string(),
        ]);
        process::run(&arguments)?;
        Ok(image)
    }
}

/// The identity on a medium of another image.
pub const OTHER_IMAGE_ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Files lie whole and aligned on an ISO: looks for the first sector of `part`, then compares all of it.
fn offset_of(iso: &Path, part: &Path) -> Result<u64> {
    const SECTOR: usize = 2048;
    let mut wanted = File::open(part).doing("opening", part)?;
    let mut head = [0; SECTOR];
    wanted.read_exact(&mut head).doing("reading", part)?;
    let mut image = File::open(iso).doing("opening", iso)?;
    let mut block = vec![0; SECTOR * 512];
    let mut at = 0_u64;
    loop {
        image.seek(SeekFrom::Start(at)).doing("reading", iso)?;
        let length = read_full(&mut image, &mut block).doing("reading", iso)?;
        let sectors = block[..length].chunks_exact(SECTOR);
        for (index, _) in sectors.enumerate().filter(|(_, sector)| *sector == head) {
            let start = at + (index * SECTOR) as u64;
            if same_content(&mut image, start, &mut wanted).doing("comparing", iso)? {
                return Ok(start);
            }
        }
        if length < block.len() {
            return Err(Error::other(format!(
                "{} does not contain {} in one piece",
                iso.display(),
                part.display()
            )));
        }
        at += length as u64;
    }
}

fn same_content(image: &mut File, start: u64, wanted: &mut File) -> std::io::Result<bool> {
    image.seek(SeekFrom::Start(start))?;
    wanted.seek(SeekFrom::Start(0))?;
    let (mut ours, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let length = read_full(wanted, &mut ours)?;
        if length == 0 {
            return Ok(true);
        }
        let same = read_full(image, &mut theirs[..length])? == length;
        if !same || ours[..length] != theirs[..length] {
            return Ok(false);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}

fn flip_byte(path: &Path, at: u64) -> Result {
    let flip = || -> std::io::Result<()> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut byte)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&[!byte[0]])
    };
    flip().doing("damaging", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_behind_a_false_start() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let (iso, part) = (
            directory.path().join("iso"),
            directory.path().join("squashfs"),
        );
        let content: Vec<u8> = (0..10_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(&part, &content).expect("the part");
        // The first sector stands alone once, before the whole.
        let image = [
            &[0; 4096],
            &content[..2048],
            &[1; 2048],
            &content[..],
            &[2; 5000],
        ]
        .concat();
        fs::write(&iso, image).expect("the image");
        assert_eq!(offset_of(&iso, &part).expect("its place"), 8192);
        flip_byte(&iso, 8192 + 5000).expect("damage");
        assert!(offset_of(&iso, &part).is_err(), "it is no longer there");
    }
}
