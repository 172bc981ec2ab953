//! Unit enablement without a running systemd: what the preset names is linked as its `[Install]` section asks,
//! everything that packages enabled on their own is undone first.

use anyhow::{Context, Result, bail};

use crate::tree::{Kind, Node, Tree};

const PRESET: &str = "usr/lib/systemd/system-preset/00-clawgress.preset";
const ADMIN: &str = "etc/systemd/system";
const VENDOR: &str = "usr/lib/systemd/system";

/// Removes every enablement that came with the packages; masks and drop-ins are left alone.
pub(crate) fn reset(tree: &mut Tree) {
    let stale: Vec<String> = ["etc/systemd/system", "etc/systemd/user"]
        .iter()
        .flat_map(|directory| tree.below(directory))
        .filter(|(_, node)| matches!(&node.kind, Kind::Symlink(target) if target != "/dev/null"))
        .map(|(path, _)| path.to_owned())
        .collect();
    for path in stale {
        tree.remove(&path);
    }
}

/// Links the units that the preset enables.
pub(crate) fn enable(tree: &mut Tree) -> Result<()> {
    let preset = tree
        .text(PRESET)
        .with_context(|| format!("the overlay lacks /{PRESET}"))?
        .to_owned();
    let mut pending: Vec<String> = Vec::new();
    for line in preset.lines().map(str::trim) {
        match line.split_once(' ') {
            Some(("enable", unit)) => pending.push(unit.trim().to_owned()),
            Some(("disable", _)) | None => {}
            _ if line.starts_with('#') || line.starts_with(';') => {}
            _ => bail!("/{PRESET}: not a preset line: {line}"),
        }
    }
    let mut done: Vec<String> = Vec::new();
    while let Some(unit) = pending.pop() {
        if done.contains(&unit) {
            continue;
        }
        let (file, text) = find(tree, &unit).with_context(|| {
            format!("/{PRESET} enables {unit}, which no package and no overlay file brings")
        })?;
        let install = install_section(&text);
        if install.is_empty() {
            bail!("/{PRESET} enables {unit}, but /{file} has no [Install] section to say where");
        }
        for (key, value) in install {
            let names = value.split_whitespace().map(|name| instance(name, &unit));
            for name in names {
                match key.as_str() {
                    "WantedBy" => link(tree, &format!("{name}.wants/{unit}"), &file)?,
                    "RequiredBy" => link(tree, &format!("{name}.requires/{unit}"), &file)?,
                    "Alias" => link(tree, &name, &file)?,
                    "Also" => pending.push(name),
                    _ => {}
                }
            }
        }
        done.push(unit);
    }
    Ok(())
}

fn link(tree: &mut Tree, name: &str, file: &str) -> Result<()> {
    tree.put(
        &format!("{ADMIN}/{name}"),
        Node::symlink(format!("/{file}")),
    )
}

/// `%i` in an `[Install]` value of a template's instance.
fn instance(name: &str, unit: &str) -> String {
    let instance = unit
        .split_once('@')
        .and_then(|(_, rest)| rest.rsplit_once('.'))
        .map_or("", |(i, _)| i);
    name.replace("%i", instance)
}

/// The unit's file (a template's for an instance) and its text; the administrator's directory goes first.
fn find(tree: &Tree, unit: &str) -> Option<(String, String)> {
    let template = unit.split_once('@').and_then(|(name, rest)| {
        rest.rsplit_once('.')
            .map(|(_, suffix)| format!("{name}@.{suffix}"))
    });
    [Some(unit.to_owned()), template]
        .into_iter()
        .flatten()
        .find_map(|name| {
            [ADMIN, VENDOR].iter().find_map(|directory| {
                let path = format!("{directory}/{name}");
                tree.text(&path).map(|text| (path.clone(), text.to_owned()))
            })
        })
}

fn install_section(text: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[Install]";
        } else if let (true, Some((key, value))) = (inside, line.split_once('=')) {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(preset: &str) -> Tree {
        let mut tree = Tree::default();
        tree.put(PRESET, Node::file(preset.as_bytes(), 0o644))
            .unwrap();
        let unit =
            b"[Unit]\nWantedBy=no\n[Install]\nWantedBy=multi-user.target\nAlias=other.service\n";
        tree.put(
            "usr/lib/systemd/system/some.service",
            Node::file(*unit, 0o644),
        )
        .unwrap();
        let template = b"[Install]\nWantedBy=getty.target\n";
        tree.put(
            "usr/lib/systemd/system/getty@.service",
            Node::file(*template, 0o644),
        )
        .unwrap();
        tree.put(
            "etc/systemd/system/old.wants/gone.service",
            Node::symlink("/usr/lib/gone"),
        )
        .unwrap();
        tree.put(
            "etc/systemd/system/masked.service",
            Node::symlink("/dev/null"),
        )
        .unwrap();
        tree
    }

    #[test]
    fn the_preset_alone_decides() {
        let mut tree = tree("# words\nenable some.service\nenable getty@tty1.service\ndisable *\n");
        reset(&mut tree);
        enable(&mut tree).unwrap();
        let links: Vec<&str> = tree
            .below(ADMIN)
            .filter(|(_, node)| matches!(node.kind, Kind::Symlink(_)))
            .map(|(path, _)| path)
            .collect();
        assert_eq!(
            links,
            [
                "etc/systemd/system/getty.target.wants/getty@tty1.service",
                "etc/systemd/system/masked.service",
                "etc/systemd/system/multi-user.target.wants/some.service",
                "etc/systemd/system/other.service",
            ]
        );
        assert!(
            tree.resolve("etc/systemd/system/getty.target.wants/getty@tty1.service")
                .is_some()
        );
    }

    #[test]
    fn a_unit_that_nobody_brings_is_named() {
        let error = enable(&mut tree("enable none.service\n"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("none.service"), "{error}");
    }
}
