//! What is written for haproxy, byte for byte. `CLAWGRESS_BLESS=1` writes it anew; the difference is then reviewed.

use std::fs;
use std::path::Path;

use clawgress_enforcer::front::{Places, mark_in, mark_question, refusal};

use crate::scene::{POLICY, rendered, revision};

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/front/golden")
        .join(name);
    if std::env::var_os("CLAWGRESS_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{} differs; run with CLAWGRESS_BLESS=1 and review the difference",
        path.display()
    );
}

#[test]
fn what_haproxy_is_given() {
    let front = rendered(&revision(POLICY));
    compare("haproxy.cfg", &front.config);
    let maps: String = front
        .maps
        .iter()
        .map(|(name, text)| format!("== {}\n{text}", name.file()))
        .collect();
    compare("maps.txt", &maps);
    let [joined] = front.joined.as_slice() else {
        panic!("{:?}", front.joined)
    };
    assert_eq!(joined.of, ["/config/keys/gw.pem", "/config/keys/gw.key"]);
    assert!(front.config.contains(&joined.path));
    assert_eq!(
        front,
        rendered(&revision(POLICY)),
        "the same revision gives the same bytes"
    );
}

#[test]
fn a_revision_that_is_not_enabled_opens_nothing() {
    let mut off = revision(POLICY);
    off.enabled = false;
    let front = rendered(&off);
    let gates: Vec<&str> = front.maps[&clawgress_enforcer::front::MapName::Gates]
        .lines()
        .collect();
    assert_eq!(gates, [format!("=mark {}", front.mark)]);
    assert!(front.maps[&clawgress_enforcer::front::MapName::Names].is_empty());
    assert!(!front.config.contains("gw.example.com"));
}

#[test]
fn haproxy_is_asked_which_state_it_has() {
    let places = Places::default();
    assert_eq!(
        mark_question(&places),
        "get map /run/clawgress/enforcer/front/gates.map =mark\n"
    );
    let answer = "type=str, case=sensitive, found=yes, idx=tree, key=\"=mark\", value=\"0123456789abcdef\", type=\"str\"\n\n";
    assert_eq!(mark_in(answer), Some("0123456789abcdef"));
    assert_eq!(mark_in("type=str, case=sensitive, found=no\n"), None);
    assert_eq!(refusal("\n"), None);
    assert_eq!(
        refusal("Unknown map identifier.\n\n"),
        Some("Unknown map identifier.")
    );
}
