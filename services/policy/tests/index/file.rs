//! A revision's file: what is written is what is read, or it is refused with the path.

use std::{fs, path::Path};

use clawgress_config::policy::{MAX_POLICY_BYTES, Policy};
use clawgress_policy::{Revision, RevisionError};

use crate::made::{full, pattern, revision};

fn refused(path: &Path) -> String {
    let error = Revision::read(path)
        .expect_err("must be refused")
        .to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    error
}

#[test]
fn what_is_written_is_what_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("7.json");
    for policy in [Policy::default(), full()] {
        let revision = revision(policy);
        revision.write(&path).unwrap();
        assert_eq!(Revision::read(&path).unwrap(), revision);
        let first = fs::read(&path).unwrap();
        revision.write(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
    }
    let names: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["7.json"]);
}

#[test]
fn the_digest_is_of_the_content_alone() {
    let one = revision(full());
    let mut other = one.clone();
    other.number += 1;
    other.created += 60;
    let digest = one.content_digest().unwrap();
    assert_eq!(digest.len(), 64);
    assert_eq!(other.content_digest().unwrap(), digest);
    other
        .policy
        .labels
        .insert(pattern("a.example"), "x".to_owned());
    assert_ne!(other.content_digest().unwrap(), digest);
    let mut sealed = one;
    sealed.enabled = false;
    assert_ne!(sealed.content_digest().unwrap(), digest);
}

#[test]
fn damage_of_any_byte_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("7.json");
    let revision = revision(full());
    revision.write(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() - 1 {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x01;
        fs::write(&path, &damaged).unwrap();
        match Revision::read(&path) {
            Err(_) => {}
            // The number and the time are not part of the content; whoever reads knows which number he asked for.
            Ok(read) => assert_ne!(
                (read.number, read.created),
                (revision.number, revision.created),
                "{at}"
            ),
        }
        fs::write(&path, &whole[..at]).unwrap();
        refused(&path);
    }
}

#[test]
fn what_is_no_revision_is_refused_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("7.json");
    assert!(matches!(
        Revision::read(&path),
        Err(RevisionError::Io { .. })
    ));
    assert!(refused(&path).contains("reading the revision"));
    assert!(refused(directory.path()).contains("reading the revision"));
    let revision = revision(Policy::default());
    revision.write(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for (from, to, tells) in [
        ("\"format\":1", "\"format\":2", "format 1"),
        ("\"number\":7", "\"number\":0", "number is 0"),
        ("\"number\":7", "\"nummer\":7", "nummer"),
        ("local0", "local1", "damaged"),
    ] {
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        assert!(refused(&path).contains(tells), "{}", refused(&path));
    }
    // Longer than any revision, and sparse.
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(refused(&path).contains("more than"));
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("7.json");
    let mut numberless = revision(Policy::default());
    numberless.number = 0;
    assert!(
        numberless
            .write(&path)
            .unwrap_err()
            .to_string()
            .contains("number is 0")
    );
    let mut long = full();
    long.labels
        .insert(pattern("a.example"), "x".repeat(MAX_POLICY_BYTES));
    let error = revision(long).write(&path).unwrap_err().to_string();
    assert!(
        error.contains("7.json") && error.contains("shorten"),
        "{error}"
    );
    assert!(!path.exists());
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("7.json");
    revision(full()).write(&path).unwrap();
    let before = fs::read(&path).unwrap();
    // A directory in the way of the file aside.
    fs::create_dir(directory.path().join(".7.json.new")).unwrap();
    let error = revision(Policy::default())
        .write(&path)
        .unwrap_err()
        .to_string();
    assert!(error.contains(".7.json.new"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    let nowhere = directory.path().join("none/7.json");
    assert!(
        revision(full())
            .write(&nowhere)
            .unwrap_err()
            .to_string()
            .contains("none")
    );
    assert!(revision(full()).write(Path::new("/")).is_err());
}

#[test]
fn agents_and_rules_are_kept_and_absent_where_there_are_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("7.json");
    let mut revision = revision(full());
    revision.write(&path).unwrap();
    let before = fs::read_to_string(&path).unwrap();
    assert!(!before.contains("\"access\""), "{before}");
    let digest = revision.content_digest().unwrap();
    let text = b"set service clawgress agent a team t
set service clawgress agent a project p
set service clawgress agent a environment e
set service clawgress agent a auth-type jwt
set service clawgress rule r action deny
set service clawgress rule r domain *.example
set service clawgress quota team t rps 5";
    revision.access = clawgress_config::load(text)
        .unwrap()
        .document
        .clawgress
        .unwrap()
        .access;
    revision.write(&path).unwrap();
    assert_eq!(Revision::read(&path).unwrap(), revision);
    assert_ne!(revision.content_digest().unwrap(), digest);
}
