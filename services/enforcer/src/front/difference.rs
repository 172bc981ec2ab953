//! From one state of the front to the next: by commands to the haproxy that runs, or by a reload.
//!
//! Commands follow one order: what closes comes before what opens. So between any two of them no flow is let through
//! that both the old and the new state would cut.

use crate::front::maps::{MARK, OPEN};
use crate::front::ruled::TRIED;
use crate::front::{MapName, Places, Rendered, runtime};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    Nothing,
    /// To be sent in this order, each on its own; all answers must be empty.
    Runtime(Vec<String>),
    /// By files alone. Flows that are open stay with the old process.
    Reload,
}

/// haproxy 2.6 finds the entry to change by walking all entries, some twenty million a second.
const MOST_STEPS: usize = 5_000_000;
/// Beyond this a reload costs less than the commands.
const MOST_LINES: usize = 200_000;

/// What changed in one map.
#[derive(Default)]
struct Change<'l> {
    entries: usize,
    removed: Vec<&'l str>,
    /// Key and new value.
    altered: Vec<(&'l str, &'l str)>,
    /// Lines.
    added: Vec<&'l str>,
}

impl Change<'_> {
    fn is_cheap(&self) -> bool {
        (self.removed.len() + self.altered.len()).saturating_mul(self.entries) <= MOST_STEPS
            && self.added.len() <= MOST_LINES
    }
}

/// How the running haproxy, which has `old`, comes to `new`. The files must be those of `new` before.
pub fn difference(old: &Rendered, new: &Rendered, places: &Places) -> Update {
    if old == new {
        return Update::Nothing;
    }
    if old.config != new.config || old.joined != new.joined {
        return Update::Reload;
    }
    let mut steps = Steps::default();
    for name in MapName::ALL {
        let (Some(old), Some(new)) = (old.maps.get(&name), new.maps.get(&name)) else {
            return Update::Reload;
        };
        let change = compare(old, new);
        if !change.is_cheap() {
            return Update::Reload;
        }
        steps.take(name, &places.map(name), &change);
    }
    Update::Runtime(steps.in_order())
}

fn split(line: &str) -> (&str, &str) {
    line.split_once(' ').unwrap_or((line, ""))
}

/// Both are sorted by key, and have a key once.
fn compare<'l>(old: &'l str, new: &'l str) -> Change<'l> {
    let mut change = Change::default();
    let (mut olds, mut news) = (old.lines().peekable(), new.lines().peekable());
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return change,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => split(old).0.cmp(split(new).0),
        };
        let gone = order.is_le().then(|| olds.next()).flatten();
        let come = order.is_ge().then(|| news.next()).flatten();
        change.entries += usize::from(gone.is_some());
        match (gone, come) {
            (Some(gone), Some(come)) if gone != come => change.altered.push(split(come)),
            (Some(gone), None) => change.removed.push(split(gone).0),
            (None, Some(come)) => change.added.push(come),
            _ => {}
        }
    }
}

/// Commands by what they do.
#[derive(Default)]
struct Steps {
    closing: Vec<String>,
    /// Whose a source is, and what a rule hangs on: neither closes nor opens by itself.
    turning: Vec<String>,
    opening: Vec<String>,
    mark: Vec<String>,
}

impl Steps {
    fn take(&mut self, name: MapName, path: &str, change: &Change<'_>) {
        let delete = change.removed.iter().map(|key| runtime::delete(path, key));
        let set = |(key, value): &(&str, &str)| runtime::set(path, key, value);
        let add = runtime::add(path, &change.added);
        match name {
            // An entry here closes.
            MapName::Caps | MapName::Own => {
                self.closing.extend(add);
                self.closing.extend(change.altered.iter().map(set));
                self.opening.extend(delete);
            }
            MapName::Gates => {
                for (key, value) in &change.altered {
                    let steps = match (*key, *value) {
                        (MARK, _) => &mut self.mark,
                        (_, OPEN) => &mut self.opening,
                        _ => &mut self.closing,
                    };
                    steps.push(runtime::set(path, key, value));
                }
                // A class that nothing hangs on yet.
                self.closing.extend(add);
                self.opening.extend(delete);
            }
            // A line may open or close, within a shorter one that does the other. What is gone may have been either:
            // as long as it is there, it lets through nothing but what was let through before.
            MapName::Rules => {
                let opens = |word: &str| word == OPEN || word == TRIED;
                for (key, value) in &change.altered {
                    let steps = if opens(value) {
                        &mut self.opening
                    } else {
                        &mut self.closing
                    };
                    steps.push(runtime::set(path, key, value));
                }
                let (open, shut): (Vec<&str>, Vec<&str>) =
                    change.added.iter().partition(|line| opens(split(line).1));
                self.closing.extend(runtime::add(path, &shut));
                self.opening.extend(runtime::add(path, &open));
                self.opening.extend(delete);
            }
            // A source without an entry is nobody's, and none shall be that in between: what is new comes before the
            // old goes. Where both hold an address, the longer network counts.
            MapName::Sources => {
                self.turning.extend(change.altered.iter().map(set));
                self.turning.extend(add);
                self.turning.extend(delete);
            }
            MapName::Held | MapName::Labels | MapName::Names | MapName::Networks => {
                self.closing.extend(delete);
                self.turning.extend(change.altered.iter().map(set));
                self.opening.extend(add);
            }
        }
    }

    fn in_order(self) -> Vec<String> {
        [self.closing, self.turning, self.opening, self.mark].concat()
    }
}
