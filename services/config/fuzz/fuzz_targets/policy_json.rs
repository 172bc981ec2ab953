//! Any bytes as policy.json: they are refused with words, or mean a policy that survives every way of writing it.

#![no_main]

use clawgress_config::policy::Policy;
use clawgress_config::{Tree, curly, load, validate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let reading = match Policy::read_json(bytes) {
        Ok(reading) => reading,
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.what.is_empty() && !problem.fix.is_empty());
            }
            return;
        }
    };
    let policy = reading.policy;
    let written = policy.to_json(2).expect("version 2 has everything");
    assert_eq!(Policy::from_json(written.as_bytes()).as_ref(), Ok(&policy));
    let mut tree = Tree::default();
    tree.set_policy(&policy);
    let verdict = validate(&tree);
    assert_eq!(verdict.problems, []);
    let read = load(curly(&tree).as_bytes()).expect("what is valid loads");
    let read = read.document.clawgress.map(|clawgress| clawgress.policy);
    assert_eq!(read.unwrap_or_default(), policy);
});
