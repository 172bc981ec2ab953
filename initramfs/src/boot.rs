//! The boot, step by step: drivers, medium, check, root.
//!
//! Only the order lives here; each step is in the module that it calls.

use std::fs::{self, File};
use std::sync::Arc;

use clawgress_initramfs::identity::{IDENTITY_PATH, ImageIdentity, SQUASHFS_ON_MEDIUM};

use crate::cmdline::{CommandLine, Rescue};
use crate::console::{Level, log};
use crate::failure::{Failure, image};
use crate::modload::Loader;
use crate::search::{Found, NotFound, Search};
use crate::timing::{self, Medium, Report, Timeline};
use crate::uevent::Listener;
use crate::{devices, probe, root, stop, verify};

/// What mounting the image needs, whatever the medium is.
const IMAGE_MODULES: [&str; 3] = ["loop", "squashfs", "overlay"];

/// Boots. Comes back only if that fails. Leaves the command line in `line` as soon as it is
/// known, because stopping depends on it.
pub(crate) fn run(line: &mut CommandLine) -> Failure {
    match steps(line) {
        Ok(()) => root::enter(),
        Err(failure) => failure,
    }
}

fn steps(line: &mut CommandLine) -> Result<(), Failure> {
    let mut timeline = Timeline::start();
    root::mount_kernel_file_systems()?;
    *line = crate::cmdline::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
    for complaint in &line.complaints {
        log(Level::Warning, complaint);
    }
    let identity = Arc::new(read_identity()?);
    let loader = Arc::new(Loader::open(line)?);
    timeline.done("prepare");

    // Listening comes before the first look at any device.
    let listener = Listener::open()
        .inspect_err(|error| {
            log(
                Level::Warning,
                &format!("listening for devices: {error}; looking again and again instead"),
            );
        })
        .ok();
    let mut search = Search::start(Arc::clone(&identity), Arc::clone(&loader))
        .map_err(|error| Failure::of_step("starting the search for the medium", error))?;
    let image_modules = {
        let loader = Arc::clone(&loader);
        let load = move || {
            for module in IMAGE_MODULES {
                loader.load(module);
            }
        };
        std::thread::Builder::new().spawn(load)
    };
    let found = search
        .run(listener, line.wait)
        .map_err(|reason| not_found(reason, &identity, &loader, line))?;
    let device = devices::node(&found.name);
    let searched = timeline.done("search");

    let medium = root::keep_medium(&probe::mount_point(&found.name))?;
    let squashfs = check(
        &format!("{medium}/{SQUASHFS_ON_MEDIUM}"),
        &device,
        &identity,
    )?;
    let checked = timeline.done("check");
    log(
        Level::Info,
        &format!(
            "{} on {device}: found in {searched} ms, checked in {checked} ms",
            image(&identity)
        ),
    );

    match image_modules {
        Ok(thread) => drop(thread.join()),
        // Too little memory for a thread: then here.
        Err(_) => drop(IMAGE_MODULES.map(|module| loader.load(module))),
    }
    root::assemble(&squashfs).map_err(|failure| {
        let complaints = loader.complaints();
        complaints.into_iter().fold(failure, Failure::found)
    })?;
    search.finish();
    timeline.done("root");
    leave_report(&identity, &found, &device, &timeline, &loader);
    if line.rescue == Rescue::BeforeSwitch {
        stop::shell_before_switch();
    }
    Ok(())
}

fn read_identity() -> Result<ImageIdentity, Failure> {
    let failed = |error: String| {
        Failure::of_step(format!("reading {IDENTITY_PATH} of the initramfs"), error)
            .sought("the identity of the image that this initramfs belongs to")
            .advice("The initramfs is damaged or was built wrongly: write the medium again.")
    };
    let text = fs::read(IDENTITY_PATH).map_err(|error| failed(error.to_string()))?;
    let identity: ImageIdentity =
        serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    match identity.defect() {
        Some(defect) => Err(failed(defect)),
        None => Ok(identity),
    }
}

/// Opens and checks the squashfs; the file answered is the one that was checked.
fn check(path: &str, device: &str, identity: &ImageIdentity) -> Result<File, Failure> {
    let damaged = |found: String| {
        Failure {
            what: format!("the image on {device} is damaged"),
            ..Failure::default()
        }
        .sought(format!("{} in /{SQUASHFS_ON_MEDIUM}", image(identity)))
        .found(found)
        .advice("Write the medium again from an ISO whose checksum is right.")
        .advice("If that does not help, take another stick, drive, cable or port.")
    };
    let file = File::open(path)
        .map_err(|error| damaged(format!("{device}: /{SQUASHFS_ON_MEDIUM}: {error}")))?;
    verify::verify(&file, &identity.squashfs)
        .map_err(|error| damaged(format!("{device}: /{SQUASHFS_ON_MEDIUM}: {error}")))?;
    Ok(file)
}

fn not_found(
    reason: NotFound,
    identity: &ImageIdentity,
    loader: &Loader,
    line: &CommandLine,
) -> Failure {
    let devices = match reason {
        NotFound::Broken(error) => {
            return Failure::of_step("waiting for devices", error)
                .advice("Start the machine again.");
        }
        NotFound::Devices(devices) => devices,
    };
    let seconds = line.wait.as_secs();
    let mut failure = Failure {
        what: format!("its medium was not found within {seconds} s"),
        ..Failure::default()
    }
    .sought(format!(
        "{} on any CD, stick or disk (iso9660, vfat, ext4)",
        image(identity)
    ));
    if devices.is_empty() {
        failure = failure.found("no CD drive, stick or disk at all");
    }
    for (device, reason) in devices {
        failure = failure.found(format!("{device}: {reason}"));
    }
    for line in devices::controllers_without_driver()
        .into_iter()
        .chain(loader.complaints())
    {
        failure = failure.found(line);
    }
    failure
        .advice("Attach the medium that this kernel was started from, and start again.")
        .advice("If it is attached: write it anew; kernel and image must be of one build.")
        .advice(format!(
            "If it is slow to appear: clawgress.wait=SECONDS on the kernel command line \
             (now {seconds})."
        ))
}

/// Its absence would harm nothing but the record, so it never stops the boot.
fn leave_report(
    identity: &ImageIdentity,
    found: &Found,
    device: &str,
    timeline: &Timeline,
    loader: &Loader,
) {
    let report = Report {
        version: &identity.version,
        image_id: &identity.image_id,
        medium: Medium {
            device,
            filesystem: found.kind.name(),
        },
        steps: timeline.steps(),
        complaints: &loader.complaints(),
    };
    if let Err(error) = timing::write(&report) {
        log(
            Level::Warning,
            &format!("writing /run/clawgress/initramfs.json: {error}"),
        );
    }
}
