//! Working on a candidate as at a console: edits, what is shown, what would change.

use clawgress_config::{Candidate, Tree, load, words};
use proptest::prelude::*;

const RUNNING: &str = "set system host-name gw1
set system name-server 192.0.2.53
set service clawgress enable
set service clawgress policy domain api.openai.com label llm-provider
set service clawgress policy ip 1.2.3.0/24
set service clawgress policy port 443
set service clawgress policy host agent-1 source 192.168.10.10/32
";

fn running() -> Tree {
    load(RUNNING.as_bytes()).unwrap().tree
}

/// Types a line.
fn edit(candidate: &mut Candidate, line: &str) -> Result<(), String> {
    let words = words(line).map_err(|problem| problem.to_string())?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.split_first() {
        Some((&"set", path)) => candidate.set(path),
        Some((&"delete", path)) => candidate.delete(path),
        _ => panic!("{line}"),
    }
    .map_err(|error| error.to_string())
}

fn edited(lines: &str) -> Candidate {
    let mut candidate = Candidate::new(running());
    for line in lines.lines() {
        edit(&mut candidate, line).expect(line);
    }
    candidate
}

const EDITS: &str = "set system host-name gw2
set system name-server 192.0.2.54
delete system name-server 192.0.2.53
set service clawgress policy domain *.example.com
delete service clawgress policy ip
set service clawgress policy host agent-2 source 192.168.10.11/32
set service clawgress policy host agent-2 domain a.example label \"the second\"
";

#[test]
fn show_marks_what_was_edited() {
    assert_eq!(
        edited(EDITS).show(&[]).unwrap(),
        "  system {
>     host-name gw2
+     name-server 192.0.2.54
-     name-server 192.0.2.53
  }
  service {
      clawgress {
          enable
          policy {
+             domain *.example.com
              domain api.openai.com {
                  label llm-provider
              }
-             ip 1.2.3.0/24
              port 443
              host agent-1 {
                  source 192.168.10.10/32
              }
+             host agent-2 {
+                 source 192.168.10.11/32
+                 domain a.example {
+                     label \"the second\"
+                 }
+             }
          }
      }
  }
"
    );
    let shown = edited(EDITS).show(&["system"]).unwrap();
    assert_eq!(
        shown,
        "> host-name gw2\n+ name-server 192.0.2.54\n- name-server 192.0.2.53\n"
    );
    assert_eq!(
        edited(EDITS).show(&["protocols"]).unwrap_err().to_string(),
        "`protocols` is not there; show lists what is"
    );
}

#[test]
fn show_commands_are_set_lines() {
    assert_eq!(
        Candidate::new(running()).show_commands(&[]).unwrap(),
        RUNNING
    );
    assert_eq!(
        edited(EDITS)
            .show_commands(&["service", "clawgress", "policy", "host", "agent-2"])
            .unwrap(),
        "set service clawgress policy host agent-2 source 192.168.10.11/32
set service clawgress policy host agent-2 domain a.example label \"the second\"
"
    );
    let leaf = ["service", "clawgress", "enable"];
    assert_eq!(
        edited("").show_commands(&leaf).unwrap(),
        "set service clawgress enable\n"
    );
}

#[test]
fn compare_says_what_a_commit_changes() {
    let mut candidate = edited(EDITS);
    assert_eq!(
        candidate.compare(),
        "[system]
+ host-name gw2
- host-name gw1
+ name-server 192.0.2.54
- name-server 192.0.2.53
[service clawgress policy]
+ domain *.example.com
- ip 1.2.3.0/24
+ host agent-2 {
+     source 192.168.10.11/32
+     domain a.example {
+         label \"the second\"
+     }
+ }
"
    );
    assert_eq!(
        candidate.compare_commands(),
        "delete system name-server 192.0.2.53
delete service clawgress policy ip
set system host-name gw2
set system name-server 192.0.2.54
set service clawgress policy domain *.example.com
set service clawgress policy host agent-2 source 192.168.10.11/32
set service clawgress policy host agent-2 domain a.example label \"the second\"
"
    );
    assert!(candidate.is_changed());
    let mut other = candidate.clone();
    other.committed();
    assert!(!other.is_changed() && other.compare().is_empty());
    candidate.discard();
    assert!(!candidate.is_changed());
    assert_eq!(candidate.compare() + &candidate.compare_commands(), "");
    assert_eq!(candidate.tree(), &running());
}

