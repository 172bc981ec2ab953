//! Each revision's plan against its golden file, and before real nft, named and tc.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clawgress_enforcer::plan::{Leaf, Plan, Touched};
use serde_json::Value;

use crate::revisions::{Scene, all};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/plan/golden")
        .join(format!("{name}.txt"))
}

/// One command of the transaction a line, then everything else.
fn readable(plan: &Plan) -> String {
    let transaction: Value = serde_json::from_str(&plan.transaction()).unwrap();
    let mut text = String::from("# nft\n");
    for command in transaction["nftables"].as_array().unwrap() {
        text += &format!("{command}\n");
    }
    text += "\n# tc\n";
    text += &plan.shaping.batch(None, Leaf::FqCodel);
    text += "\n# ip\n";
    for route in plan.host.routes() {
        text += &format!(
            "{}{}\n",
            route.arguments,
            if route.may_fail { " || true" } else { "" }
        );
    }
    text += "\n# zones\n";
    for zone in &plan.zones.zones {
        text += &format!("{}: {}\n{}\n", zone.name, zone.file, zone.text);
    }
    text += &format!("# named.conf\n{}\n", plan.named.text);
    text += &format!("# next change: {:?}\n", plan.next_change);
    for warning in &plan.warnings {
        text += &format!("# warning: {warning}\n");
    }
    text
}

#[test]
fn plans_are_those_of_the_golden_files() {
    let mut different = Vec::new();
    for scene in all() {
        let (path, text) = (path(scene.name), readable(&scene.plan()));
        if std::env::var_os("CLAWGRESS_BLESS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != text {
            different.push(path.display().to_string());
        }
    }
    assert!(
        different.is_empty(),
        "these differ from what is compiled now; run with CLAWGRESS_BLESS=1 and read the difference: {different:?}"
    );
}

/// Runs a command in a network namespace of its own, with this on its standard input.
fn inside(command: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--"])
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("running unshare: {error}"))?;
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn each(check: impl Fn(&Scene) -> Result<(), String>) {
    let wrong: Vec<String> = all()
        .iter()
        .filter_map(|scene| Some(format!("{}: {}", scene.name, check(scene).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nft_takes_every_plan() {
    each(|scene| inside(&["nft", "-c", "-j", "-f", "-"], &scene.plan().transaction()).map(drop));
}

/// One namespace for all: what the first plan left is what the second one meets.
#[test]
fn nft_takes_one_plan_after_another_and_both_ways_end_alike() {
    let load = |documents: &[String]| {
        let mut steps: Vec<String> = (0..documents.len())
            .map(|at| format!("nft -j -f \"$1/{at}\""))
            .collect();
        steps.push("nft -s list ruleset".to_owned());
        let script = steps.join(" && ");
        let directory = tempfile::tempdir().unwrap();
        for (at, document) in documents.iter().enumerate() {
            fs::write(directory.path().join(at.to_string()), document).unwrap();
        }
        let directory = directory.path().display().to_string();
        inside(&["sh", "-c", &script, "sh", &directory], "")
    };
    let scenes = all();
    for (from, to) in scenes.iter().zip(scenes.iter().cycle().skip(1)) {
        let first = from.plan();
        for to in [from, to] {
            let mut carry = to.carry.clone();
            carry.meter = first.meter_objects();
            let index = to.index();
            let next =
                clawgress_enforcer::plan::compile(&to.revision, &index, to.moment, 8, &carry);
            let names = format!("{} after {}", to.name, from.name);
            let gone = |error: String| panic!("{names}: {error}");
            let stepwise = load(&[
                first.transaction(),
                next.transaction_after(&first, &Touched::new()),
            ])
            .unwrap_or_else(gone);
            let anew = load(&[first.transaction(), next.transaction()]).unwrap_or_else(gone);
            assert_eq!(sorted(&stepwise), sorted(&anew), "{names}");
        }
    }
}

/// A plan of the same revision under the next generation is an exchange of sets alone, and says the same as nft's way.
#[test]
fn another_generation_is_an_exchange_of_marks() {
    for scene in all() {
        let first = scene.plan();
        let mut carry = scene.carry.clone();
        carry.meter = first.meter_objects();
        let index = scene.index();
        let next =
            clawgress_enforcer::plan::compile(&scene.revision, &index, scene.moment, 8, &carry);
        let planned = next.exchange_after(&first, &Touched::new());
        let sets: Vec<&str> = planned
            .iter()
            .flatten()
            .map(|exchange| exchange.set.as_str())
            .collect();
        assert_eq!(sets, ["generation", "stamped", "stamps"], "{}", scene.name);
        let exchanges = clawgress_enforcer::apply::exchange::of(&planned.unwrap());
        assert!(exchanges.is_some(), "{}", scene.name);
    }
    let scenes = all();
    let (plain, hosts) = (scenes[1].plan(), scenes[2].plan());
    assert_eq!(hosts.exchange_after(&plain, &Touched::new()), None);
}

/// Tables and sets are listed in the order in which they were made.
fn sorted(listing: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = listing.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn named_takes_every_configuration() {
    each(|scene| {
        let plan = scene.plan();
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().display().to_string();
        for zone in &plan.zones.zones {
            let file = directory.path().join(&zone.file);
            fs::write(&file, &zone.text).unwrap();
            let file = file.display().to_string();
            inside(&["named-checkzone", "-i", "none", &zone.name, &file], "")
                .map_err(|error| format!("{}: {error}", zone.name))?;
        }
        let text = plan
            .named
            .text
            .replace("/run/clawgress/enforcer/zones", &here)
            .replace("/var/cache/bind", &here);
        let file = directory.path().join("named.conf");
        fs::write(&file, text).unwrap();
        inside(&["named-checkconf", "-z", &file.display().to_string()], "").map(drop)
    });
}

#[test]
fn tc_takes_every_change_of_classes() {
    let scenes = all();
    let plans: Vec<Plan> = scenes.iter().map(Scene::plan).collect();
    let mut batches = String::new();
    let mut before: Option<&Plan> = None;
    for plan in plans.iter().chain(plans.iter().rev()) {
        batches += &plan
            .shaping
            .batch(before.map(|before| &before.shaping), Leaf::Fifo);
        before = Some(plan);
    }
    let cards = "ip link add eth0 type veth peer name a && ip link add eth5 type veth peer name b && tc -batch -";
    let done = inside(&["sh", "-c", cards], &batches);
    assert!(done.is_ok(), "{done:?}\n{batches}");
}
