//! Habits of the sources: heads, sizes, words that do not belong, dependencies declared in one place.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// Every file of the project that git knows or would know, with its text.
fn files(suffix: &str) -> Vec<(String, String)> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .current_dir(root())
        .output()
        .expect("git is needed to list the sources: apt-get install git");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let files: Vec<(String, String)> = String::from_utf8(output.stdout)
        .unwrap()
        .split('\0')
        .filter(|name| name.ends_with(suffix))
        .filter_map(|name| {
            Some((
                name.to_owned(),
                std::fs::read_to_string(root().join(name)).ok()?,
            ))
        })
        .collect();
    assert!(!files.is_empty(), "no file ends in {suffix}");
    files
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_says_what_it_owns() {
    let wrong: Vec<String> = files(".rs")
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(name, _)| format!("{name} does not start with a //! head"))
        .collect();
    none(&wrong);
}

#[test]
fn no_file_holds_more_than_one_idea() {
    let wrong: Vec<String> = files(".rs")
        .into_iter()
        .filter(|(_, text)| text.lines().count() > 450)
        .map(|(name, text)| {
            format!(
                "{name} has {} lines: split it by idea",
                text.lines().count()
            )
        })
        .collect();
    none(&wrong);
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
    ];
    let mut wrong = Vec::new();
    for (name, text) in files(".rs") {
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                wrong.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    none(&wrong);
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    let mut wrong = Vec::new();
    for (name, text) in files(".rs") {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens =
                code.contains(concat!("unsafe", " {")) || code.contains(concat!("unsafe", " impl"));
            let reasoned = lines[number.saturating_sub(6)..number]
                .iter()
                .any(|before| before.contains("SAFETY"));
            if opens && !reasoned {
                wrong.push(format!("{name}:{}: no SAFETY line before it", number + 1));
            }
        }
    }
    none(&wrong);
}

#[test]
fn dependencies_are_declared_in_one_place() {
    let mut wrong = Vec::new();
    for (name, text) in files("Cargo.toml")
        .into_iter()
        // Fuzzing has workspaces of its own, which nothing shipped is built from.
        .filter(|(name, _)| name != "Cargo.toml" && !name.contains("/fuzz/"))
    {
        let mut inside = false;
        for line in text.lines() {
            if line.starts_with('[') {
                inside = line.contains("dependencies");
            } else if inside && line.contains('=') && !line.contains("workspace = true") {
                wrong.push(format!(
                    "{name}: '{line}' belongs into the workspace's manifest"
                ));
            }
        }
    }
    none(&wrong);
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let unexplained: Vec<String> = section
        .lines()
        .filter(|line| line.contains('=') && !line.contains("path =") && !line.contains('#'))
        .map(|line| format!("no reason beside: {line}"))
        .collect();
    none(&unexplained);
}
