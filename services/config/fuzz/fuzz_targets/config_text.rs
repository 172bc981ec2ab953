//! Any bytes as a configuration: whatever is understood of them survives both forms of text.

#![no_main]

use clawgress_config::policy::Policy;
use clawgress_config::{Candidate, Tree, curly, load, parse, set_lines};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let parsed = parse(bytes);
    if parsed.problems.is_empty() {
        for text in [curly(&parsed.tree), set_lines(&parsed.tree)] {
            let again = parse(text.as_bytes());
            assert_eq!(again.problems, [], "{text}");
            assert_eq!(again.tree, parsed.tree, "{text}");
        }
    }
    let candidate = Candidate::resume(Tree::default(), parsed.tree.clone());
    assert_eq!(candidate.compare().is_empty(), !candidate.is_changed());
    let _ = candidate.show(&[]);
    let _ = candidate.compare_commands();
    match load(bytes) {
        Ok(loaded) => {
            let policy = loaded.document.clawgress.map(|clawgress| clawgress.policy);
            let policy = policy.unwrap_or_default();
            let written = policy.to_json(2).expect("version 2 has everything");
            assert_eq!(
                Policy::from_json(written.as_bytes()),
                Ok(policy),
                "{written}"
            );
        }
        Err(invalid) => assert!(!invalid.problems.is_empty()),
    }
});
