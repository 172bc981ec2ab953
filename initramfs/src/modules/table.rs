//! The text table that tells `/init` which module drives a device and what to load before it.
//!
//! ```text
//! clawgress-modules 1
//! m <name> <path in the initramfs> <positions to load before, comma separated, or ->
//! a <position> <alias pattern>
//! ```
//! Written by the builder, parsed by PID 1: reading it must be cheap and never panic.

use std::fmt::Write;

use super::{ModulesError, module_name};
use crate::alias;

const HEAD: &str = "clawgress-modules 1";

/// A module as `/init` knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableModule {
    pub name: String,
    pub path: String,
    /// Positions of what to load before, in load order.
    pub before: Vec<usize>,
}

/// All modules in the initramfs and the aliases that lead to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub modules: Vec<TableModule>,
    pub aliases: Vec<(String, usize)>,
}

impl Table {
    /// The table as text.
    pub fn write(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for module in &self.modules {
            let before = if module.before.is_empty() {
                "-".to_owned()
            } else {
                let positions: Vec<String> =
                    module.before.iter().map(ToString::to_string).collect();
                positions.join(",")
            };
            // Writing to a string can't fail.
            let _ = writeln!(text, "m {} {} {before}", module.name, module.path);
        }
        for (pattern, position) in &self.aliases {
            let _ = writeln!(text, "a {position} {pattern}");
        }
        text
    }

    /// Reads what [`Self::write`] wrote.
    pub fn parse(text: &str) -> Result<Self, ModulesError> {
        let mut table = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let nonsense = || ModulesError::Table {
                line: number,
                text: line.to_owned(),
            };
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                _ if number == 1 => {
                    if line != HEAD {
                        return Err(nonsense());
                    }
                }
                (Some("m"), Some(name), Some(path), Some(before)) => {
                    let before = match before {
                        "-" => Vec::new(),
                        list => list
                            .split(',')
                            .map(str::parse)
                            .collect::<Result<_, _>>()
                            .map_err(|_| nonsense())?,
                    };
                    table.modules.push(TableModule {
                        name: name.to_owned(),
                        path: path.to_owned(),
                        before,
                    });
                }
                (Some("a"), Some(position), Some(pattern), None) => {
                    let position = position.parse().map_err(|_| nonsense())?;
                    table.aliases.push((pattern.to_owned(), position));
                }
                _ => return Err(nonsense()),
            }
        }
        let known = table.modules.len();
        let outside = table
            .modules
            .iter()
            .flat_map(|module| &module.before)
            .chain(table.aliases.iter().map(|(_, position)| position))
            .find(|position| **position >= known);
        match outside {
            Some(position) => Err(ModulesError::Table {
                line: 0,
                text: format!("module {position} of {known}"),
            }),
            None => Ok(table),
        }
    }

    /// Positions of the modules that claim this device string, or that bear this name.
    pub fn find(&self, device: &str) -> Vec<usize> {
        // `pci:`, `usb:` … must agree anyway; comparing it first skips most patterns cheaply.
        let bus = device.split_inclusive(':').next().unwrap_or(device);
        let mut found: Vec<usize> = self
            .aliases
            .iter()
            .filter(|(pattern, _)| {
                (pattern.starts_with(bus) || !pattern.contains(':') || wild_bus(pattern))
                    && alias::matches(pattern, device)
            })
            .map(|(_, position)| *position)
            .collect();
        if !device.contains(':') {
            let name = module_name(device);
            found.extend(self.modules.iter().position(|module| module.name == name));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Whether a pattern leaves even its bus open (`acpi*:PNP0A08:*`, `of:N*T*…`).
fn wild_bus(pattern: &str) -> bool {
    pattern
        .split(':')
        .next()
        .is_some_and(|bus| bus.contains(['*', '?', '[']))
}

#[cfg(test)]
mod tests {
    use super::super::testing::small_kernel;
    use super::super::{Wanted, select};
    use super::*;
    use proptest::prelude::*;

    fn table() -> Table {
        let wanted = Wanted {
            required: vec![
                "ahci".into(),
                "usb-storage".into(),
                "sd_mod".into(),
                "ext4".into(),
            ],
            ..Wanted::default()
        };
        select(&small_kernel(), &wanted).unwrap().table()
    }

    #[test]
    fn text_and_back() {
        let table = table();
        assert_eq!(Table::parse(&table.write()).unwrap(), table);
    }

    #[test]
    fn finds_by_device_by_alias_and_by_name() {
        let mut table = table();
        let name = |found: Vec<usize>, table: &Table| -> Vec<String> {
            found
                .iter()
                .map(|at| table.modules[*at].name.clone())
                .collect()
        };
        let disk = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01";
        assert_eq!(name(table.find(disk), &table), ["ahci"]);
        assert_eq!(name(table.find("scsi:t-0x00"), &table), ["sd_mod"]);
        assert_eq!(name(table.find("fs-ext4"), &table), ["ext4"]);
        assert_eq!(name(table.find("usb-storage"), &table), ["usb_storage"]);
        assert_eq!(table.find("acpi:PNP0A08:"), Vec::<usize>::new());
        table.aliases.push(("acpi*:PNP0A08:*".into(), 0));
        assert_eq!(table.find("acpi:PNP0A08:"), [0]);
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        for (text, line) in [
            ("", None),
            ("other 1\n", Some(1)),
            ("clawgress-modules 1\nm a /a.ko\n", Some(2)),
            ("clawgress-modules 1\nm a /a.ko x\n", Some(2)),
            ("clawgress-modules 1\na 0 pci:*\n", Some(0)),
            ("clawgress-modules 1\nq\n", Some(2)),
        ] {
            match (Table::parse(text), line) {
                (Ok(table), None) => assert_eq!(table, Table::default()),
                (Err(ModulesError::Table { line, .. }), Some(expected)) => {
                    assert_eq!(line, expected, "{text:?}");
                }
                (other, _) => panic!("{text:?}: {other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(clawgress-modules 1\n)?([ma0-9 ,*/-]{0,12}\n){0,6}") {
            if let Ok(table) = Table::parse(&text) {
                table.find("pci:v0");
            }
        }
    }
}
