//! Fixed numbers for service users. Packages number their users in the order they happen to be installed; here
//! each gets the number that the overlay's sysusers file names, in the account files and on every file it owns.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::tree::{Kind, Node, Tree};

/// The file that names every service user's number.
pub(crate) const SYSUSERS: &str = "usr/lib/sysusers.d/clawgress.conf";

#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    users: Vec<User>,
    groups: BTreeMap<String, u32>,
    members: Vec<(String, String)>,
}

#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    description: String,
    home: String,
    shell: String,
}

/// The service users and groups with a fixed number, as (name, number).
pub(crate) fn fixed(tree: &Tree) -> Result<Vec<(String, u32)>> {
    let wanted = parse(
        tree.text(SYSUSERS)
            .with_context(|| format!("the overlay lacks /{SYSUSERS}"))?,
    )?;
    Ok(wanted
        .users
        .into_iter()
        .map(|user| (user.name, user.uid))
        .collect())
}

/// Gives every account of the sysusers file its number.
pub(crate) fn settle(tree: &mut Tree) -> Result<()> {
    let text = tree
        .text(SYSUSERS)
        .with_context(|| format!("the overlay lacks /{SYSUSERS}"))?;
    let wanted = parse(text)?;
    let mut passwd = Table::read(tree, "etc/passwd")?;
    let mut group = Table::read(tree, "etc/group")?;
    let mut shadow = Table::read(tree, "etc/shadow")?;

    let mut groups: BTreeMap<&str, u32> = wanted
        .groups
        .iter()
        .map(|(name, gid)| (name.as_str(), *gid))
        .collect();
    for user in &wanted.users {
        // A user's group of the same name is part of the same line, as in sysusers.
        if !wanted.groups.contains_key(&user.name)
            && !wanted.groups.values().any(|gid| *gid == user.gid)
        {
            groups.insert(&user.name, user.gid);
        }
    }
    let moved_groups = group.renumber(&groups, |name, gid| format!("{name}:x:{gid}:"))?;
    let users: BTreeMap<&str, u32> = wanted
        .users
        .iter()
        .map(|user| (user.name.as_str(), user.uid))
        .collect();
    let moved_users = passwd.renumber(&users, |name, uid| {
        let user = wanted.users.iter().find(|user| user.name == name);
        let (gid, description, home, shell) =
            user.map_or((uid, "", "/", "/usr/sbin/nologin"), |user| {
                (
                    user.gid,
                    user.description.as_str(),
                    user.home.as_str(),
                    user.shell.as_str(),
                )
            });
        format!("{name}:x:{uid}:{gid}:{description}:{home}:{shell}")
    })?;
    for row in &mut passwd.rows {
        let fixed = wanted.users.iter().find(|user| user.name == row[0]);
        let gid: u32 = row[3]
            .parse()
            .with_context(|| format!("the group of {} in /etc/passwd", row[0]))?;
        let gid = fixed.map_or_else(
            || moved_groups.get(&gid).copied().unwrap_or(gid),
            |user| user.gid,
        );
        row[3] = gid.to_string();
    }
    for user in &wanted.users {
        if !shadow.rows.iter().any(|row| row[0] == user.name) {
            shadow.rows.push(
                format!("{}:!*:::::::", user.name)
                    .split(':')
                    .map(str::to_owned)
                    .collect(),
            );
        }
    }
    for (user, name) in &wanted.members {
        let row = group
            .rows
            .iter_mut()
            .find(|row| row[0] == *name)
            .with_context(|| {
                format!("/{SYSUSERS} puts {user} into the group {name}, which does not exist")
            })?;
        let mut members: Vec<&str> = row[3]
            .split(',')
            .filter(|member| !member.is_empty())
            .collect();
        if !members.contains(&user.as_str()) {
            members.push(user);
            row[3] = members.join(",");
        }
    }
    for node in tree.values_mut() {
        node.uid = moved_users.get(&node.uid).copied().unwrap_or(node.uid);
        node.gid = moved_groups.get(&node.gid).copied().unwrap_or(node.gid);
    }
    passwd.write(tree)?;
    group.write(tree)?;
    shadow.write(tree)?;
    // Written by the account tools as copies of the state before; gshadow holds no password here.
    for stale in [
        "etc/passwd-",
        "etc/group-",
        "etc/shadow-",
        "etc/gshadow-",
        "etc/gshadow",
        "etc/subuid-",
        "etc/subgid-",
    ] {
        tree.remove(stale);
    }
    Ok(())
}

struct Table {
    path: &'static str,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn read(tree: &Tree, path: &'static str) -> Result<Self> {
        let text = tree
            .text(path)
            .with_context(|| format!("the base has no /{path}"))?;
        let rows: Vec<Vec<String>> = text
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.split(':').map(str::to_owned).collect())
            .collect();
        if let Some(short) = rows.iter().find(|row: &&Vec<String>| row.len() < 4) {
            bail!(
                "/{path} has a line with too few fields: {}",
                short.join(":")
            );
        }
        Ok(Self { path, rows })
    }

    /// Sets the number in the third field of each wanted name; adds names that are not there. Tells which
    /// number became which.
    fn renumber(
        &mut self,
        wanted: &BTreeMap<&str, u32>,
        line: impl Fn(&str, u32) -> String,
    ) -> Result<BTreeMap<u32, u32>> {
        let mut moved = BTreeMap::new();
        for (name, number) in wanted {
            match self.rows.iter_mut().find(|row| row[0] == *name) {
                Some(row) => {
                    let old: u32 = row[2]
                        .parse()
                        .with_context(|| format!("the number of {name} in /{}", self.path))?;
                    if old != *number {
                        moved.insert(old, *number);
                    }
                    row[2] = number.to_string();
                }
                None => self
                    .rows
                    .push(line(name, *number).split(':').map(str::to_owned).collect()),
            }
        }
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for row in &self.rows {
            if let Some(other) = seen.insert(&row[2], &row[0]) {
                bail!(
                    "{} and {other} would both have the number {} in /{}: give one another number in /{SYSUSERS}",
                    row[0],
                    row[2],
                    self.path
                );
            }
        }
        Ok(moved)
    }

    fn write(self, tree: &mut Tree) -> Result<()> {
        let mut text = String::new();
        for row in &self.rows {
            text.push_str(&row.join(":"));
            text.push('\n');
        }
        let node = tree
            .get_mut(self.path)
            .with_context(|| format!("/{} vanished", self.path))?;
        *node = Node {
            kind: Kind::File(text.into_bytes().into()),
            ..node.clone()
        };
        Ok(())
    }
}

