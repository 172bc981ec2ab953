//! One flipped bit, one removed line, one swapped segment, a cut end, a new signature: each is named with its place.

use std::path::PathBuf;

use super::*;
use crate::event::Micros;
use crate::store::checkpoint::SigningKey;
use crate::store::tests::queued;
use crate::store::{Settings, Store, segment_name};

struct Example {
    directory: tempfile::TempDir,
    key: String,
    anchors: Vec<String>,
}

/// Five segments and a bit, a checkpoint after each batch.
fn example() -> Example {
    let directory = tempfile::tempdir().unwrap();
    let signing = SigningKey::open(&directory.path().join("key")).unwrap();
    let settings = Settings {
        segment_bytes: 8000,
    };
    let store = Store::open(&directory.path().join("s"), signing, settings).unwrap();
    let mut anchors = Vec::new();
    for batch in 0..30 {
        let records: Vec<_> = (batch * 6..batch * 6 + 6)
            .map(|number| queued(number + 1, "a", 0))
            .collect();
        store.append("gw", "q", &records).unwrap();
        anchors.extend(store.checkpoint(Micros(batch.cast_signed())).unwrap());
    }
    assert!(store.status().segments >= 5);
    let key = store.public_key().to_owned();
    Example {
        directory,
        key,
        anchors,
    }
}

impl Example {
    fn path(&self, segment: u64) -> PathBuf {
        self.directory.path().join("s").join(segment_name(segment))
    }

    fn text(&self, segment: u64) -> String {
        std::fs::read_to_string(self.path(segment)).unwrap()
    }

    fn faults(&self, anchors: &[String]) -> Vec<String> {
        let trust = Trust {
            key: Some(&self.key),
            anchors,
            growing: None,
        };
        let report = verify(&self.directory.path().join("s"), &trust).unwrap();
        assert_eq!(report.good, report.faults.is_empty());
        report.faults.iter().map(ToString::to_string).collect()
    }

    /// Writes, looks, puts back.
    fn with(&self, segment: u64, text: &[u8]) -> Vec<String> {
        let before = std::fs::read(self.path(segment)).unwrap();
        std::fs::write(self.path(segment), text).unwrap();
        let faults = self.faults(&[]);
        std::fs::write(self.path(segment), before).unwrap();
        faults
    }
}

#[test]
fn a_good_store_is_good() {
    let example = example();
    assert_eq!(example.faults(&example.anchors), [""; 0]);
}

#[test]
fn each_flipped_bit_is_named_with_its_line() {
    let example = example();
    let bytes = std::fs::read(example.path(2)).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let mut spoiled = bytes.clone();
        spoiled[at] ^= 1 << (at % 8);
        let faults = example.with(2, &spoiled);
        let line = bytes[..at].split(|byte| *byte == b'\n').count();
        let place = format!("{}, line {line} ", segment_name(2));
        assert!(
            faults
                .first()
                .is_some_and(|fault| fault.starts_with(&place)),
            "byte {at}: {faults:?}"
        );
        assert!(faults.len() <= 3, "byte {at}: {faults:?}");
    }
}

#[test]
fn a_removed_moved_or_added_line_is_named() {
    let example = example();
    let text = example.text(2);
    let lines: Vec<&str> = text.lines().collect();
    for removed in 1..lines.len() {
        let mut left = lines.clone();
        left.remove(removed);
        let faults = example.with(2, (left.join("\n") + "\n").as_bytes());
        // The last one is the seal.
        let place = if removed == lines.len() - 1 {
            format!("{}: it has no seal", segment_name(2))
        } else {
            format!("{}, line {} ", segment_name(2), removed + 1)
        };
        assert!(
            faults
                .first()
                .is_some_and(|fault| fault.starts_with(&place)),
            "{removed}: {faults:?}"
        );
    }
    let mut moved = lines.clone();
    moved.swap(4, 5);
    assert!(example.with(2, (moved.join("\n") + "\n").as_bytes())[0].contains("line 5 "));
    let mut added = lines.clone();
    added.insert(3, lines[2]);
    assert!(example.with(2, (added.join("\n") + "\n").as_bytes())[0].contains("line 4 "));
}

#[test]
fn lines_written_anew_with_a_right_chain_fail_at_the_signature() {
    let example = example();
    let text = example.text(1).replacen("r2\"", "rX\"", 1);
    let mut rewritten = Vec::new();
    let mut chain = Chain::genesis();
    for line in text.lines() {
        chain = crate::store::line::push(chain, &line.as_bytes()[17..], &mut rewritten);
    }
    let faults = example.with(1, &rewritten);
    assert!(
        faults[0].contains("lines 1 to 7 were written anew"),
        "{faults:?}"
    );
}

