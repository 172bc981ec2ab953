//! From a wish list to the modules themselves, in the order in which they can be loaded.
//!
//! Dependencies are followed always, soft dependencies where the kernel has them. Never leaves a
//! dependency out silently: one that `modules.dep` names and that can't be read is an error.

use std::collections::{BTreeMap, BTreeSet};

use super::{Index, ModulesError, Source, Table, TableModule, Wanted, module_name};

/// A module that goes into the initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub name: String,
    /// Path in the kernel's modules directory, as `modules.dep` has it.
    pub source: String,
    /// Absolute path in the initramfs.
    pub path: String,
    /// Everything that must be loaded before it, in order, as positions in the selection.
    pub before: Vec<usize>,
    /// The module, uncompressed.
    pub content: Vec<u8>,
}

/// The chosen modules in load order, with the aliases that lead to them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub modules: Vec<Module>,
    /// Device pattern and position of its module.
    pub aliases: Vec<(String, usize)>,
    /// Wanted names that the kernel carries in itself.
    pub builtin: Vec<String>,
    /// Optional names that the kernel does not have at all.
    pub absent: Vec<String>,
}

impl Selection {
    /// The table for `/init`.
    pub fn table(&self) -> Table {
        Table {
            modules: self
                .modules
                .iter()
                .map(|module| TableModule {
                    name: module.name.clone(),
                    path: module.path.clone(),
                    before: module.before.clone(),
                })
                .collect(),
            aliases: self.aliases.clone(),
        }
    }
}

/// Chooses and reads the wanted modules and all that they need.
pub fn select(source: &dyn Source, wanted: &Wanted) -> Result<Selection, ModulesError> {
    let index = Index::read(source)?;
    let mut selection = Selection::default();
    let mut roots = BTreeSet::new();
    for (name, required) in wanted
        .required
        .iter()
        .map(|name| (name, true))
        .chain(wanted.optional.iter().map(|name| (name, false)))
    {
        if index.is_builtin(name) {
            selection.builtin.push(module_name(name));
        } else if index.is_module(name) {
            roots.insert(module_name(name));
        } else if required {
            return Err(ModulesError::Required { name: name.clone() });
        } else {
            selection.absent.push(module_name(name));
        }
    }
    for directory in &wanted.directories {
        let below = format!("{}/", directory.trim_end_matches('/'));
        for (name, line) in &index.modules {
            if line.path.starts_with(&below) {
                roots.insert(name.clone());
            }
        }
    }

    let graph = Graph::new(&index, &roots);
    let order = graph.order();
    let position: BTreeMap<&str, usize> = order.iter().copied().zip(0..).collect();
    for name in &order {
        let before = graph.reachable(name);
        let mut before: Vec<usize> = before
            .iter()
            .filter_map(|need| position.get(need).copied())
            .collect();
        before.sort_unstable();
        let source_path = index.path(name);
        selection.modules.push(Module {
            name: (*name).to_owned(),
            path: format!("/lib/modules/{name}.ko"),
            content: read_module(source, source_path)?,
            source: source_path.to_owned(),
            before,
        });
    }
    for (pattern, module) in &index.aliases {
        if let Some(position) = position.get(module.as_str()) {
            selection.aliases.push((pattern.clone(), *position));
        }
    }
    Ok(selection)
}

fn read_module(source: &dyn Source, path: &str) -> Result<Vec<u8>, ModulesError> {
    let content = source
        .read(path)
        .map_err(|source| ModulesError::Read {
            path: path.to_owned(),
            source,
        })?
        .ok_or_else(|| ModulesError::Missing {
            path: path.to_owned(),
        })?;
    if content.starts_with(b"\x7fELF") {
        Ok(content)
    } else {
        Err(ModulesError::NotAModule {
            path: path.to_owned(),
        })
    }
}

/// Which module is loaded before which. Free of rings: a soft dependency that would close one is
/// left out, because a hard dependency behind it must never come too late.
struct Graph<'i> {
    needs: BTreeMap<&'i str, BTreeSet<&'i str>>,
}

impl<'i> Graph<'i> {
    fn new(index: &'i Index, roots: &BTreeSet<String>) -> Self {
        let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut soft: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut open: Vec<&str> = roots.iter().filter_map(|name| index.key(name)).collect();
        while let Some(name) = open.pop() {
            if needs.contains_key(name) {
                continue;
            }
            let hard: BTreeSet<&str> = index
                .hard(name)
                .filter_map(|need| index.key(need))
                .collect();
            open.extend(&hard);
            needs.insert(name, hard);
            for need in index.soft(name).filter_map(|need| index.key(&need)) {
                soft.insert((name, need));
                open.push(need);
            }
        }
        let mut graph = Self { needs };
        for (name, need) in soft {
            if name != need && !graph.reachable(need).contains(name) {
                graph.needs.entry(name).or_default().insert(need);
            }
        }
        graph
    }

