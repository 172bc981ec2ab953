//! The boot configuration on a volume: a wrong one leaves the box sealed, with management alone, and says why.

use qemu_tests::machine::{Attach, Machine};
use qemu_tests::media::Shelf;
use qemu_tests::{Dist, case, require};

use crate::{no_unit_has_failed, the_kernel_is_sealed};

/// Line 4 has a role that does not exist.
const WRONG: &str = "interfaces {
    ethernet eth0 {
        address 10.1.0.1/24
        role wna
    }
    ethernet eth1 {
        address 10.2.0.1/24
        role lan
    }
    ethernet eth2 {
        address 10.3.0.1/24
        role management
    }
}
";

#[test]
fn an_invalid_one_seals_the_box_and_is_explained() {
    case("config-invalid", |case| {
        let (dist, shelf) = (Dist::from_env()?, Shelf::new()?);
        let volume = shelf.config_volume(WRONG)?;
        let mut vm = Machine::quick(&dist)
            .medium(Attach::Virtio, &volume)
            .user_nic()
            .user_nic()
            .user_nic()
            .power_on(case)?;
        case.step("the console logs in", || vm.login())?;
        case.step("the boot comes to its end", || {
            vm.run_until_ok(
                "jq -e '.state != \"starting\"' /run/clawgress/boot.json",
                std::time::Duration::from_secs(30),
            )
        })?;
        let report = vm.boot_report()?;
        case.check("the report says sealed and why", || {
            require!(report.state == "sealed", "the state is {:?}", report.state);
            let error = report.config_error.clone().unwrap_or_default();
            for words in ["/dev/vd", "line 4", "wna", "wan"] {
                require!(error.contains(words), "no {words:?} in the reason: {error}");
            }
            Ok(())
        });
        case.check("the console says why", || {
            let text = vm.serial().text();
            for words in ["The configuration is wrong", "line 4", "did you mean wan?"] {
                require!(text.contains(words), "the console never said {words:?}");
            }
            Ok(())
        });
        case.check("only the management card is up", || {
            let cards = vm.run_ok("ip -4 -brief address show scope global")?;
            require!(
                cards.contains("10.3.0.1/24")
                    && !cards.contains("10.1.0.1")
                    && !cards.contains("10.2.0.1"),
                "addresses:\n{cards}"
            );
            for card in ["eth0", "eth1"] {
                let link = vm.run_ok(&format!("ip -brief link show {card}"))?;
                require!(!link.contains("LOWER_UP"), "{card} is up: {link}");
            }
            Ok(())
        });
        case.check("nothing is forwarded", || the_kernel_is_sealed(&mut vm));
        case.check("no unit has failed", || no_unit_has_failed(&mut vm));
        Ok(())
    });
}
