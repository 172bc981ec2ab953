//! Rates: one HTB per outside card, a class for each principal with a limit of its own, and above them all the ceiling.
//! Described as data and as lines for `tc -batch`; nothing here runs it.
//!
//! A packet without a class (the box's own, or an agent's where no ceiling is) goes past the classes at once.
//!
//! The promise is in IP bytes, HTB counts frames. `stab overhead -14` takes the Ethernet header away, but counts the
//! headers of a segmentation-offloaded packet only once: up to 3.5 % too little of a full-sized IPv4 segment, nothing of
//! a packet that is whole. The rate is set in the middle between the two (`MIDDLE`).

use std::{collections::BTreeMap, fmt::Write};

use clawgress_policy::{Principal, PrincipalId};

use super::{frame::Frame, layout::class};

/// Thousandths of the promised rate.
const MIDDLE: u64 = 983;
/// A rate that a class is given for its own is never nothing.
const LEAST: u64 = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shaping {
    pub cards: Vec<CardShaping>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardShaping {
    pub card: String,
    /// By minor; empty: the card is left without any queue of ours.
    pub classes: BTreeMap<u16, Class>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// 0: the root.
    pub parent: u16,
    /// Bits a second that are its own, and at most.
    pub rate: u64,
    pub ceiling: u64,
}

/// The queue of a class, best first: not every kernel has the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    FqCodel,
    Sfq,
    Fifo,
}

impl Leaf {
    pub const PREFERRED: [Self; 3] = [Self::FqCodel, Self::Sfq, Self::Fifo];
}

/// The limit that is the principal's alone. The global scope's is the ceiling.
pub(super) fn own_limit(who: &Principal) -> Option<u64> {
    let kbps = who.scope.egress_kbps.filter(|_| !who.scope.global)?;
    Some(u64::from(kbps) * 1000)
}

pub(super) fn class_of(id: PrincipalId) -> u16 {
    class::BASE.saturating_add(id.0)
}

impl Shaping {
    pub(super) fn compile(frame: &Frame<'_>) -> Self {
        let ceiling = frame.index.egress_kbps().map(|kbps| u64::from(kbps) * 1000);
        let limits: Vec<(u16, u64)> = frame
            .index
            .principals()
            .iter()
            // Agents share the class of the host that they are at.
            .filter(|who| frame.index.holder(who).id == who.id)
            .filter_map(|who| Some((class_of(who.id), own_limit(who)?)))
            .collect();
        let classes = classes(ceiling, &limits);
        let cards = frame.wan.iter().map(|card| CardShaping {
            card: card.clone(),
            classes: classes.clone(),
        });
        Self {
            cards: cards.collect(),
        }
    }

    /// Lines for `tc -batch` that bring every card from `before` to this. `None`: nobody knows what is there; run
    /// `clear` first and let it fail.
    pub fn batch(&self, before: Option<&Self>, leaf: Leaf) -> String {
        let mut lines = String::new();
        let nothing = BTreeMap::new();
        for card in &self.cards {
            let was = before
                .and_then(|before| before.cards.iter().find(|was| was.card == card.card))
                .map_or(&nothing, |was| &was.classes);
            card.change(was, leaf, &mut lines);
        }
        for gone in before
            .map(|before| before.cards.as_slice())
            .unwrap_or_default()
        {
            if !gone.classes.is_empty() && !self.cards.iter().any(|card| card.card == gone.card) {
                line(&mut lines, &format!("qdisc del dev {} root", gone.card));
            }
        }
        lines
    }

    /// One line per card, each of which fails where nothing is to be cleared.
    pub fn clear(&self) -> Vec<String> {
        let clear = |card: &CardShaping| format!("qdisc del dev {} root", card.card);
        self.cards.iter().map(clear).collect()
    }
}

fn line(lines: &mut String, text: &str) {
    lines.push_str(text);
    lines.push('\n');
}

fn classes(ceiling: Option<u64>, limits: &[(u16, u64)]) -> BTreeMap<u16, Class> {
    let mut classes = BTreeMap::new();
    let Some(ceiling) = ceiling else {
        for (minor, limit) in limits {
            let (rate, ceiling) = (measured(*limit), measured(*limit));
            classes.insert(
                *minor,
                Class {
                    parent: 0,
                    rate,
                    ceiling,
                },
            );
        }
        return classes;
    };
    // What classes have for their own must not sum up to more than the ceiling, or HTB would exceed it.
    let below = |limit: u64| limit.min(ceiling);
    let wanted: u64 = ceiling + limits.iter().map(|(_, limit)| below(*limit)).sum::<u64>();
    let share =
        |limit: u64| u128::from(below(limit)) * u128::from(ceiling) / u128::from(wanted.max(1));
    let child = |limit: u64| Class {
        parent: class::CEILING,
        rate: measured(u64::try_from(share(limit)).unwrap_or(LEAST)),
        ceiling: measured(below(limit)),
    };
    let top = measured(ceiling);
    classes.insert(
        class::CEILING,
        Class {
            parent: 0,
            rate: top,
            ceiling: top,
        },
    );
    classes.insert(class::OTHERS, child(ceiling));
    classes.extend(limits.iter().map(|(minor, limit)| (*minor, child(*limit))));
    classes
}

