//! A test's policy with agents and their rules in it: policy.json with one field more, `access`.

use clawgress_config::access::Access;
use clawgress_config::policy::Policy;
use qemu_tests::{Error, Result};
use serde_json::Value;

pub(crate) fn read(text: &str) -> Result<(Policy, Access)> {
    let wrong = |error: &dyn std::fmt::Display| Error::other(format!("the test's policy: {error}"));
    let mut json: Value = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    let access = json
        .as_object_mut()
        .and_then(|fields| fields.remove("access"));
    let access = match access {
        Some(access) => serde_json::from_value(access).map_err(|error| wrong(&error))?,
        None => Access::default(),
    };
    // As it was written: what is read gets told where in the text a problem is.
    let text = if access == Access::default() {
        text.to_owned()
    } else {
        json.to_string()
    };
    let policy = Policy::from_json(text.as_bytes());
    let policy =
        policy.map_err(|problems| Error::other(format!("the test's policy: {problems:?}")))?;
    Ok((policy, access))
}