#[test]
fn what_the_table_does_not_know_is_refused_at_once() {
    let mut candidate = Candidate::new(running());
    for (line, expected) in [
        ("set service clawgres enable", "did you mean clawgress?"),
        ("set service clawgress policy port 0", "`0` is not a port"),
        ("set service clawgress policy domain", "a name is missing"),
        (
            "set service clawgress policy",
            "the path ends too early; add what follows: domain, ip",
        ),
        ("set system host-name", "the value is missing"),
        ("set system host-name a b", "nothing can follow the value"),
        ("set service clawgress enable yes", "takes no value"),
        ("set", "there is no path to set"),
        ("set system host-name \"a", "not closed"),
        (
            "set system { host-name a }",
            "braces and semicolons are for files",
        ),
        ("delete system ntp", "is not there"),
    ] {
        let refused = edit(&mut candidate, line).expect_err(line);
        assert!(refused.contains(expected), "{line}: {refused}");
        assert!(!candidate.is_changed(), "{line}");
    }
    // A name alone is whole, and so is a port.
    edit(&mut candidate, "set interfaces ethernet eth0").unwrap();
    edit(&mut candidate, "set service clawgress policy port 80").unwrap();
    assert!(candidate.verdict().problems.is_empty());
}

#[test]
fn taking_udp_away_never_opens_tcp() {
    let mut candidate = edited("set service clawgress policy port 123 protocol udp");
    edit(
        &mut candidate,
        "delete service clawgress policy port 123 protocol udp",
    )
    .unwrap();
    assert!(!candidate.is_changed(), "{}", candidate.compare());
    let both = "set service clawgress policy port 53 protocol udp
set service clawgress policy port 53 protocol tcp
delete service clawgress policy port 53 protocol udp";
    let ports = edited(both)
        .verdict()
        .document
        .clawgress
        .unwrap()
        .policy
        .global
        .allow
        .ports;
    let ports: Vec<_> = ports
        .iter()
        .map(|rule| (rule.port, rule.protocol.word()))
        .collect();
    assert_eq!(ports, [(53, "tcp"), (443, "tcp")]);
}

/// Lines of which some replace, some extend and some remove what others set.
fn line() -> impl Strategy<Value = Vec<&'static str>> {
    let policy = prop::sample::select(vec![
        "domain a.example",
        "domain a.example label x",
        "domain a.example label y",
        "domain *.b.example time-window day mon",
        "domain *.b.example time-window start 09:00",
        "port 443",
        "port 443 protocol udp",
        "port 443 protocol tcp",
        "ip 192.0.2.0/24",
        "rate-limit-kbps 5",
        "rate-limit-kbps 6",
        "host a source 192.0.2.1/32",
        "host a exfil domain a.example bytes 7",
        "host b",
        "proxy mode sni-allowlist",
    ])
    .prop_map(|line| {
        ["service", "clawgress", "policy"]
            .into_iter()
            .chain(line.split(' '))
            .collect()
    });
    let other = prop::sample::select(vec![
        vec!["service", "clawgress", "enable"],
        vec!["system", "host-name", "a"],
        vec!["system", "host-name", "b"],
        vec!["system", "ntp", "trust-hardware-clock"],
        vec!["interfaces", "ethernet", "eth0"],
        vec!["interfaces", "ethernet", "eth10", "address", "dhcp"],
        vec!["interfaces", "ethernet", "eth2", "description", "two words"],
    ]);
    prop_oneof![policy, other]
}

proptest! {
    #[test]
    fn the_commands_of_a_comparison_lead_from_one_to_the_other(
        before in prop::collection::vec(line(), 0..12),
        edits in prop::collection::vec((line(), any::<bool>(), 1_usize..9), 0..12),
    ) {
        let mut running = Tree::default();
        for path in before {
            running.set(&path).unwrap();
        }
        let mut candidate = Candidate::new(running.clone());
        for (path, set, length) in edits {
            if set {
                candidate.set(&path).unwrap();
            } else {
                candidate.delete(&path[..length.min(path.len())]).ok();
            }
        }
        let mut led = Candidate::new(running);
        for line in candidate.compare_commands().lines() {
            // A delete may have taken along a group that it left empty.
            if let Err(error) = edit(&mut led, line) {
                prop_assert!(line.starts_with("delete "), "{}: {}", line, error);
            }
        }
        prop_assert_eq!(led.tree(), candidate.tree(), "{}", candidate.compare_commands());
        prop_assert_eq!(candidate.compare().is_empty(), !candidate.is_changed());
        let marked = candidate.show(&[]).unwrap().lines().any(|line| !line.starts_with(' '));
        prop_assert_eq!(marked, candidate.is_changed());
    }
}
