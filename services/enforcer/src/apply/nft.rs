//! nft: a transaction is tried, and brought into the kernel; what the kernel has is listed for people.

use std::path::Path;
use std::time::Duration;

use super::run::{RunError, run};
use crate::plan::layout::{FAMILY, METER, TABLE};

/// A ruleset of thousands of networks on an emulated machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Tries a transaction without changing anything.
pub async fn check(nft: &Path, transaction: &str) -> Result<(), RunError> {
    let arguments = ["-c", "-j", "-f", "-"];
    let doing = "checking the ruleset";
    run(doing, nft, &arguments, Some(transaction), DEADLINE).await?;
    Ok(())
}

/// All of the transaction, or nothing of it.
pub async fn load(nft: &Path, transaction: &str) -> Result<(), RunError> {
    let doing = "loading the ruleset";
    run(doing, nft, &["-j", "-f", "-"], Some(transaction), DEADLINE).await?;
    Ok(())
}

/// Loads the ruleset that drops everything.
pub async fn seal(nft: &Path, sealed: &Path) -> Result<(), RunError> {
    let path = sealed.display().to_string();
    run("sealing", nft, &["-f", &path], None, DEADLINE).await?;
    Ok(())
}

/// Both tables as nft writes them.
pub async fn list(nft: &Path) -> Result<String, RunError> {
    let mut text = String::new();
    for table in [TABLE, METER] {
        let arguments = ["list", "table", FAMILY, table];
        match run("listing the ruleset", nft, &arguments, None, DEADLINE).await {
            Ok(listed) => text.push_str(&listed),
            // A sealed box has no such table.
            Err(RunError::Failed { .. }) if table == METER => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}