    /// All that a module needs, directly or not.
    fn reachable(&self, name: &str) -> BTreeSet<&'i str> {
        let mut all = BTreeSet::new();
        let mut open: Vec<&str> = self
            .needs
            .get(name)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        while let Some(next) = open.pop() {
            if all.insert(next) {
                open.extend(self.needs.get(next).into_iter().flatten());
            }
        }
        all
    }

    /// Every module after all that it needs: who needs more comes later, then by name.
    fn order(&self) -> Vec<&'i str> {
        let mut order: Vec<(usize, &str)> = self
            .needs
            .keys()
            .map(|name| (self.reachable(name).len(), *name))
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, name)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::small_kernel;
    use super::*;

    fn wanted(required: &[&str], optional: &[&str], directories: &[&str]) -> Wanted {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Wanted {
            required: own(required),
            optional: own(optional),
            directories: own(directories),
        }
    }

    fn names(selection: &Selection) -> Vec<&str> {
        selection.modules.iter().map(|m| m.name.as_str()).collect()
    }

    #[test]
    fn dependencies_come_first_and_only_what_is_wanted_comes() {
        let selection = select(&small_kernel(), &wanted(&["ahci", "sd_mod"], &[], &[])).unwrap();
        let order = names(&selection);
        assert_eq!(order.len(), 6, "{order:?}");
        for module in &selection.modules {
            let own = order.iter().position(|name| *name == module.name).unwrap();
            assert!(module.before.iter().all(|position| *position < own));
        }
        let ahci = selection.modules.iter().find(|m| m.name == "ahci").unwrap();
        let before: Vec<&str> = ahci.before.iter().map(|at| order[*at]).collect();
        assert_eq!(before, ["scsi_common", "scsi_mod", "libata", "libahci"]);
        assert_eq!(ahci.path, "/lib/modules/ahci.ko");
        assert_eq!(ahci.content, b"\x7fELF kernel/drivers/ata/ahci.ko.xz");
    }

    #[test]
    fn soft_dependencies_follow_aliases_and_may_be_absent() {
        let selection = select(&small_kernel(), &wanted(&["ext4"], &[], &[])).unwrap();
        let ext4 = selection.modules.iter().find(|m| m.name == "ext4").unwrap();
        assert_eq!(ext4.before.len(), 2, "jbd2 and crc32c_generic");
        assert!(names(&selection).contains(&"crc32c_generic"));
        assert!(
            !names(&selection).contains(&"e1000"),
            "post: is not followed"
        );
    }

    #[test]
    fn builtin_satisfies_and_optional_may_lack() {
        let selection = select(
            &small_kernel(),
            &wanted(&["virtio-pci"], &["nvme", "jbd2"], &[]),
        )
        .unwrap();
        assert_eq!(selection.builtin, ["virtio_pci"]);
        assert_eq!(selection.absent, ["nvme"]);
        assert_eq!(names(&selection), ["jbd2"]);
    }

    #[test]
    fn a_directory_brings_all_below_it() {
        let selection =
            select(&small_kernel(), &wanted(&[], &[], &["kernel/drivers/ata/"])).unwrap();
        assert!(names(&selection).contains(&"ahci"));
        assert!(!names(&selection).contains(&"sd_mod"));
    }

    #[test]
    fn a_required_name_that_is_nowhere_is_named() {
        let error = select(&small_kernel(), &wanted(&["squashfs"], &[], &[])).unwrap_err();
        assert!(
            error.to_string().contains("required module squashfs"),
            "{error}"
        );
    }

    #[test]
    fn a_compressed_or_missing_module_is_named() {
        let mut source = small_kernel();
        let path = "kernel/fs/jbd2/jbd2.ko.xz";
        source.0.insert(path.into(), b"\xfd7zXZ".to_vec());
        let error = select(&source, &wanted(&["ext4"], &[], &[])).unwrap_err();
        assert!(matches!(&error, ModulesError::NotAModule { path: p } if p == path));
        source.0.remove(path);
        let error = select(&source, &wanted(&["ext4"], &[], &[])).unwrap_err();
        assert!(matches!(&error, ModulesError::Missing { path: p } if p == path));
    }

    #[test]
    fn only_aliases_of_chosen_modules_are_kept() {
        let selection =
            select(&small_kernel(), &wanted(&["ahci", "usb-storage"], &[], &[])).unwrap();
        let patterns: Vec<&str> = selection.aliases.iter().map(|(p, _)| p.as_str()).collect();
        assert_eq!(
            patterns,
            [
                "pci:v*d*sv*sd*bc01sc06i01*",
                "usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*"
            ]
        );
    }

    /// libata needs scsi_mod; a soft dependency the other way round must not make libata load
    /// before it.
    #[test]
    fn a_ring_through_a_soft_dependency_keeps_the_hard_one() {
        let mut source = small_kernel();
        let ring = b"softdep scsi_mod pre: libata\nsoftdep jbd2 pre: jbd2\n".to_vec();
        source.0.insert("modules.softdep".into(), ring);
        let selection = select(&source, &wanted(&["scsi_mod", "jbd2"], &[], &[])).unwrap();
        let order = names(&selection);
        let at = |name| order.iter().position(|other| *other == name).unwrap();
        assert!(at("scsi_mod") < at("libata"), "{order:?}");
        assert!(
            !selection.modules[at("scsi_mod")]
                .before
                .contains(&at("libata"))
        );
        assert!(
            selection.modules[at("libata")]
                .before
                .contains(&at("scsi_mod"))
        );
    }
}
