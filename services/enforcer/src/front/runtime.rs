//! The words of haproxy's runtime API that a changed map needs, and what it answers. Each command is sent on a
//! connection of its own, as it is.
//!
//! Nothing here is versioned (`prepare map`): where another version of a map is in the making, haproxy 2.6 can give a
//! prefix lookup an entry that is no prefix at all.

use crate::front::maps::MARK;
use crate::front::{MapName, Places};

/// haproxy takes a command, with all that belongs to it, of less than tune.bufsize.
const LONGEST_COMMAND: usize = 12_000;

pub(super) fn delete(path: &str, key: &str) -> String {
    format!("del map {path} {key}\n")
}

pub(super) fn set(path: &str, key: &str, value: &str) -> String {
    format!("set map {path} {key} {value}\n")
}

/// Adds lines of `key value`, as many to a command as it takes.
pub(super) fn add(path: &str, lines: &[&str]) -> Vec<String> {
    let mut commands = Vec::new();
    let mut open: Option<String> = None;
    for line in lines {
        if let Some(command) =
            open.take_if(|command| command.len() + line.len() + 2 > LONGEST_COMMAND)
        {
            commands.push(command + "\n");
        }
        let command = open.get_or_insert_with(|| format!("add map {path} <<\n"));
        command.push_str(line);
        command.push('\n');
    }
    commands.extend(open.map(|command| command + "\n"));
    commands
}

/// Asks which state haproxy has; see `mark_in`.
pub fn mark_question(places: &Places) -> String {
    format!("get map {} {MARK}\n", places.map(MapName::Gates))
}

/// The mark in the answer, to be compared with `Rendered::mark`.
pub fn mark_in(answer: &str) -> Option<&str> {
    let (_, rest) = answer.split_once("value=\"")?;
    rest.split_once('"').map(|(mark, _)| mark)
}

/// What haproxy had against a command that changes a map; None: it took it.
pub fn refusal(answer: &str) -> Option<&str> {
    Some(answer.trim()).filter(|said| !said.is_empty())
}
