//! Exchanges the content of sets in the kernel without nft, which would read the whole table before it changes one set.
//!
//! Only for what the plan says is all that differs. Whatever can't be said here in one step is left to nft.

use serde_json::Value;

use crate::kernel::netlink::{FAMILY_IPV4, FAMILY_IPV6};
use crate::kernel::sets::{self, Exchange, Key};
use crate::kernel::socket::{KernelError, Socket};
use crate::plan;

/// None: not to be said here.
pub fn of(planned: &[plan::Exchange]) -> Option<Vec<Exchange>> {
    let all = planned.iter().map(one).collect::<Option<Vec<_>>>()?;
    sets::is_exchangeable(&all).then_some(all)
}

fn one(planned: &plan::Exchange) -> Option<Exchange> {
    let elements = planned.elements.iter().map(element);
    Some(Exchange {
        table: planned.table,
        set: planned.set.clone(),
        elements: elements.collect::<Option<_>>()?,
    })
}

fn element(element: &Value) -> Option<(Key, Option<u32>)> {
    let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
    match element {
        Value::String(address) => Some((Key::Address(address.parse().ok()?), None)),
        Value::Number(_) => Some((Key::Number(number(element)?), None)),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(family), given] => {
                let family = match family.as_str() {
                    "ipv4" => FAMILY_IPV4,
                    "ipv6" => FAMILY_IPV6,
                    _ => return None,
                };
                Some((Key::Family(family), Some(number(given)?)))
            }
            _ => None,
        },
        _ => None,
    }
}

/// All of them or none.
pub fn apply(socket: &mut Socket, exchanges: &[Exchange]) -> Result<(), KernelError> {
    sets::exchange(socket, exchanges)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_plans_put_into_sets_has_its_key() {
        let planned = |elements: Value| plan::Exchange {
            table: "t",
            set: "s".to_owned(),
            elements: elements.as_array().cloned().unwrap_or_default(),
        };
        let keys = |elements: Value| Some(of(&[planned(elements)])?.remove(0).elements);
        let address = |text: &str| (Key::Address(text.parse().unwrap()), None);
        assert_eq!(
            keys(json!(["192.0.2.7", "2001:db8::1"])),
            Some(vec![address("192.0.2.7"), address("2001:db8::1")])
        );
        assert_eq!(keys(json!([7])), Some(vec![(Key::Number(7), None)]));
        assert_eq!(
            keys(json!([["ipv4", 7], ["ipv6", 7]])),
            Some(vec![(Key::Family(2), Some(7)), (Key::Family(10), Some(7))])
        );
        for other in [
            json!([{"prefix": {"addr": "192.0.2.0", "len": 24}}]),
            json!(["x"]),
            json!([-1]),
            json!([["ipv4", {"goto": {"target": "x"}}]]),
        ] {
            assert_eq!(keys(other.clone()), None, "{other}");
        }
        let many: Vec<Value> = (0..2000).map(|mark| json!(mark)).collect();
        assert_eq!(keys(many.into()), None, "more than one step can hold");
    }
}