fn measured(bits: u64) -> u64 {
    (bits * MIDDLE / 1000).max(LEAST)
}

impl Class {
    /// What ten milliseconds hold, and never less than a packet.
    fn burst(&self) -> u64 {
        (self.ceiling / 8 / 100).clamp(1_600, 256 * 1024)
    }

    /// What waits for a fifth of a second at most, where the queue has no better sense of time.
    fn packets(&self) -> u64 {
        (self.ceiling / 8 / 5 / 1500).clamp(32, 1000)
    }
}

impl CardShaping {
    fn change(&self, was: &BTreeMap<u16, Class>, leaf: Leaf, lines: &mut String) {
        let card = &self.card;
        if self.classes.is_empty() {
            if !was.is_empty() {
                line(lines, &format!("qdisc del dev {card} root"));
            }
            return;
        }
        if was.is_empty() {
            line(
                lines,
                &format!(
                    "qdisc add dev {card} root handle 1: stab overhead -14 linklayer ethernet htb default 0"
                ),
            );
        }
        // A ceiling that comes or goes moves every class: HTB takes no new parent.
        let moved = |minor: &u16, class: &Class| {
            was.get(minor).is_some_and(|was| was.parent != class.parent)
        };
        if self
            .classes
            .iter()
            .any(|(minor, class)| moved(minor, class))
        {
            line(lines, &format!("qdisc del dev {card} root"));
            self.change(&BTreeMap::new(), leaf, lines);
            return;
        }
        // Children go first, and come last.
        for minor in was
            .keys()
            .rev()
            .filter(|minor| !self.classes.contains_key(minor))
        {
            line(lines, &format!("class del dev {card} classid 1:{minor:x}"));
        }
        for (minor, class) in &self.classes {
            if was.get(minor) == Some(class) {
                continue;
            }
            let parent = match class.parent {
                0 => "1:".to_owned(),
                parent => format!("1:{parent:x}"),
            };
            line(
                lines,
                &format!(
                    "class replace dev {card} parent {parent} classid 1:{minor:x} htb rate {}bit ceil {}bit burst {burst}b cburst {burst}b quantum {}",
                    class.rate,
                    class.ceiling,
                    class.burst().clamp(1_514, 60_000),
                    burst = class.burst(),
                ),
            );
            if *minor != class::CEILING && !was.contains_key(minor) {
                self.queue(*minor, class, leaf, lines);
            }
        }
    }

    fn queue(&self, minor: u16, class: &Class, leaf: Leaf, lines: &mut String) {
        let mut text = format!("qdisc add dev {} parent 1:{minor:x} ", self.card);
        // Writing into a String does not fail.
        let _ = match leaf {
            Leaf::FqCodel => write!(text, "fq_codel limit 1024"),
            Leaf::Sfq => write!(text, "sfq perturb 10"),
            Leaf::Fifo => write!(text, "pfifo limit {}", class.packets()),
        };
        line(lines, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaping(ceiling: Option<u64>, limits: &[(u16, u64)]) -> Shaping {
        Shaping {
            cards: vec![CardShaping {
                card: "eth0".to_owned(),
                classes: classes(ceiling, limits),
            }],
        }
    }

    #[test]
    fn what_classes_have_for_their_own_fits_below_the_ceiling() {
        let classes = classes(Some(8_000_000), &[(0x11, 6_000_000), (0x12, 9_000_000)]);
        let own: u64 = classes
            .iter()
            .filter(|(minor, _)| **minor != class::CEILING)
            .map(|(_, class)| class.rate)
            .sum();
        assert!(own <= classes[&class::CEILING].rate, "{classes:?}");
        assert_eq!(classes[&0x12].ceiling, classes[&class::CEILING].ceiling);
    }

    #[test]
    fn an_unlimited_box_has_no_queue() {
        assert_eq!(shaping(None, &[]).batch(None, Leaf::Sfq), "");
        let before = shaping(None, &[(0x11, 1_000_000)]);
        assert_eq!(
            shaping(None, &[]).batch(Some(&before), Leaf::Sfq),
            "qdisc del dev eth0 root\n"
        );
    }

    #[test]
    fn a_change_touches_only_what_changes() {
        let before = shaping(Some(8_000_000), &[(0x11, 1_000_000), (0x12, 2_000_000)]);
        assert_eq!(before.batch(Some(&before), Leaf::Fifo), "");
        let after = shaping(Some(8_000_000), &[(0x12, 2_000_000)]);
        let lines = after.batch(Some(&before), Leaf::Fifo);
        assert!(
            lines.starts_with("class del dev eth0 classid 1:11\n"),
            "{lines}"
        );
        assert!(!lines.contains("qdisc"), "{lines}");
        let free = shaping(None, &[(0x12, 2_000_000)]);
        let lines = free.batch(Some(&before), Leaf::Fifo);
        assert!(
            lines.starts_with("qdisc del dev eth0 root\nqdisc add dev eth0 root"),
            "{lines}"
        );
    }
}