#[test]
fn a_log_written_anew_without_its_checkpoints_is_not_good() {
    let example = example();
    let mut chain = Chain::genesis();
    for segment in 1.. {
        if !example.path(segment).exists() {
            break;
        }
        let mut rewritten = Vec::new();
        for line in example.text(segment).lines() {
            let json = line.as_bytes()[17..].to_vec();
            let json = match kind(&json) {
                Some(Kind::Checkpoint) => continue,
                Some(Kind::Head) => {
                    let head: HeadLine = serde_json::from_slice(&json).unwrap();
                    let previous = head.segment.previous;
                    String::from_utf8(json)
                        .unwrap()
                        .replace(&previous, &chain.text())
                        .into_bytes()
                }
                _ => String::from_utf8(json)
                    .unwrap()
                    .replace("r2\"", "rX\"")
                    .into_bytes(),
            };
            chain = crate::store::line::push(chain, &json, &mut rewritten);
        }
        std::fs::write(example.path(segment), rewritten).unwrap();
    }
    let faults = example.faults(&[]);
    assert!(faults[0].contains("it has no seal"), "{faults:?}");
    assert!(
        faults.last().unwrap().contains("events is signed"),
        "{faults:?}"
    );
}

#[test]
fn a_seal_in_the_place_of_a_segment_in_the_middle_is_no_retention() {
    let example = example();
    let text = example.text(2);
    let seal = &text.lines().last().unwrap()[17..];
    let pruned = example.path(2).with_extension("pruned");
    std::fs::write(&pruned, seal).unwrap();
    std::fs::remove_file(example.path(2)).unwrap();
    let faults = example.faults(&[]);
    assert!(
        faults
            .iter()
            .any(|fault| fault.contains("removed otherwise")),
        "{faults:?}"
    );
}

#[test]
fn swapped_missing_and_foreign_segments_are_named() {
    let example = example();
    let (second, third) = (example.text(2), example.text(3));
    std::fs::write(example.path(2), &third).unwrap();
    std::fs::write(example.path(3), &second).unwrap();
    let faults = example.faults(&[]);
    assert!(
        faults[0].starts_with(&segment_name(2))
            && faults[0].contains("it is segment 3 under the name of segment 2"),
        "{faults:?}"
    );
    assert!(faults[1].starts_with(&segment_name(3)), "{faults:?}");
    std::fs::write(example.path(2), &second).unwrap();
    std::fs::remove_file(example.path(3)).unwrap();
    let faults = example.faults(&[]);
    assert_eq!(
        faults,
        [format!(
            "{}: segment 3 is missing before it",
            segment_name(4)
        )]
    );
    std::fs::write(example.path(3), super::tests::example().text(3)).unwrap();
    assert!(example.faults(&[])[0].contains("another store"));
}

#[test]
fn an_anchor_shows_a_cut_end_an_older_copy_and_a_new_signature() {
    let example = example();
    let anchor = &example.anchors[example.anchors.len() - 1..];
    let last = (1..100)
        .rfind(|number| example.path(*number).exists())
        .unwrap();
    let text = example.text(last);
    let cut = text.trim_end().rfind('\n').unwrap();
    std::fs::write(example.path(last), &text[..=cut]).unwrap();
    assert_eq!(
        example.faults(&[]),
        [""; 0],
        "without an anchor a cut at a line is not seen"
    );
    let faults = example.faults(anchor);
    assert!(
        faults[0].starts_with("the anchor: checkpoint ") && faults[0].contains("cut off"),
        "{faults:?}"
    );
    std::fs::remove_file(example.path(last)).unwrap();
    assert!(example.faults(anchor)[0].contains("cut off"));
    let other = super::tests::example();
    let trust = Trust {
        key: None,
        anchors: anchor,
        growing: None,
    };
    let report = verify(&other.directory.path().join("s"), &trust).unwrap();
    assert!(
        report.faults[0].what.contains("another key"),
        "{:?}",
        report.faults
    );
    let trust = Trust {
        key: Some(&example.key),
        anchors: &[],
        growing: None,
    };
    let report = verify(&other.directory.path().join("s"), &trust).unwrap();
    assert!(
        report.faults[0].what.contains("another key"),
        "{:?}",
        report.faults
    );
    assert!(example.faults(&["{}".to_owned()])[0].contains("not the form"));
}
