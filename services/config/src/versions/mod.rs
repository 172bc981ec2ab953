//! Versions of the configuration's text: which one a text is of, and how an older one becomes today's, in memory alone.
//!
//! One module per version. Each says how its words become those of the version after it; the newest one's are the
//! table's own. A text is never rewritten here: the file of an older image stays as that image wrote it.

mod v1;

use crate::problem::{Position, Problem};
use crate::tree::Tree;

/// The newest version, which is the one that is written.
pub const VERSION: u32 = 1;

const HEADER: &str = "// clawgress-config";

/// The steps from each version to the next: the step at index 0 reads version 1.
const STEPS: [fn(Tree) -> Tree; VERSION as usize] = [v1::to_next];

/// A tree of `version` in today's words.
pub(crate) fn to_newest(version: u32, tree: Tree) -> Tree {
    let done = version.saturating_sub(1) as usize;
    STEPS.iter().skip(done).fold(tree, |tree, step| step(tree))
}

/// The version of a text. The header is optional, but one that names a newer version must not be half understood.
pub(crate) fn of(text: &str) -> Result<u32, Problem> {
    for (number, line) in text.lines().enumerate() {
        let Some(version) = line.trim_start().strip_prefix(HEADER) else {
            continue;
        };
        let position = Some(Position {
            line: u32::try_from(number + 1).unwrap_or(u32::MAX),
            column: 1,
        });
        let first = text.lines().take(number).all(|line| line.trim().is_empty());
        return match version.trim().parse::<u32>() {
            Ok(version) if (1..=VERSION).contains(&version) && first => Ok(version),
            Ok(version) if version > VERSION => Err(Problem::new(
                &[],
                position,
                format!(
                    "the configuration is of version {version}, this image knows up to version {VERSION}"
                ),
                "boot a newer image, or write the file for this one",
            )),
            Ok(version) if (1..=VERSION).contains(&version) => Err(Problem::new(
                &[],
                position,
                "the version line is not the first line",
                format!("move `{HEADER} {version}` to the top"),
            )),
            _ => Err(Problem::new(
                &[],
                position,
                format!("`{}` is not a configuration version", version.trim()),
                format!("write `{HEADER} {VERSION}`"),
            )),
        };
    }
    Ok(VERSION)
}
