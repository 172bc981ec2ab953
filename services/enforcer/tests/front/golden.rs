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
    let mut maps = String::new();
    for (name, text) in &front.maps {
        maps.push_str(&format!("== {}\n{text}", name.file()));
    }
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
fn the_front_of_the_policy_api_is_as_shipped() {
    let shipped =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rootfs-overlay/etc/haproxy/haproxy.cfg");
    let shipped = fs::read_to_string(shipped).unwrap();
    let (_, shipped) = shipped.split_once("\ndefaults").unwrap();
    let config = rendered(&revision(POLICY)).config;
    let (_, api) = config.split_once("\ndefaults api").unwrap();
    let (api, _) = api.split_once("\nbackend flows-of-source").unwrap();
    let api = api.replace(" from api", "");
    // Room for it among the others' flows is the one thing that it has besides.
    let lines = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("maxconn"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(lines(&api), lines(shipped));
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

/// Its sandbox forbids memory that is written and run, which is what haproxy makes of every regular expression.
#[test]
fn no_expression_is_compiled_in_the_sandbox() {
    let config = rendered(&revision(POLICY)).config;
    for word in ["reg(", "regsub(", "_reg ", "-m reg", "regim"] {
        assert!(!config.contains(word), "{word}");
    }
}
