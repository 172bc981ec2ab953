//! The parsed form of depmod's text files.
//!
//! Knows names, dependencies, aliases; it never decides what is wanted.

use std::collections::{BTreeMap, BTreeSet};

use super::{ModulesError, Source, module_name};

/// One line of `modules.dep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub path: String,
    /// Names of the modules it needs.
    pub needs: Vec<String>,
}

/// What depmod knows of a kernel's modules.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub(super) modules: BTreeMap<String, Line>,
    builtin: BTreeSet<String>,
    /// Pattern and module, in file order.
    pub(super) aliases: Vec<(String, String)>,
    /// Module → what should be loaded before it.
    soft: BTreeMap<String, Vec<String>>,
}

impl Index {
    /// Reads `modules.dep` and `modules.builtin`, which must exist, and `modules.alias` and
    /// `modules.softdep`.
    pub fn read(source: &dyn Source) -> Result<Self, ModulesError> {
        let mut index = Self::default();
        for (number, line) in lines(&text(source, "modules.dep", true)?) {
            let (path, needs) = line
                .split_once(':')
                .ok_or_else(|| syntax("modules.dep", number, line))?;
            index.modules.insert(
                module_name(path),
                Line {
                    path: path.to_owned(),
                    needs: needs.split_whitespace().map(module_name).collect(),
                },
            );
        }
        for (_, line) in lines(&text(source, "modules.builtin", true)?) {
            index.builtin.insert(module_name(line));
        }
        for (number, line) in lines(&text(source, "modules.alias", false)?) {
            match *line.split_whitespace().collect::<Vec<_>>() {
                ["alias", pattern, module] => index
                    .aliases
                    .push((pattern.to_owned(), module_name(module))),
                _ => return Err(syntax("modules.alias", number, line)),
            }
        }
        for (number, line) in lines(&text(source, "modules.softdep", false)?) {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else {
                return Err(syntax("modules.softdep", number, line));
            };
            // Words before any `pre:` or `post:` mean `pre` to kmod as well.
            let mut before = true;
            for word in words {
                match word {
                    "pre:" => before = true,
                    "post:" => before = false,
                    name if before => index
                        .soft
                        .entry(module_name(module))
                        .or_default()
                        .push(name.to_owned()),
                    _ => {}
                }
            }
        }
        Ok(index)
    }

    /// Whether the kernel carries this module in itself.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&module_name(name))
    }

    /// Whether the kernel has this as a loadable module.
    pub fn is_module(&self, name: &str) -> bool {
        self.modules.contains_key(&module_name(name))
    }

    /// The index's own copy of a loadable module's name.
    pub(super) fn key(&self, name: &str) -> Option<&str> {
        self.modules
            .get_key_value(name)
            .map(|(key, _)| key.as_str())
    }

    /// Where a module lies in the modules directory.
    pub(super) fn path(&self, name: &str) -> &str {
        self.modules.get(name).map_or("", |line| line.path.as_str())
    }

    /// What a module can't do without.
    pub(super) fn hard(&self, name: &str) -> impl Iterator<Item = &str> {
        let line = self.modules.get(name);
        line.into_iter()
            .flat_map(|line| line.needs.iter().map(String::as_str))
    }

    /// The loadable modules that should be there before a module.
    pub(super) fn soft(&self, name: &str) -> impl Iterator<Item = String> {
        let names = self.soft.get(name);
        names
            .into_iter()
            .flatten()
            .flat_map(|name| self.resolve(name))
    }

    /// The loadable modules that a name means: the module of that name, else those with a
    /// matching alias (`crypto-crc32c`).
    fn resolve(&self, name: &str) -> Vec<String> {
        let plain = module_name(name);
        if self.modules.contains_key(&plain) {
            return vec![plain];
        }
        if self.builtin.contains(&plain) {
            return Vec::new();
        }
        self.aliases
            .iter()
            .filter(|(pattern, _)| crate::alias::matches(pattern, name))
            .map(|(_, module)| module.clone())
            .collect()
    }
}

fn text(source: &dyn Source, path: &str, needed: bool) -> Result<String, ModulesError> {
    let read = source.read(path).map_err(|source| ModulesError::Read {
        path: path.to_owned(),
        source,
    })?;
    match read {
        Some(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        None if needed => Err(ModulesError::Missing {
            path: path.to_owned(),
        }),
        None => Ok(String::new()),
    }
}

/// Lines with something on them, counted from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn syntax(path: &str, line: usize, text: &str) -> ModulesError {
    ModulesError::Syntax {
        path: path.to_owned(),
        line,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::small_kernel;
    use super::*;

    #[test]
    fn reads_all_four_files() {
        let index = Index::read(&small_kernel()).unwrap();
        assert_eq!(
            index.modules["ext4"],
            Line {
                path: "kernel/fs/ext4/ext4.ko.xz".to_owned(),
                needs: vec!["jbd2".to_owned()]
            }
        );
        assert!(index.is_builtin("virtio-pci") && index.is_builtin("virtio_pci"));
        assert!(index.is_module("usb-storage"));
        assert_eq!(index.resolve("crypto-crc32c"), ["crc32c_generic"]);
        assert_eq!(index.soft["ext4"], ["crypto-crc32c", "unknown-thing"]);
        assert_eq!(index.soft["e1000"], ["ptp"], "bare words come before");
    }

    #[test]
    fn a_missing_or_broken_file_is_named() {
        let mut source = small_kernel();
        source
            .0
            .insert("modules.alias".into(), b"alias lonely".to_vec());
        let error = Index::read(&source).unwrap_err().to_string();
        assert!(
            error.contains("modules.alias") && error.contains("line 1"),
            "{error}"
        );
        source.0.remove("modules.dep");
        let error = Index::read(&source).unwrap_err().to_string();
        assert!(
            error.contains("modules.dep") && error.contains("missing"),
            "{error}"
        );
    }
}
