//! Restart and end: nothing written survives, and the box is off within ten seconds.

use std::time::{Duration, Instant};

use qemu_tests::machine::Machine;
use qemu_tests::vm::Vm;
use qemu_tests::{Case, Dist, Result, case, require};

use crate::every_step_is_ok;

/// Even in software emulation.
const OFF_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_restart_forgets_what_was_written() {
    case("lifecycle-restart", |case| {
        let dist = Dist::from_env()?;
        let mut vm = Machine::quick(&dist).user_nic().power_on(case)?;
        case.step("it reaches enforcing", || vm.wait_enforcing())?;
        let places = "/etc/witness /config/witness /var/lib/clawgress/witness /root/witness";
        case.step("a file is written in many places", || {
            vm.run_ok(&format!(
                "for at in {places}; do echo here > $at || exit 1; done"
            ))
        })?;
        let first = vm.run_ok("cat /proc/sys/kernel/random/boot_id")?;
        case.step("it restarts", || vm.reboot())?;
        let report = case.step("it reaches enforcing again", || vm.wait_enforcing())?;
        every_step_is_ok(&report)?;
        let second = vm.run_ok("cat /proc/sys/kernel/random/boot_id")?;
        require!(first != second, "it is the same boot");
        case.check("no file is left", || {
            let left = vm.run(&format!("ls {places} 2>/dev/null"))?.stdout;
            require!(left.trim().is_empty(), "still there: {left}");
            Ok(())
        });
        case.step("the power button switches it off", || {
            vm.press_power_button()?;
            switched_off(case, &mut vm)
        })
    });
}

/// Waits for the end, measures it, and looks for what was not clean.
pub(crate) fn switched_off(case: &Case, vm: &mut Vm) -> Result {
    let asked = Instant::now();
    vm.wait_for_power_off(OFF_WITHIN * 3)?;
    let took = asked.elapsed();
    case.note(&format!("off after {:.1} s", took.as_secs_f32()));
    require!(took < OFF_WITHIN, "that took {:.1} s", took.as_secs_f32());
    let text = vm.serial().text();
    // systemd 252 tries to unmount what its own last program runs from. That is read-only, so nothing is left unwritten.
    let own_root = "Failed to unmount /usr: Device or resource busy";
    for words in [
        "Failed unmounting",
        "Failed to unmount",
        "timed out",
        "Kernel panic",
    ] {
        let said = text
            .lines()
            .find(|line| line.contains(words) && !line.contains(own_root));
        require!(said.is_none(), "on its way it said: {said:?}");
    }
    Ok(())
}
