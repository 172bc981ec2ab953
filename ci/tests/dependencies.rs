//! Licences, bans, duplicates and sources of every dependency, held against `ci/deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Ban {
    name: String,
    reason: String,
}

#[derive(Deserialize)]
struct Skip {
    name: String,
    reason: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn rules() -> Rules {
    toml::from_str(&std::fs::read_to_string(root().join("ci/deny.toml")).unwrap()).unwrap()
}

fn cargo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Everything that any feature on our platform could bring.
fn metadata() -> Metadata {
    let platform = "--filter-platform=x86_64-unknown-linux-gnu";
    serde_json::from_slice(&cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        platform,
    ]))
    .unwrap()
}

/// What is really linked, as (name, version): the features that are on, build-time helpers not counted.
fn linked(package: &[&str]) -> BTreeSet<(String, String)> {
    let fixed = [
        "tree",
        "--locked",
        "--edges=normal,no-proc-macro",
        "--prefix=none",
        "--format={p}",
    ];
    let text = String::from_utf8(cargo(&[&fixed, package].concat())).unwrap();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect()
}

/// Whether an SPDX expression can be met with allowed licences: `OR` needs one side, `AND` both.
fn permitted(expression: &str, allow: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ");
    let mut depth = 0;
    let mut split = |word: &str| -> Option<(String, String)> {
        let tokens: Vec<&str> = expression.split_inclusive(['(', ')', ' ']).collect();
        depth = 0;
        let mut at = 0;
        for token in &tokens {
            for letter in token.chars() {
                match letter {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
            }
            if depth == 0 && token.trim() == word {
                return Some((
                    expression[..at].to_owned(),
                    expression[at + token.len()..].to_owned(),
                ));
            }
            at += token.len();
        }
        None
    };
    if let Some((one, other)) = split("OR") {
        return permitted(&one, allow) || permitted(&other, allow);
    }
    if let Some((one, other)) = split("AND") {
        return permitted(&one, allow) && permitted(&other, allow);
    }
    let plain = expression.trim();
    match plain
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'))
    {
        Some(inner) => permitted(inner, allow),
        None => allow.contains(plain),
    }
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    let allow = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned()]);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR X) AND ISC",
        "MIT AND (ISC)",
    ] {
        assert!(permitted(good, &allow), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND X", ""] {
        assert!(!permitted(bad, &allow), "{bad}");
    }
}

#[test]
fn every_licence_is_one_that_may_be_shipped() {
    let allow = rules().licenses.allow;
    let wrong: Vec<String> = metadata()
        .packages
        .iter()
        .filter(|package| {
            !package
                .license
                .as_deref()
                .is_some_and(|text| permitted(text, &allow))
        })
        .map(|package| {
            format!(
                "{} {}: {:?}",
                package.name, package.version, package.license
            )
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "not allowed by ci/deny.toml:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn no_banned_crate() {
    let linked = linked(&["--workspace"]);
    assert!(
        linked.len() > 50,
        "only {} crates were looked at",
        linked.len()
    );
    let wrong: Vec<String> = rules()
        .bans
        .deny
        .iter()
        .filter(|ban| linked.iter().any(|(name, _)| *name == ban.name))
        .map(|ban| format!("{} is banned: {}", ban.name, ban.reason))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn everything_comes_from_the_registry() {
    let wrong: Vec<String> = metadata()
        .packages
        .iter()
        .filter(|package| {
            package
                .source
                .as_deref()
                .is_some_and(|source| !source.starts_with("registry+"))
        })
        .map(|package| format!("{} comes from {:?}", package.name, package.source))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_program_of_the_image_carries_a_crate_twice() {
    let rules = rules();
    let skipped: BTreeMap<&str, &str> = rules
        .bans
        .skip
        .iter()
        .map(|skip| (skip.name.as_str(), skip.reason.as_str()))
        .collect();
    for program in ["clawgress-initramfs", "appliance-init", "clawgress-policy"] {
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, version) in linked(&["--package", program]) {
            versions.entry(name).or_default().push(version);
        }
        let twice: Vec<String> = versions
            .into_iter()
            .filter(|(name, versions)| versions.len() > 1 && !skipped.contains_key(name.as_str()))
            .map(|(name, versions)| format!("{name}: {}", versions.join(", ")))
            .collect();
        assert!(
            twice.is_empty(),
            "{program} carries twice:\n{}",
            twice.join("\n")
        );
    }
}
