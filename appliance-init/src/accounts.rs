//! Groups and passwords from the files themselves. Never through libc: a static binary has no name services.

use std::fs;

use crate::paths::Paths;

/// The number of a group, if `/etc/group` has it.
pub(crate) fn group(paths: &Paths, name: &str) -> Option<u32> {
    number_in(&fs::read_to_string(paths.groups()).ok()?, name)
}

/// The number of a user, if `/etc/passwd` has it.
pub(crate) fn user(paths: &Paths, name: &str) -> Option<u32> {
    number_in(&fs::read_to_string(paths.users()).ok()?, name)
}

/// Both files have the number in the third field.
fn number_in(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// True once somebody holds a credential of this box: then no console logs in by itself any more.
///
/// What cannot be read counts as a credential: a console that asks is safe, one that opens by mistake is not.
pub(crate) fn credential_exists(paths: &Paths) -> bool {
    let keys = |home: std::path::PathBuf| home.join(".ssh/authorized_keys");
    let homes = match fs::read_dir(paths.home()) {
        Ok(entries) => entries
            .filter_map(Result::ok)
            .map(|entry| keys(entry.path()))
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(_) => return true,
    };
    let files = [paths.credentials(), keys(paths.root_home())];
    files
        .into_iter()
        .chain(homes)
        .any(|path| exists_with_content(&path))
        || password_set(paths)
}

fn exists_with_content(path: &std::path::Path) -> bool {
    match fs::metadata(path) {
        Ok(found) => found.is_dir() || found.len() > 0,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

fn password_set(paths: &Paths) -> bool {
    match fs::read_to_string(paths.shadow()) {
        Ok(text) => any_password(&text),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// An empty field is no password, `!` and `*` lock it.
fn any_password(shadow: &str) -> bool {
    shadow
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .any(|hash| !hash.is_empty() && !hash.starts_with(['!', '*']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let text = "root:x:0:\nhaproxy:x:971:\nbroken\nclawgress:x:970:named,haproxy\n";
        assert_eq!(number_in(text, "haproxy"), Some(971));
        assert_eq!(number_in(text, "clawgress"), Some(970));
        assert_eq!(number_in(text, "broken"), None);
        assert_eq!(number_in(text, "x"), None);
    }

    #[test]
    fn a_fresh_box_has_no_credential() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        assert!(!credential_exists(&paths));
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(
            paths.shadow(),
            "root:*:1::::::\nops:!$6$x:1::::::\nempty::1::::::\n",
        )
        .unwrap();
        assert!(!credential_exists(&paths));
    }

    #[test]
    fn each_kind_of_credential_counts() {
        for (file, text) in [
            ("config/clawgress/credentials", "x"),
            ("root/.ssh/authorized_keys", "ssh-ed25519 A"),
            ("home/ops/.ssh/authorized_keys", "ssh-ed25519 A"),
            ("etc/shadow", "root:$y$j9T$x:1::::::\n"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            assert!(credential_exists(&Paths::below(dir.path())), "{file}");
        }
    }

    #[test]
    fn what_cannot_be_read_counts_as_a_credential() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/shadow")).unwrap();
        assert!(credential_exists(&Paths::below(dir.path())));
    }
}
