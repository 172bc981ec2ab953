//! A box that has booted and does nothing: what runs, listens, is mounted, is kept in memory.
//! One boot for all of it, for nothing here changes anything.

use qemu_tests::machine::Machine;
use qemu_tests::vm::Vm;
use qemu_tests::{Dist, Result, case, fail, require};

use crate::lifecycle::switched_off;
use crate::{every_step_is_ok, no_unit_has_failed, the_kernel_is_sealed};

const IDLE_MEMORY_MIB: u64 = 220;

/// Programs that may change identity when started.
const SET_ID: [&str; 3] = [
    "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
    "/usr/lib/polkit-1/polkit-agent-helper-1",
    "/usr/sbin/unix_chkpwd",
];

#[test]
fn an_idle_box_is_as_promised() {
    case("idle", |case| {
        let dist = Dist::from_env()?;
        let mut vm = Machine::quick(&dist).user_nic().user_nic().power_on(case)?;
        let report = case.step("it reaches enforcing", || vm.wait_enforcing())?;
        case.step("the services around the gateway are there", || {
            vm.run_until_ok(
                "/usr/lib/clawgress/appliance-init status | grep -q '^gateway .* ok '",
                std::time::Duration::from_secs(60),
            )
        })?;
        case.step("systemd has nothing left to do", || {
            vm.run_until_ok(
                "systemctl is-system-running | grep -qx running",
                std::time::Duration::from_secs(20),
            )
        })?;
        case.check("memory in use", || {
            let used = memory_in_use(&mut vm)?;
            case.note(&format!("{used} MiB in use"));
            require!(used <= IDLE_MEMORY_MIB, "{used} MiB are in use");
            Ok(())
        });
        case.check("every step of the boot is ok", || every_step_is_ok(&report));
        case.check("it warns of a machine that is too small", || {
            let warnings = report.warnings.join("\n");
            require!(
                warnings.contains("1 CPU: at least 4") && warnings.contains("RAM: at least 8"),
                "its warnings: {warnings:?}"
            );
            Ok(())
        });
        case.check("no unit has failed", || no_unit_has_failed(&mut vm));
        case.check("no daemon complained", || no_daemon_complained(&mut vm));
        case.check("the root is a read-only image", || read_only_root(&mut vm));
        case.check("no iptables", || no_iptables(&mut vm));
        case.check("own programs are static", || {
            own_programs_are_static(&mut vm)
        });
        case.check("set-uid programs are the listed ones", || {
            set_id_programs(&mut vm)
        });
        case.check("daemons are not root", || daemons_are_not_root(&mut vm));
        case.check("it listens on loopback alone", || listeners(&mut vm));
        case.check("every policy of the ruleset is drop", || {
            policies_drop(&mut vm)
        });
        case.check("nothing is forwarded", || the_kernel_is_sealed(&mut vm));
        case.check("the first card has its lease, the second is down", || {
            cards(&mut vm)
        });
        case.check("every name is denied", || names_are_denied(&mut vm));
        case.check("the policy API says what it measured", || {
            policy_api(&mut vm)
        });
        case.step("poweroff switches it off", || {
            vm.serial().send("poweroff\n")?;
            switched_off(case, &mut vm)
        })
    });
}

fn memory_in_use(vm: &mut Vm) -> Result<u64> {
    let text = vm.run_ok("cat /proc/meminfo")?;
    let figure = |name: &str| -> Result<u64> {
        let line = text.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        number.ok_or_else(|| qemu_tests::Error::other(format!("no {name} in {text}")))
    };
    Ok((figure("MemTotal:")? - figure("MemAvailable:")?) / 1024)
}

/// The kernel's own complaints are about the emulated hardware; everybody else has no excuse.
fn no_daemon_complained(vm: &mut Vm) -> Result {
    let journal = vm.run_ok("journalctl --boot --priority err --no-pager --output short")?;
    let complaints: Vec<&str> = journal
        .lines()
        .filter(|line| !line.contains(" kernel: ") && !line.starts_with("-- "))
        .collect();
    require!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

fn read_only_root(vm: &mut Vm) -> Result {
    for place in ["/usr/witness", "/usr/lib/clawgress/witness"] {
        let touch = vm.run(&format!("touch {place}"))?;
        require!(
            touch.status != 0 && touch.stdout.contains("Read-only file system"),
            "touch {place}: {touch:?}"
        );
    }
    let mounts = vm.run_ok("cat /proc/mounts")?;
    let kind_of = |target: &str| {
        mounts.lines().rev().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields.get(1) == Some(&target)).then(|| fields[2].to_owned())
        })
    };
    require!(
        kind_of("/usr").as_deref() == Some("squashfs"),
        "/usr is not the squashfs:\n{mounts}"
    );
    require!(
        kind_of("/").as_deref() == Some("overlay"),
        "/ is not an overlay:\n{mounts}"
    );
    Ok(())
}

fn no_iptables(vm: &mut Vm) -> Result {
    let found = vm.run_ok(
        "find /usr/bin /usr/sbin /usr/local -name '*iptables*' -o -name 'ip6tables*' -o -name 'ebtables*' \
         -o -name 'arptables*' -o -name 'xtables*'; grep -E '^(ip|ip6|arp|eb)table' /proc/modules || true",
    )?;
    require!(found.trim().is_empty(), "found: {found}");
    Ok(())
}

