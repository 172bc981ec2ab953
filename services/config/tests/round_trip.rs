//! Properties of parser and printer: any tree survives both forms of text, and no bytes make the parser panic.

use std::fmt::Write as _;

use clawgress_config::{MAX_BYTES, Tree, curly, load, parse, set_lines, validate};
use proptest::prelude::*;

/// Words of the schema, values right and wrong, and words that need every kind of quoting.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "system",
            "host-name",
            "name-server",
            "ntp",
            "server",
            "interfaces",
            "ethernet",
            "eth0",
            "eth10",
            "eth2",
            "address",
            "dhcp",
            "role",
            "wan",
            "management",
            "description",
            "protocols",
            "static",
            "route",
            "0.0.0.0/0",
            "next-hop",
            "192.0.2.1",
            "192.0.2.1/24",
            "service",
            "ssh",
            "port",
            "22",
            "set",
            "#x",
            "//y",
            "/*",
            "",
            "two words",
            "a\"b",
            "it's",
            "back\\slash",
            "{",
            "}",
            ";",
            "line\nend",
            "tab\there",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ]
}

/// Paths that mostly follow the schema for a while, as those of operators do.
fn path() -> impl Strategy<Value = Vec<String>> {
    let start = prop::sample::select(vec![
        vec![],
        vec!["system"],
        vec!["system", "host-name"],
        vec!["system", "name-server"],
        vec!["interfaces", "ethernet", "eth0"],
        vec!["interfaces", "ethernet", "eth0", "address"],
        vec!["interfaces", "ethernet", "eth1", "description"],
        vec!["protocols", "static", "route", "10.0.0.0/8", "next-hop"],
    ]);
    (start, prop::collection::vec(word(), 1..5))
        .prop_map(|(start, rest)| start.into_iter().map(str::to_owned).chain(rest).collect())
}

fn tree() -> impl Strategy<Value = Tree> {
    prop::collection::vec(path(), 0..24).prop_map(|paths| {
        let mut tree = Tree::default();
        for path in paths {
            let words: Vec<&str> = path.iter().map(String::as_str).collect();
            tree.set(&words).expect("a path with words can be set");
        }
        tree
    })
}

proptest! {
    #[test]
    fn both_forms_give_the_tree_back(tree in tree()) {
        for text in [curly(&tree), set_lines(&tree)] {
            let parsed = parse(text.as_bytes());
            prop_assert_eq!(&parsed.problems, &[], "{}", text);
            prop_assert_eq!(&parsed.tree, &tree, "{}", text);
            // The order of values, which equality does not see, is kept too.
            prop_assert_eq!(curly(&parsed.tree), curly(&tree));
            prop_assert_eq!(set_lines(&parsed.tree), set_lines(&tree));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = load(&bytes);
    }

    #[test]
    fn no_text_of_ours_panics(words in prop::collection::vec(
        prop_oneof![word(), prop::sample::select(vec!["{", "}", ";", "\n", "\"", "'", "/*", "*/", "set "])
            .prop_map(str::to_owned)], 0..60)) {
        let text = words.join(" ");
        if let Err(invalid) = load(text.as_bytes()) {
            prop_assert!(!invalid.problems.is_empty());
            prop_assert!(invalid.problems.iter().all(|problem| !problem.what.is_empty() && !problem.fix.is_empty()));
        }
    }

    #[test]
    fn what_validates_loads_from_its_text(tree in tree()) {
        let verdict = validate(&tree);
        let loaded = load(curly(&tree).as_bytes());
        prop_assert_eq!(verdict.problems.is_empty(), loaded.is_ok());
        if let Ok(loaded) = loaded {
            prop_assert_eq!(loaded.document, verdict.document);
        }
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let large = vec![b'x'; MAX_BYTES + 1];
    assert!(
        load(&large)
            .unwrap_err()
            .to_string()
            .contains("larger than")
    );
    let deep = "a {".repeat(100_000);
    assert!(
        load(deep.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("longer than 16 words")
    );
    let deep = "{".repeat(100_000);
    assert!(load(deep.as_bytes()).is_err());
    let many = "x;".repeat(1_000_000);
    assert!(load(many.as_bytes()).is_err());
}

#[test]
fn a_megabyte_of_values_is_read_in_time() {
    let mut text = String::new();
    let mut number = 0_u32;
    while text.len() < 1 << 20 {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
        text.extend(["set system name-server ", &address.to_string(), "\n"]);
        number += 1;
    }
    let start = std::time::Instant::now();
    let loaded = load(text.as_bytes()).expect("valid");
    assert_eq!(loaded.document.system.name_servers.len() as u32, number);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn a_hundred_thousand_domains_are_text_like_any_other() {
    let mut text = String::from("service {\n clawgress {\n  policy {\n");
    for number in 0..100_000 {
        writeln!(
            text,
            "   domain host-{number}.example.com {{ label of-{} }}",
            number % 7
        )
        .unwrap();
    }
    text.push_str("  }\n }\n}\n");
    let start = std::time::Instant::now();
    let loaded = load(text.as_bytes()).expect("valid");
    let took = start.elapsed();
    let clawgress = loaded.document.clawgress.expect("there");
    assert_eq!(clawgress.policy.global.allow.domains.len(), 100_000);
    assert_eq!(clawgress.policy.labels.len(), 100_000);
    println!("{took:?}");
    assert!(took.as_secs() < 60, "{took:?}");
    assert_eq!(
        load(curly(&loaded.tree).as_bytes()).unwrap().tree,
        loaded.tree
    );
}
