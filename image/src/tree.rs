//! The root as a tree in memory: read from the base's tar, laid over, checked, then written as a squashfs.
//! Holds no path that leaves it, and no attribute that the squashfs cannot carry.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

/// What a node is. Content is shared, so that hard links and copies cost nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File(Arc<[u8]>),
    Symlink(String),
    CharacterDevice(u32),
    BlockDevice(u32),
    Fifo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Permission bits with set-uid, set-gid and sticky.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Node {
    pub(crate) fn directory() -> Self {
        Self {
            kind: Kind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
        }
    }

    pub(crate) fn file(bytes: impl Into<Arc<[u8]>>, mode: u16) -> Self {
        Self {
            kind: Kind::File(bytes.into()),
            mode,
            uid: 0,
            gid: 0,
        }
    }

    pub(crate) fn symlink(target: impl Into<String>) -> Self {
        Self {
            kind: Kind::Symlink(target.into()),
            mode: 0o777,
            uid: 0,
            gid: 0,
        }
    }
}

/// Paths are relative to the root, without a leading slash; the root itself is "".
#[derive(Debug, Default, Clone)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
    /// Extended attributes that the tar carried: kept to be refused by the checks, with the path.
    pub(crate) attributes: Vec<(String, String)>,
}

impl Tree {
    /// Reads a base's tar.
    pub(crate) fn read(tar: impl Read) -> Result<Self> {
        let mut tree = Self::default();
        tree.nodes.insert(String::new(), Node::directory());
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries().context("reading the base's tar")? {
            let mut entry = entry.context("reading the base's tar: is it truncated?")?;
            let path = normal(&entry.path()?)?;
            let mut names = Vec::new();
            if let Some(extensions) = entry.pax_extensions()? {
                for extension in extensions {
                    let key = extension?.key().unwrap_or("?").to_owned();
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        names.push(name.to_owned());
                    }
                }
            }
            tree.attributes
                .extend(names.into_iter().map(|name| (path.clone(), name)));
            let header = entry.header();
            let (uid, gid) = (header.uid()? as u32, header.gid()? as u32);
            let mode = (header.mode()? & 0o7777) as u16;
            let device = || -> Result<u32> {
                let (major, minor) = (
                    header.device_major()?.unwrap_or(0),
                    header.device_minor()?.unwrap_or(0),
                );
                Ok((major << 8) | (minor & 0xff) | ((minor & !0xff) << 12))
            };
            let kind = match header.entry_type() {
                tar::EntryType::Directory => Kind::Directory,
                tar::EntryType::Symlink => {
                    let target = entry.link_name()?.context("a symlink without target")?;
                    Kind::Symlink(
                        target
                            .to_str()
                            .context("a symlink target is not text")?
                            .to_owned(),
                    )
                }
                tar::EntryType::Link => {
                    let target =
                        normal(&entry.link_name()?.context("a hard link without target")?)?;
                    let node = tree
                        .nodes
                        .get(&target)
                        .with_context(|| {
                            format!("/{path} is a hard link to /{target}, which is not there")
                        })?
                        .clone();
                    tree.nodes.insert(path, node);
                    continue;
                }
                tar::EntryType::Char => Kind::CharacterDevice(device()?),
                tar::EntryType::Block => Kind::BlockDevice(device()?),
                tar::EntryType::Fifo => Kind::Fifo,
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let mut bytes = Vec::with_capacity(entry.size() as usize);
                    entry
                        .read_to_end(&mut bytes)
                        .with_context(|| format!("reading /{path} from the base's tar"))?;
                    Kind::File(bytes.into())
                }
                other => bail!("/{path} is of a kind ({other:?}) that the image cannot hold"),
            };
            tree.nodes.insert(
                path,
                Node {
                    kind,
                    mode,
                    uid,
                    gid,
                },
            );
        }
        Ok(tree)
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(crate) fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.values_mut()
    }

    /// Everything below the directory `path`, itself not included.
    pub(crate) fn below<'a>(
        &'a self,
        path: &str,
    ) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        self.nodes
            .range(prefix.clone()..)
            .take_while(move |(known, _)| known.starts_with(&prefix))
            .map(|(known, node)| (known.as_str(), node))
    }

    /// The path with every symlink on the way followed, as the booted system will see it.
    pub(crate) fn resolve(&self, path: &str) -> Option<String> {
        let mut pending: Vec<String> = parts(path);
        let mut done: Vec<String> = Vec::new();
        let mut hops = 0;
        while let Some(part) = pending.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => {}
            }
            done.push(part);
            let here = done.join("/");
            if let Kind::Symlink(target) = &self.nodes.get(&here)?.kind {
                hops += 1;
                if hops > 40 {
                    return None;
                }
                if target.starts_with('/') {
                    done.clear();
                } else {
                    done.pop();
                }
                pending.extend(parts(target));
            }
        }
        Some(done.join("/"))
    }

    /// The content of the file at `path`, symlinks followed.
    pub(crate) fn content(&self, path: &str) -> Option<&[u8]> {
        match &self.nodes.get(&self.resolve(path)?)?.kind {
            Kind::File(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.content(path)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Puts a node at `path`; directories on the way are made, symlinks to directories on the way are followed.
    pub(crate) fn put(&mut self, path: &str, node: Node) -> Result<()> {
        let path = path.trim_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = String::new();
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            let next = if at.is_empty() {
                part.to_owned()
            } else {
                format!("{at}/{part}")
            };
            at = match self.nodes.get(&next) {
                None => {
                    self.nodes.insert(next.clone(), Node::directory());
                    next
                }
                Some(Node {
                    kind: Kind::Directory,
                    ..
                }) => next,
                Some(Node {
                    kind: Kind::Symlink(_),
                    ..
                }) => self
                    .resolve(&next)
                    .with_context(|| format!("/{next} on the way to /{path} is a dangling link"))?,
                Some(_) => bail!("/{next} on the way to /{path} is not a directory"),
            };
        }
        let full = if at.is_empty() {
            name.to_owned()
        } else {
            format!("{at}/{name}")
        };
        if let (
            Some(Node {
                kind: Kind::Directory,
                ..
            }),
            false,
        ) = (self.nodes.get(&full), node.kind == Kind::Directory)
        {
            bail!("/{full} is a directory and cannot become a file");
        }
        self.nodes.insert(full, node);
        Ok(())
    }

    /// Removes `path` and everything below it; tells how many nodes went.
    pub(crate) fn remove(&mut self, path: &str) -> usize {
        let before = self.nodes.len();
        let prefix = format!("{path}/");
        self.nodes
            .retain(|known, _| known != path && !known.starts_with(&prefix));
        self.attributes
            .retain(|(known, _)| known != path && !known.starts_with(&prefix));
        before - self.nodes.len()
    }
}

/// Path parts, last first.
fn parts(path: &str) -> Vec<String> {
    path.split('/').rev().map(str::to_owned).collect()
}

fn normal(path: &Path) -> Result<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir | Component::RootDir => {}
            Component::Normal(part) => parts.push(
                part.to_str()
                    .with_context(|| format!("the name {} is not text", path.display()))?,
            ),
            Component::ParentDir | Component::Prefix(_) => {
                bail!(
                    "the name {} in the base's tar leaves the root",
                    path.display()
                )
            }
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.put("usr/bin/tool", Node::file(*b"tool", 0o755))
            .unwrap();
        tree.put("bin", Node::symlink("usr/bin")).unwrap();
        tree.put("usr/sbin", Node::symlink("/bin")).unwrap();
        tree.put("loop", Node::symlink("loop")).unwrap();
        tree
    }

    #[test]
    fn links_resolve_as_in_the_booted_system() {
        let tree = tree();
        assert_eq!(tree.resolve("bin/tool").as_deref(), Some("usr/bin/tool"));
        assert_eq!(
            tree.resolve("usr/sbin/../sbin/tool").as_deref(),
            Some("usr/bin/tool")
        );
        assert_eq!(tree.resolve("bin/none"), None);
        assert_eq!(tree.resolve("loop"), None);
    }

    #[test]
    fn files_land_behind_links_to_directories() {
        let mut tree = tree();
        tree.put("/bin/other", Node::file(*b"x", 0o755)).unwrap();
        assert!(tree.get("usr/bin/other").is_some() && tree.get("bin/other").is_none());
        assert!(tree.put("usr/bin", Node::file(*b"x", 0o644)).is_err());
        assert!(tree.put("usr/bin/tool/x", Node::directory()).is_err());
    }

    #[test]
    fn removing_takes_what_is_below_and_nothing_beside() {
        let mut tree = tree();
        tree.put("usr/bin2", Node::directory()).unwrap();
        assert_eq!(tree.remove("usr/bin"), 2);
        assert!(tree.get("usr/bin2").is_some());
    }

    #[test]
    fn a_tar_that_climbs_out_is_refused() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..8].copy_from_slice(b"../evil\0");
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        let error = Tree::read(&builder.into_inner().unwrap()[..])
            .unwrap_err()
            .to_string();
        assert!(error.contains("leaves the root"), "{error}");
    }
}
