//! The whole way from a base file to `dist/`: each step once, in order, and nothing under a final name before all is whole.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clawgress_initramfs::identity::ImageIdentity;

use crate::base::{Base, Flavour};
use crate::binaries::{self, Built, project_root};
use crate::boot_loader;
use crate::cache::{self, Key};
use crate::fetch::{self, Set};
use crate::initrd;
use crate::iso::{self, Content};
use crate::manifest::{self, Manifest, Source};
use crate::progress::Step;
use crate::squash::{self, PACKING};
use crate::tree::Tree;
use crate::{checks, root};

/// A finished image.
#[derive(Debug, Clone)]
pub(crate) struct Dist {
    pub(crate) directory: PathBuf,
    pub(crate) manifest: Manifest,
    /// What the image builder itself needed, cargo's time not counted; `None` if nothing was stale.
    pub(crate) own_time: Option<Duration>,
}

impl Dist {
    pub(crate) fn iso(&self) -> PathBuf {
        self.directory
            .join(iso_name(&self.manifest.base, &self.manifest.flavour))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn iso_name(base: &str, flavour: &str) -> String {
    format!(
        "clawgress-{}-{base}-{flavour}.iso",
        env!("CARGO_PKG_VERSION")
    )
}

/// Builds what is stale of the image, under the project's `dist/`.
pub(crate) fn image(base: &Base, flavour: Flavour) -> Result<Dist> {
    let built = binaries::build()?;
    let directory = project_root()
        .join("dist")
        .join(env!("CARGO_PKG_VERSION"))
        .join(format!("{}-{flavour}", base.name));
    image_at(base, flavour, &built, &Source::read()?, &directory)
}

/// As [`image`], from these programs and this source state, into `directory`.
pub(crate) fn image_at(
    base: &Base,
    flavour: Flavour,
    built: &Built,
    source: &Source,
    directory: &Path,
) -> Result<Dist> {
    let started = Instant::now();
    let tar = fetch::tar(base, &Set::Root(flavour))?;
    let stamp = stamp(&tar, base, flavour, built, source)?;
    if let Some(manifest) = fresh(directory, &stamp) {
        return Ok(Dist {
            directory: directory.to_path_buf(),
            manifest,
            own_time: None,
        });
    }
    std::fs::create_dir_all(directory)
        .with_context(|| format!("creating {}", directory.display()))?;
    // From here on the directory is not whole: it says so by lacking its manifest.
    std::fs::remove_file(directory.join("manifest.json")).ok();

    let step = Step::begin("reading the base");
    let mut tree = Tree::read(std::io::BufReader::with_capacity(
        1 << 20,
        File::open(&tar)?,
    ))?;
    step.done(base.title.clone());
    let kernel = root::kernel(&tree)?;
    let rescue = root::compose(&mut tree, base, &built.programs, source)?;
    checks::check(&tree, base, &kernel.release)?;
    let packages = manifest::packages(&tree)?;

    let place = Place { directory };
    place.make("root.squashfs", |path| {
        squash::write(&tree, path, source.epoch, PACKING)?;
        squash::verify(&tree, path)
    })?;
    let squashfs = directory.join("root.squashfs");
    let identity = ImageIdentity::from_reader(env!("CARGO_PKG_VERSION"), File::open(&squashfs)?)
        .with_context(|| format!("hashing {}", squashfs.display()))?;
    let init = built
        .programs
        .iter()
        .find(|program| program.name == "init")
        .context("no /init was built")?;
    let modules = &base.kernel(flavour)?.initramfs;
    let initramfs = initrd::make(
        &tree,
        &kernel.release,
        modules,
        &init.bytes,
        &rescue,
        &identity,
        source.epoch,
    )?;
    place.put("initrd.img", &initramfs)?;
    place.put("vmlinuz", &kernel.image)?;

    let mut manifest = Manifest {
        name: "clawgress".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        base: base.name.clone(),
        flavour: flavour.to_string(),
        image_id: identity.image_id.clone(),
        commit: source.commit.clone(),
        kernel: kernel.release.clone(),
        built: source.epoch,
        artifacts: ["root.squashfs", "initrd.img", "vmlinuz"]
            .iter()
            .map(|name| manifest::artifact(&directory.join(name)))
            .collect::<Result<_>>()?,
        packages,
    };
    let on_medium = pretty(&manifest)?;
    let boot = boot_loader::cached(base, &identity.image_id, source.epoch)?;
    let marker = boot_loader::marker(&identity.image_id);
    let menu = boot_loader::menu(env!("CARGO_PKG_VERSION"), &base.name);
    let name = iso_name(&base.name, &flavour.to_string());
    place.make(&name, |path| {
        let files = [
            ("clawgress/root.squashfs", Content::File(&squashfs)),
            (
                "clawgress/manifest.json",
                Content::Bytes(on_medium.as_bytes()),
            ),
            ("clawgress/vmlinuz", Content::Bytes(&kernel.image)),
            ("clawgress/initrd.img", Content::Bytes(&initramfs)),
            (
                marker.as_str(),
                Content::Bytes(identity.image_id.as_bytes()),
            ),
            ("boot/grub/grub.cfg", Content::Bytes(menu.as_bytes())),
        ];
        iso::write(path, &files, &boot, "CLAWGRESS", source.epoch)
    })?;
    manifest
        .artifacts
        .push(manifest::artifact(&directory.join(&name))?);
    place.put(".inputs", stamp.as_bytes())?;
    // Last: its presence says that all it names is there.
    place.put("manifest.json", pretty(&manifest)?.as_bytes())?;
    Ok(Dist {
        directory: directory.to_path_buf(),
        manifest,
        own_time: Some(started.elapsed()),
    })
}

fn pretty(manifest: &Manifest) -> Result<String> {
    Ok(serde_json::to_string_pretty(manifest)? + "\n")
}

/// Everything that determines the image.
fn stamp(
    tar: &Path,
    base: &Base,
    flavour: Flavour,
    built: &Built,
    source: &Source,
) -> Result<String> {
    let own = std::env::current_exe().context("finding the image builder itself")?;
    let mut key = Key::default()
        .add("image 1")
        .add(&base.name)
        .add(flavour.to_string())
        .add(std::fs::read_to_string(tar.with_added_extension("sha256")).unwrap_or_default())
        .add(root::overlay_digest()?)
        .add(cache::digest_of(&own)?)
        .add(source.epoch.to_le_bytes())
        .add(source.commit.as_deref().unwrap_or("none"));
    for program in &built.programs {
        key = key.add(program.name).add(&program.bytes);
    }
    Ok(key.finish())
}

/// The manifest of a directory that holds this very image, whole.
fn fresh(directory: &Path, stamp: &str) -> Option<Manifest> {
    let known = std::fs::read_to_string(directory.join(".inputs")).ok()?;
    if known != stamp {
        return None;
    }
    let manifest: Manifest =
        serde_json::from_str(&std::fs::read_to_string(directory.join("manifest.json")).ok()?)
            .ok()?;
    let whole = manifest.artifacts.iter().all(|wanted| {
        manifest::artifact(&directory.join(&wanted.name)).is_ok_and(|found| found == *wanted)
    });
    whole.then_some(manifest)
}

/// Puts artifacts under their final names only when they are whole.
struct Place<'a> {
    directory: &'a Path,
}

impl Place<'_> {
    fn make(&self, name: &str, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let scratch = tempfile::Builder::new()
            .prefix(".partial-")
            .tempfile_in(self.directory)
            .with_context(|| format!("creating a scratch file in {}", self.directory.display()))?
            .into_temp_path();
        write(&scratch)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&scratch, mode)?;
        let path = self.directory.join(name);
        scratch
            .persist(&path)
            .with_context(|| format!("naming {}", path.display()))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        cache::atomic_write(&self.directory.join(name), bytes)
    }
}