/// A program without an interpreter needs nothing of the base's libraries.
fn own_programs_are_static(vm: &mut Vm) -> Result {
    let listing = vm.run_ok(
        "for f in /usr/lib/clawgress/* /usr/bin/clawgress*; do \
         [ -f \"$f\" ] && [ \"$(head -c 4 \"$f\" | tail -c 3)\" = ELF ] && echo \"$f: $(ldd \"$f\" 2>&1 | tr '\\n' ' ')\"; \
         done; true",
    )?;
    let programs: Vec<&str> = listing.lines().collect();
    require!(
        programs.len() >= 2,
        "only these programs of ours: {programs:?}"
    );
    for program in programs {
        require!(
            program.contains("statically linked") || program.contains("not a dynamic executable"),
            "{program}"
        );
    }
    Ok(())
}

fn set_id_programs(vm: &mut Vm) -> Result {
    let found = vm.run_ok("find / /usr -xdev -type f -perm /6000 | sort -u")?;
    for path in found.lines() {
        require!(
            SET_ID.contains(&path),
            "{path} changes identity and is not on the list"
        );
    }
    Ok(())
}

fn daemons_are_not_root(vm: &mut Vm) -> Result {
    for name in [
        "named",
        "haproxy",
        "clawgress-policy",
        "clawgress-identity",
        "clawgress-quota",
        "clawgress-audit",
        "clawgress-gateway",
        "chronyd",
        "systemd-networkd",
    ] {
        // The kernel keeps fifteen letters of a name.
        let short: String = name.chars().take(15).collect();
        let users = vm.run_ok(&format!("ps -C {short} -o user="))?;
        require!(!users.trim().is_empty(), "{name} does not run");
        require!(
            users.lines().all(|user| user.trim() != "root"),
            "{name} runs as {users}"
        );
    }
    Ok(())
}

/// What is bound to an address beyond loopback must be the DHCP client of the network daemon, or the agents' resolver on
/// the port to which only a committed ruleset leads anybody.
fn listeners(vm: &mut Vm) -> Result {
    let listing = vm.run_ok("ss -Hlntup")?;
    for line in listing.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let Some(local) = fields.get(4) else {
            fail!("a line of ss that makes no sense: {line}");
        };
        let loopback = local.starts_with("127.") || local.starts_with("[::1]:");
        let dhcp_client = fields[0] == "udp"
            && (local.ends_with(":68") || local.ends_with(":546"))
            && line.contains("systemd-network");
        let agents = local.ends_with(":10053") && line.contains("clawgress-dns");
        require!(
            loopback || dhcp_client || agents,
            "a listener beyond loopback: {line}"
        );
    }
    for port in ["127.0.0.1:53", "127.0.0.1:443"] {
        require!(
            listing.contains(port),
            "nobody listens on {port}:\n{listing}"
        );
    }
    Ok(())
}

fn policies_drop(vm: &mut Vm) -> Result {
    let text = vm.run_ok("nft --json list ruleset")?;
    let ruleset: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| qemu_tests::Error::other(format!("nft's JSON: {error}")))?;
    let items = ruleset["nftables"].as_array().cloned().unwrap_or_default();
    for hook in ["input", "forward", "output"] {
        let chains: Vec<_> = items
            .iter()
            .map(|item| &item["chain"])
            .filter(|chain| chain["hook"] == hook && chain["type"] == "filter")
            .collect();
        require!(!chains.is_empty(), "no chain on {hook}");
        require!(
            chains
                .iter()
                .any(|chain| chain["policy"] == "drop" && chain["table"] == "clawgress"),
            "the policy on {hook} is not drop: {chains:?}"
        );
    }
    let tables: Vec<_> = items
        .iter()
        .filter_map(|item| item["table"]["name"].as_str())
        .collect();
    require!(tables == ["clawgress"], "tables: {tables:?}");
    Ok(())
}

fn cards(vm: &mut Vm) -> Result {
    vm.run_until_ok(
        "ip -4 -brief address show eth0 | grep -q 10.0.2.15",
        std::time::Duration::from_secs(10),
    )?;
    let second = vm.run_ok("ip -brief link show eth1; ip -brief address show eth1")?;
    require!(
        !second.contains("LOWER_UP") && !second.contains('/'),
        "the second card: {second}"
    );
    Ok(())
}

fn names_are_denied(vm: &mut Vm) -> Result {
    for name in ["example.com", "clawgress.invalid", "a.b.c.d.example"] {
        let answer = vm.run_ok(&format!("dig @127.0.0.1 +tries=1 +dnssec {name}"))?;
        require!(answer.contains("status: NXDOMAIN"), "{name}: {answer}");
    }
    Ok(())
}

fn policy_api(vm: &mut Vm) -> Result {
    let url = "https://127.0.0.1/clawgress";
    let health = vm.run_ok(&format!(
        "curl -sk -X POST -w '\\n%{{http_code}}' {url}/health"
    ))?;
    let (body, code) = health.trim().rsplit_once('\n').unwrap_or_default();
    let body: serde_json::Value = serde_json::from_str(body)
        .map_err(|error| qemu_tests::Error::other(format!("{error} in {health:?}")))?;
    require!(
        code == "200" && body["enforcing"] == true,
        "{code} {body:#}"
    );
    let policy = vm.run_ok(&format!(
        "curl -sk -X POST -d '{{}}' -w '\\n%{{http_code}}' {url}/policy"
    ))?;
    require!(
        policy.trim().ends_with("\n401") && policy.contains("key"),
        "{policy}"
    );
    Ok(())
}