fn parse(text: &str) -> Result<Wanted> {
    let mut wanted = Wanted::default();
    for (number, line) in text.lines().enumerate() {
        let fields = fields(line);
        let place = || format!("/{SYSUSERS} line {}", number + 1);
        let number_of = |text: &str| -> Result<u32> {
            text.parse().with_context(|| {
                format!(
                    "{}: '{text}' is not a number; every user here needs a fixed one",
                    place()
                )
            })
        };
        match fields
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .as_slice()
        {
            [] => {}
            [kind, ..] if kind.starts_with('#') => {}
            ["g", name, gid, ..] => {
                wanted.groups.insert((*name).to_owned(), number_of(gid)?);
            }
            ["u" | "u!", name, ids, rest @ ..] => {
                let (uid, gid) = ids.split_once(':').unwrap_or((ids, ids));
                let gid = match gid.parse() {
                    Ok(gid) => gid,
                    Err(_) => *wanted.groups.get(gid).with_context(|| {
                        format!("{}: the group {gid} is not named above", place())
                    })?,
                };
                let field = |at: usize, default: &str| match rest.get(at) {
                    None | Some(&"-") => default.to_owned(),
                    Some(value) => (*value).to_owned(),
                };
                wanted.users.push(User {
                    name: (*name).to_owned(),
                    uid: number_of(uid)?,
                    gid,
                    description: field(0, ""),
                    home: field(1, "/"),
                    shell: field(2, "/usr/sbin/nologin"),
                });
            }
            ["m", user, group] => wanted
                .members
                .push(((*user).to_owned(), (*group).to_owned())),
            _ => bail!(
                "{}: not a line of the form 'u NAME NUMBER …', 'g NAME NUMBER' or 'm USER GROUP': {line}",
                place()
            ),
        }
    }
    Ok(wanted)
}

/// Splits at blanks, with double quotes.
fn fields(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = quoted.split_once('"').unwrap_or((quoted, ""));
            fields.push(field.to_owned());
            rest = after.trim_start();
        } else {
            let (field, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            fields.push(field.to_owned());
            rest = after.trim_start();
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(sysusers: &str) -> Tree {
        let mut tree = Tree::default();
        tree.put("etc/passwd", Node::file(*b"root:x:0:0:root:/root:/bin/bash\nbind:x:102:105::/var:/usr/sbin/nologin\nhaproxy:x:101:104::/var:/x\n", 0o644)).unwrap();
        tree.put(
            "etc/group",
            Node::file(*b"root:x:0:\nbind:x:105:\nhaproxy:x:104:\n", 0o644),
        )
        .unwrap();
        tree.put(
            "etc/shadow",
            Node::file(
                *b"root:*:1::::::\nbind:!:1::::::\nhaproxy:!:1::::::\n",
                0o640,
            ),
        )
        .unwrap();
        tree.put(SYSUSERS, Node::file(sysusers.as_bytes(), 0o644))
            .unwrap();
        let mut owned = Node::file(*b"", 0o644);
        (owned.uid, owned.gid) = (102, 105);
        tree.put("var/owned", owned).unwrap();
        tree
    }

    #[test]
    fn numbers_move_with_the_files() {
        let mut tree = base(
            "g clawgress 400\nu bind 401 \"DNS\" /var/cache/bind\nu haproxy 102\nu clawgress-policy 410:410 \"API\"\nm clawgress-policy clawgress\n",
        );
        settle(&mut tree).unwrap();
        let passwd = tree.text("etc/passwd").unwrap();
        assert!(
            passwd.contains("bind:x:401:401:") && passwd.contains("haproxy:x:102:102:"),
            "{passwd}"
        );
        assert!(
            passwd.contains("clawgress-policy:x:410:410:API:/:/usr/sbin/nologin"),
            "{passwd}"
        );
        assert!(
            tree.text("etc/group")
                .unwrap()
                .contains("clawgress:x:400:clawgress-policy\n")
        );
        assert!(
            tree.text("etc/shadow")
                .unwrap()
                .contains("clawgress-policy:!*:::::::\n")
        );
        let owned = tree.get("var/owned").unwrap();
        assert_eq!((owned.uid, owned.gid), (401, 401));
        // Settling twice changes nothing more.
        let once = tree.text("etc/passwd").unwrap().to_owned();
        settle(&mut tree).unwrap();
        assert_eq!(tree.text("etc/passwd").unwrap(), once);
    }

    #[test]
    fn two_users_never_share_a_number() {
        let error = settle(&mut base("u bind 101\n")).unwrap_err().to_string();
        assert!(
            error.contains("101") && error.contains("haproxy") && error.contains("bind"),
            "{error}"
        );
    }

    #[test]
    fn a_user_without_number_is_refused_with_its_line() {
        let error = format!("{:#}", settle(&mut base("\nu bind -\n")).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }
}
