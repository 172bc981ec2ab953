//! The kernel's counters, turned into what happened since they were last read.
//!
//! A counter that is lower than before was made anew: then all of it is new.

use std::collections::HashMap;

use super::ring::{Rings, What};
use crate::kernel::objects::Counter;
use crate::plan::{self, Counted};

#[derive(Debug, Default)]
pub struct Meters {
    last: HashMap<(&'static str, String), Counter>,
}

impl Meters {
    /// Where counters stand that were there before this process.
    pub fn begin(&mut self, table: &'static str, counters: HashMap<String, Counter>) {
        let all = counters.into_iter();
        self.last
            .extend(all.map(|(name, value)| ((table, name), value)));
    }

    /// The counters of this table are made anew: whatever they say from now on is new.
    pub fn end(&mut self, table: &'static str) {
        self.last.retain(|(of, _), _| *of != table);
    }

    /// What the counters say now.
    pub fn read(
        &mut self,
        now: u64,
        counted: &[Counted],
        tables: &HashMap<&'static str, HashMap<String, Counter>>,
        rings: &mut Rings,
    ) {
        let mut seen = HashMap::with_capacity(self.last.len());
        for of in counted {
            let Some(value) = tables.get(of.table).and_then(|table| table.get(&of.object)) else {
                continue;
            };
            let key = (of.table, of.object.clone());
            let new = match self.last.get(&key) {
                Some(last) if value.packets >= last.packets => Counter {
                    bytes: value.bytes.saturating_sub(last.bytes),
                    packets: value.packets - last.packets,
                },
                _ => *value,
            };
            let what = match &of.what {
                plan::What::Denied(reason) => Some((What::Denied(reason.word()), new.packets)),
                plan::What::BytesOut => Some((What::BytesOut, new.bytes)),
                plan::What::BytesIn => Some((What::BytesIn, new.bytes)),
                plan::What::Flows => Some((What::Flows, new.packets)),
                plan::What::Cap(_) => None,
            };
            if let Some((what, many)) = what {
                rings.add(now, &of.principal, None, &what, many);
            }
            seen.insert(key, *value);
        }
        self.last = seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawgress_link::control::Window;
    use clawgress_policy::Reason;

    #[test]
    fn only_what_is_new_counts() {
        let counted = [
            Counted {
                table: plan::layout::METER,
                object: "out".to_owned(),
                principal: "a".to_owned(),
                what: plan::What::BytesOut,
            },
            Counted {
                table: plan::layout::TABLE,
                object: "deny".to_owned(),
                principal: "a".to_owned(),
                what: plan::What::Denied(Reason::Port),
            },
        ];
        let mut rings = Rings::default();
        let mut meters = Meters::default();
        // A restarted enforcer finds 1000 bytes that were told before.
        let before = Counter {
            bytes: 1000,
            packets: 10,
        };
        meters.begin(
            plan::layout::METER,
            HashMap::from([("out".to_owned(), before)]),
        );
        let mut read = |meters: &mut Meters, out: u64, deny: u64| {
            let one = |name: &str, bytes, packets| {
                HashMap::from([(name.to_owned(), Counter { bytes, packets })])
            };
            let all = HashMap::from([
                (plan::layout::METER, one("out", out, out / 100)),
                (plan::layout::TABLE, one("deny", 0, deny)),
            ]);
            meters.read(5, &counted, &all, &mut rings);
        };
        read(&mut meters, 1000, 2);
        read(&mut meters, 1500, 2);
        read(&mut meters, 1500, 1);
        // A new table whose counter has overtaken the old one before it is read.
        meters.end(plan::layout::TABLE);
        read(&mut meters, 1500, 5);
        let a = &rings.telemetry(5, Window::Minute).principals["a"];
        assert_eq!(a.bytes_out, 500);
        assert_eq!(a.denied["port"], 8);
    }
}
