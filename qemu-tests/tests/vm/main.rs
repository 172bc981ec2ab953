//! Tests of a booted appliance. One program, so that two machines are always at work; one idea per file.

mod boot;
mod config;
mod enforces;
mod idle;
mod lifecycle;
mod media;
mod proxies;
mod scene;
mod sealed;
// The same bytes that the tests without a VM say.
#[allow(dead_code)]
#[path = "../net/sni_hello.rs"]
mod sni_hello;

use qemu_tests::report::BootReport;
use qemu_tests::vm::Vm;
use qemu_tests::{Result, require};

/// The steps of a boot, in order.
const STEPS: [&str; 10] = [
    "seal", "config", "network", "bus", "nftables", "named", "haproxy", "dns", "enforcer", "policy",
];

/// What is started after them, in this order; a report may have been read before.
const SERVICES: [&str; 4] = ["identity", "audit", "quota", "gateway"];

/// Every step in its order, each ended well.
fn every_step_is_ok(report: &BootReport) -> Result {
    let names: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    require!(
        names.starts_with(&STEPS) && [STEPS.as_slice(), &SERVICES].concat().starts_with(&names),
        "the steps are {names:?}"
    );
    for step in &report.steps {
        require!(step.ok, "step {} failed: {}", step.name, step.detail);
    }
    require!(
        report.config_error.is_none(),
        "a config error: {:?}",
        report.config_error
    );
    Ok(())
}

fn no_unit_has_failed(vm: &mut Vm) -> Result {
    let failed = vm.run_ok("systemctl list-units --failed --plain --no-legend --no-pager")?;
    require!(failed.trim().is_empty(), "failed units:\n{failed}");
    Ok(())
}

/// Nothing may pass: measured in the kernel, not asked of a daemon.
fn the_kernel_is_sealed(vm: &mut Vm) -> Result {
    let listing = vm.run_ok("nft list chain inet clawgress forward")?;
    require!(
        listing.contains("policy drop") && !listing.contains("accept"),
        "the forward chain is:\n{listing}"
    );
    for switch in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        let value = vm.run_ok(&format!("cat /proc/sys/{switch}"))?;
        require!(value.trim() == "0", "{switch} is {}", value.trim());
    }
    Ok(())
}
