//! A medium that is damaged, wrong or missing: the box says which image was sought, what was found where and what
//! to do, and then stops.

use std::time::Duration;

use qemu_tests::machine::{Attach, Machine};
use qemu_tests::media::{OTHER_IMAGE_ID, Shelf};
use qemu_tests::vm::Vm;
use qemu_tests::{Case, Dist, Result, case, require};
use serde_json::json;

use crate::every_step_is_ok;

/// From power-on to the message, beyond the wait that the command line sets.
const LIMIT: Duration = Duration::from_secs(20);
const WAIT: &str = "clawgress.wait=5";

#[test]
fn a_damaged_root_is_refused() {
    case("media-damaged", |case| {
        let (dist, shelf) = (Dist::from_env()?, Shelf::new()?);
        let iso = shelf.damaged_iso(&dist)?;
        let mut vm = Machine::kernel_only(&dist)
            .medium(Attach::Cd, &iso)
            .power_on(case)?;
        stops_and_says(
            case,
            &mut vm,
            &dist,
            &[
                "the image on /dev/sr0 is damaged",
                "/clawgress/root.squashfs",
                "Write the medium again from an ISO whose checksum is right.",
            ],
        )
    });
}

#[test]
fn a_medium_cut_short_is_refused() {
    case("media-cut", |case| {
        let (dist, shelf) = (Dist::from_env()?, Shelf::new()?);
        let iso = shelf.cut_iso(&dist)?;
        let mut vm = Machine::kernel_only(&dist)
            .medium(Attach::Virtio, &iso)
            .power_on(case)?;
        stops_and_says(
            case,
            &mut vm,
            &dist,
            &["the image on /dev/vda is damaged", "Write the medium again"],
        )
    });
}

#[test]
fn a_missing_medium_is_named_after_the_wait() {
    case("media-missing", |case| {
        let (dist, shelf) = (Dist::from_env()?, Shelf::new()?);
        let blank = shelf.blank_disk("blank", 64 << 20)?;
        let mut vm = Machine::kernel_only(&dist)
            .medium(Attach::Virtio, &blank)
            .kernel_argument(WAIT)
            .power_on(case)?;
        stops_and_says(
            case,
            &mut vm,
            &dist,
            &[
                "its medium was not found within 5 s",
                "/dev/vda:",
                "Attach the medium that this kernel was started from",
                "clawgress.wait=SECONDS",
            ],
        )
    });
}

#[test]
fn a_medium_of_another_image_is_not_taken_for_ours() {
    case("media-other", |case| {
        let (dist, shelf) = (Dist::from_env()?, Shelf::new()?);
        let other = shelf.other_image(&dist)?;
        let mut vm = Machine::kernel_only(&dist)
            .medium(Attach::Cd, &other)
            .kernel_argument(WAIT)
            .power_on(case)?;
        stops_and_says(
            case,
            &mut vm,
            &dist,
            &[
                "its medium was not found within 5 s",
                "/dev/sr0:",
                &OTHER_IMAGE_ID[..16],
                "another image",
            ],
        )
    });
}

#[test]
fn the_right_medium_is_found_beside_a_wrong_one() {
    case("media-beside", |case| {
        let (dist, shelf) = (Dist::from_env()?, Shelf::new()?);
        let other = shelf.other_image(&dist)?;
        let blank = shelf.blank_disk("blank", 64 << 20)?;
        let mut vm = Machine::kernel_only(&dist)
            .medium(Attach::Cd, &other)
            .medium(Attach::Virtio, &blank)
            .medium(Attach::Sata, &dist.iso)
            .power_on(case)?;
        let report = case.step("it reaches enforcing", || vm.wait_enforcing())?;
        every_step_is_ok(&report)?;
        let said = vm.run_ok("dmesg | grep 'clawgress-init:.* on /dev/'")?;
        require!(said.contains(" on /dev/sd"), "init said: {said}");
        Ok(())
    });
}

#[cfg(feature = "full")]
mod full {
    use super::*;

    #[test]
    fn a_box_told_so_restarts_a_minute_after_the_message() {
        case("media-restart", |case| {
            let dist = Dist::from_env()?;
            let mut vm = Machine::kernel_only(&dist)
                .kernel_argument(WAIT)
                .kernel_argument("clawgress.onfail=reboot")
                .power_on(case)?;
            vm.wait_for("Clawgress can't start", LIMIT)?;
            vm.wait_for("The machine restarts in 60 seconds", LIMIT)?;
            let said = std::time::Instant::now();
            vm.qmp().forget_events()?;
            case.step("it restarts", || vm.wait_for_reset(Duration::from_secs(30)))?;
            let waited = said.elapsed();
            require!(
                waited > Duration::from_secs(50),
                "it restarted after only {waited:?}: nobody can read that fast"
            );
            case.step("and tries again", || {
                vm.wait_for("Clawgress can't start", LIMIT)
            })
        });
    }

    #[test]
    fn a_medium_that_comes_late_is_found() {
        case("media-late", |case| {
            let dist = Dist::from_env()?;
            let mut vm = Machine::kernel_only(&dist).hot_plug().power_on(case)?;
            vm.wait_for("Run /init", LIMIT)?;
            std::thread::sleep(Duration::from_secs(5));
            vm.plug_virtio_disk(&dist.iso)?;
            case.step("it reaches enforcing", || vm.wait_enforcing())
                .map(drop)
        });
    }

    #[test]
    fn a_rescue_shell_comes_only_when_asked_for() {
        case("media-rescue", |case| {
            let dist = Dist::from_env()?;
            let vm = Machine::kernel_only(&dist)
                .kernel_argument(WAIT)
                .kernel_argument("clawgress.rescue")
                .power_on(case)?;
            vm.wait_for("A rescue shell follows", LIMIT)?;
            vm.serial().send("echo the-answer-is-$((6*7))\n")?;
            vm.wait_for("the-answer-is-42", LIMIT)
        });
    }
}

/// The message has every word that an operator needs, and the machine stands still without a panic.
fn stops_and_says(case: &Case, vm: &mut Vm, dist: &Dist, words: &[&str]) -> Result {
    case.step("it says that it can't start", || {
        vm.wait_for("Clawgress can't start:", LIMIT)
    })?;
    case.step("it says that it has stopped", || {
        vm.wait_for("Stopped.", LIMIT)
    })?;
    let text = vm.serial().text();
    let at = text.find("Clawgress can't start:").unwrap_or(0);
    let message = &text[at..];
    let version = dist.manifest_text("version")?;
    let image = &dist.manifest_text("image_id")?[..16];
    let sought = format!("Clawgress {version}, image {image}");
    for wanted in words
        .iter()
        .copied()
        .chain(["Sought:", "Found:", "To do:", &sought])
    {
        case.check(&format!("it says {wanted:?}"), || {
            require!(message.contains(wanted), "it says:\n{message}");
            Ok(())
        });
    }
    std::thread::sleep(Duration::from_secs(2));
    let status = vm.qmp().execute("query-status", &json!({}))?;
    require!(status["running"] == true, "the machine is {status}");
    let text = vm.serial().text();
    require!(
        !text.contains("Kernel panic") && !text.contains("systemd[1]"),
        "it went on:\n{text}"
    );
    Ok(())
}
