//! The ISO boots wherever it is put: both firmwares, as a CD and as a stick, and on a small machine.

use qemu_tests::machine::{Attach, Firmware, Machine};
use qemu_tests::{Dist, Result, case, require};

use crate::{every_step_is_ok, no_unit_has_failed, the_kernel_is_sealed};

#[test]
fn bios_from_cd() {
    let machine =
        || Dist::from_env().map(|dist| Machine::from_iso(&dist, Firmware::Bios, Attach::Cd));
    boots("boot-bios-cd", machine, Firmware::Bios, "sr0");
}

#[test]
fn uefi_from_cd() {
    let machine =
        || Dist::from_env().map(|dist| Machine::from_iso(&dist, Firmware::Uefi, Attach::Cd));
    boots("boot-uefi-cd", machine, Firmware::Uefi, "sr0");
}

#[test]
fn bios_from_usb_stick() {
    boots(
        "boot-bios-usb",
        || usb_stick(Firmware::Bios),
        Firmware::Bios,
        "sd",
    );
}

#[test]
fn uefi_from_usb_stick() {
    boots(
        "boot-uefi-usb",
        || usb_stick(Firmware::Uefi),
        Firmware::Uefi,
        "sd",
    );
}

#[test]
fn with_768_mib_of_memory() {
    let machine = || Dist::from_env().map(|dist| Machine::quick(&dist).memory_mib(768));
    boots("boot-768-mib", machine, Firmware::Bios, "sr0");
}

/// Media that a box is not started from today by its firmware, but by a boot manager or an installer.
#[cfg(feature = "full")]
mod full {
    use super::*;

    #[test]
    fn from_a_virtio_disk() {
        boots("boot-virtio", || disk(Attach::Virtio), Firmware::Bios, "vd");
    }

    #[test]
    fn from_a_sata_disk() {
        boots("boot-sata", || disk(Attach::Sata), Firmware::Bios, "sd");
    }

    #[test]
    fn from_an_nvme_disk() {
        boots("boot-nvme", || disk(Attach::Nvme), Firmware::Uefi, "nvme");
    }

    fn disk(attach: Attach) -> Result<Machine> {
        let dist = Dist::from_env()?;
        let firmware = if attach == Attach::Nvme {
            Firmware::Uefi
        } else {
            Firmware::Bios
        };
        Ok(Machine::from_iso(&dist, firmware, attach))
    }
}

/// Only the kernel for all hardware knows USB.
fn usb_stick(firmware: Firmware) -> Result<Machine> {
    let dist = Dist::generic_from_env()?;
    Ok(Machine::from_iso(&dist, firmware, Attach::UsbStick))
}

fn boots(name: &str, machine: impl FnOnce() -> Result<Machine>, firmware: Firmware, device: &str) {
    case(name, |case| {
        let mut vm = machine()?.user_nic().power_on(case)?;
        let report = case.step("it reaches enforcing", || vm.wait_enforcing())?;
        case.note(&format!(
            "boot report complete {} ms after the kernel's start, {:.0} s after power-on",
            report.ended_ms(),
            vm.since_power_on().as_secs_f32()
        ));
        case.check("every step of the boot is ok", || every_step_is_ok(&report));
        case.check("the console shows version and state", || {
            let text = vm.serial().text();
            for words in [
                format!("Clawgress {} on {}", report.version, report.base),
                "Sealed and enforcing".to_owned(),
            ] {
                require!(text.contains(&words), "the console never said {words:?}");
            }
            Ok(())
        });
        case.check("the medium was found where it is", || {
            let said = vm.run_ok("dmesg | grep 'clawgress-init:.* on /dev/'")?;
            require!(
                said.contains(&format!(" on /dev/{device}")),
                "init said: {said}"
            );
            Ok(())
        });
        case.check("it was started by that firmware", || {
            let uefi = vm.run("test -d /sys/firmware/efi")?.status == 0;
            require!(uefi == (firmware == Firmware::Uefi), "UEFI: {uefi}");
            Ok(())
        });
        case.check("no unit has failed", || no_unit_has_failed(&mut vm));
        case.check("nothing is forwarded", || the_kernel_is_sealed(&mut vm));
        Ok(())
    });
}
