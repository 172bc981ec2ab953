//! The words of rules. Typed by the `nftables` crate where it has the statement; JSON of the same schema where it has
//! not, or where its output would differ from run to run (sets of flags).

use std::net::IpAddr;

use clawgress_config::Cidr;
use nftables::{
    expr::{
        BinaryOperation, CT, CTDir, Expression, Meta, MetaKey, NamedExpression, Payload,
        PayloadField, Prefix, Range, SetItem,
    },
    stmt::{
        Counter, JumpTarget, Limit, Log, Mangle, Match, NAT, Operator, QuotaOrQuotaRef, Reject,
        RejectType, Statement, VerdictMap,
    },
    types::RejectCode,
};
use serde_json::{Value, json};

use super::layout::{NFLOG_GROUP, NFLOG_SNAPLEN, STAMPED, mark};

/// A rule: its statements in order.
pub(super) type Rule = Vec<Value>;
pub(super) type Word = Expression<'static>;

/// The schema of the crate is plain data: it always has a JSON form.
pub(super) fn value(item: impl serde::Serialize) -> Value {
    serde_json::to_value(item).unwrap_or(Value::Null)
}

fn statement(statement: Statement<'static>) -> Value {
    value(statement)
}

// Expressions.

pub(super) fn text(text: impl Into<String>) -> Word {
    Expression::String(text.into().into())
}

pub(super) fn number(number: u32) -> Word {
    Expression::Number(number)
}

pub(super) fn set_of(items: impl IntoIterator<Item = Word>) -> Word {
    let items = items.into_iter().map(SetItem::Element).collect();
    Expression::Named(NamedExpression::Set(items))
}

pub(super) fn names(names: &[String]) -> Word {
    set_of(names.iter().map(text))
}

pub(super) fn numbers<N: Into<u32>>(items: impl IntoIterator<Item = N>) -> Word {
    set_of(items.into_iter().map(|item| number(item.into())))
}

pub(super) fn concat(parts: impl IntoIterator<Item = Word>) -> Word {
    Expression::Named(NamedExpression::Concat(parts.into_iter().collect()))
}

/// `tcp . 53, udp . 53` and the like.
pub(super) fn services(services: &[(&str, u16)]) -> Word {
    set_of(
        services
            .iter()
            .map(|(protocol, port)| concat([text(*protocol), number(u32::from(*port))])),
    )
}

/// Both transports that the policy can speak of.
pub(super) fn tcp_or_udp() -> Word {
    set_of(["tcp", "udp"].map(text))
}

pub(super) fn named_set(name: impl std::fmt::Display) -> Word {
    text(format!("@{name}"))
}

pub(super) fn meta(key: MetaKey) -> Word {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

pub(super) fn payload(protocol: &'static str, field: &'static str) -> Word {
    let field = PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

pub(super) fn ct(key: &'static str) -> Word {
    Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: None,
    }))
}

/// Of the flow's first packet, whichever way this one goes and however it was translated.
pub(super) fn ct_original(key: &'static str) -> Word {
    Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: Some(CTDir::Original),
    }))
}

pub(super) fn original_source(v6: bool) -> Word {
    ct_original(if v6 { "ip6 saddr" } else { "ip saddr" })
}

pub(super) fn original_destination(v6: bool) -> Word {
    ct_original(if v6 { "ip6 daddr" } else { "ip daddr" })
}

pub(super) fn ip(v6: bool, field: &'static str) -> Word {
    payload(if v6 { "ip6" } else { "ip" }, field)
}

pub(super) fn masked(word: Word, mask: u32) -> Word {
    Expression::BinaryOperation(Box::new(BinaryOperation::AND(word, number(mask))))
}

pub(super) fn network(cidr: &Cidr) -> Word {
    if cidr.length == if cidr.address.is_ipv4() { 32 } else { 128 } {
        return address(cidr.address);
    }
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(address(cidr.address)),
        len: u32::from(cidr.length),
    }))
}

pub(super) fn range(first: IpAddr, last: IpAddr) -> Word {
    let range = [address(first), address(last)];
    Expression::Range(Box::new(Range { range }))
}

pub(super) fn port_range(first: u16, last: u16) -> Word {
    let range = [first, last].map(|port| number(u32::from(port)));
    Expression::Range(Box::new(Range { range }))
}

pub(super) fn networks<'c>(cidrs: impl IntoIterator<Item = &'c Cidr>) -> Word {
    set_of(cidrs.into_iter().map(network))
}

pub(super) fn addresses(all: impl IntoIterator<Item = IpAddr>) -> Word {
    set_of(all.into_iter().map(address))
}

pub(super) fn address(address: IpAddr) -> Word {
    text(address.to_string())
}

// Matches.

fn compare(left: Word, op: Operator, right: Word) -> Value {
    statement(Statement::Match(Match { left, right, op }))
}

pub(super) fn is(left: Word, right: Word) -> Value {
    compare(left, Operator::EQ, right)
}

pub(super) fn is_not(left: Word, right: Word) -> Value {
    compare(left, Operator::NEQ, right)
}

pub(super) fn at_most(bytes: u32) -> Value {
    compare(meta(MetaKey::Length), Operator::LEQ, number(bytes))
}

pub(super) fn state(state: &'static str) -> Value {
    compare(ct("state"), Operator::IN, text(state))
}

pub(super) fn direction(direction: &'static str) -> Value {
    is(ct("direction"), text(direction))
}

/// The flow's destination was changed here: it was redirected to one of our own ports.
pub(super) fn redirected() -> Value {
    compare(ct("status"), Operator::IN, text("dnat"))
}

pub(super) fn mark_is(mask: u32, wanted: u32) -> Value {
    is(masked(ct("mark"), mask), number(wanted))
}

/// Of the generation in force, and not cut.
pub(super) fn is_fast() -> Value {
    is(masked(ct("mark"), mark::FAST), named_set(STAMPED))
}

pub(super) fn mark_has(mask: u32) -> Value {
    is_not(masked(ct("mark"), mask), number(0))
}

pub(super) fn protocol(name: &'static str) -> Value {
    is(meta(MetaKey::L4proto), text(name))
}

pub(super) fn family(v6: bool) -> Value {
    is(
        meta(MetaKey::Nfproto),
        text(if v6 { "ipv6" } else { "ipv4" }),
    )
}

pub(super) fn arrives_on(cards: &[String]) -> Value {
    is(meta(MetaKey::Iifname), names(cards))
}

pub(super) fn leaves_by(cards: &[String]) -> Value {
    is(meta(MetaKey::Oifname), names(cards))
}

pub(super) fn tcp_flags(mask: u32, wanted: u32) -> Value {
    is(masked(payload("tcp", "flags"), mask), number(wanted))
}

/// The opposite of an equality.
pub(super) fn statement_not(mut equality: Value) -> Value {
    equality["match"]["op"] = "!=".into();
    equality
}

pub(super) mod flag {
    pub(in crate::plan) const FIN: u32 = 1;
    pub(in crate::plan) const SYN: u32 = 2;
    pub(in crate::plan) const RST: u32 = 4;
    pub(in crate::plan) const ACK: u32 = 16;
    pub(in crate::plan) const ALL: u32 = FIN | SYN | RST | ACK;
}

/// `flags` in the order given: the crate keeps them in a set without order.
pub(super) fn fib(result: &str, flags: &[&str], right: &Value) -> Value {
    json!({"match": {"op": "==", "left": {"fib": {"result": result, "flags": flags}}, "right": right}})
}

pub(super) fn fib_is_not(result: &str, flags: &[&str], right: &str) -> Value {
    json!({"match": {"op": "!=", "left": {"fib": {"result": result, "flags": flags}}, "right": right}})
}

pub(super) fn extension_header(name: &str) -> Value {
    json!({"match": {"op": "==", "left": {"exthdr": {"name": name}}, "right": true}})
}

pub(super) fn transparent_socket() -> Value {
    json!({"match": {"op": "==", "left": {"socket": {"key": "transparent"}}, "right": 1}})
}

// What is done.

pub(super) fn accept() -> Value {
    statement(Statement::Accept(None))
}

pub(super) fn drop() -> Value {
    statement(Statement::Drop(None))
}

pub(super) fn goto(chain: impl Into<String>) -> Value {
    let target = chain.into().into();
    statement(Statement::Goto(JumpTarget { target }))
}

pub(super) fn jump(chain: impl Into<String>) -> Value {
    let target = chain.into().into();
    statement(Statement::Jump(JumpTarget { target }))
}

pub(super) fn count(counter: impl Into<String>) -> Value {
    statement(Statement::Counter(Counter::Named(counter.into().into())))
}

/// Counts at the counter that a map gives for a key; nothing if it gives none.
pub(super) fn count_by(key: &Word, counters: Vec<(Word, String)>) -> Value {
    let entries = mapping(counters.into_iter().map(|(key, name)| (key, text(name))));
    json!({"counter": {"map": {"key": key, "data": entries}}})
}

pub(super) fn quota(name: impl Into<String>) -> Value {
    statement(Statement::Quota(QuotaOrQuotaRef::QuotaRef(
        name.into().into(),
    )))
}

fn mapping(entries: impl Iterator<Item = (Word, Word)>) -> Word {
    let items = entries
        .map(|(key, data)| SetItem::Mapping(key, data))
        .collect();
    Expression::Named(NamedExpression::Set(items))
}

pub(super) fn verdict_by(key: Word, map: impl std::fmt::Display) -> Value {
    statement(Statement::VerdictMap(VerdictMap {
        key,
        data: named_set(map),
    }))
}

/// A verdict map of its own: for tables that are not made anew as a whole.
pub(super) fn jump_by(key: &Word, chains: Vec<(Word, String)>) -> Value {
    let entries: Vec<Value> = chains
        .into_iter()
        .map(|(key, chain)| json!([key, {"jump": {"target": chain}}]))
        .collect();
    json!({"vmap": {"key": key, "data": {"set": entries}}})
}

fn mangle(key: Word, value: Word) -> Value {
    statement(Statement::Mangle(Mangle { key, value }))
}

pub(super) fn set_ct_mark(mark: u32) -> Value {
    mangle(ct("mark"), number(mark))
}

/// With the mark of a map that does not ask who the flow is.
pub(super) fn set_ct_mark_by(map: &str) -> Value {
    let given = json!({"map": {"key": {"meta": {"key": "nfproto"}}, "data": format!("@{map}")}});
    json!({"mangle": {"key": ct("mark"), "value": given}})
}

pub(super) fn add_to_ct_mark(bits: u32) -> Value {
    let both = BinaryOperation::OR(vec![ct("mark"), number(bits)]);
    mangle(ct("mark"), Expression::BinaryOperation(Box::new(both)))
}

pub(super) fn take_from_ct_mark(bits: u32) -> Value {
    mangle(ct("mark"), masked(ct("mark"), !bits))
}

pub(super) fn set_mark(mark: u32) -> Value {
    mangle(meta(MetaKey::Mark), number(mark))
}

/// For the flow's own direction alone: with replies in the default zone, the kernel can tell a socket what was dialled.
pub(super) fn set_zone(zone: u16) -> Value {
    mangle(ct_original("zone"), number(u32::from(zone)))
}

pub(super) fn set_tcp_flags(flags: u32) -> Value {
    mangle(payload("tcp", "flags"), number(flags))
}

pub(super) fn set_class(minor: u16) -> Value {
    mangle(meta(MetaKey::Priority), text(class(minor)))
}

pub(super) fn set_class_by(key: &Word, classes: Vec<(Word, u16)>) -> Value {
    let entries = mapping(
        classes
            .into_iter()
            .map(|(key, minor)| (key, text(class(minor)))),
    );
    json!({"mangle": {"key": meta(MetaKey::Priority), "value": {"map": {"key": key, "data": entries}}}})
}

fn class(minor: u16) -> String {
    format!("1:{minor:x}")
}

pub(super) fn limit(per_second: u32, burst: u32) -> Value {
    statement(Statement::Limit(Limit {
        rate: per_second,
        rate_unit: None,
        per: Some("second".into()),
        burst: Some(burst),
        burst_unit: None,
        inv: None,
    }))
}

pub(super) fn log(prefix: String) -> Value {
    let mut log = Log::new(Some(NFLOG_GROUP));
    log.prefix = Some(prefix.into());
    log.snaplen = Some(NFLOG_SNAPLEN);
    statement(Statement::Log(Some(log)))
}

pub(super) fn reset() -> Value {
    let reset = Reject::new(Some(RejectType::TCPReset), None);
    statement(Statement::Reject(Some(reset)))
}

pub(super) fn refuse(code: RejectCode) -> Value {
    let refusal = Reject::new(Some(RejectType::ICMPX), Some(code));
    statement(Statement::Reject(Some(refusal)))
}

pub(super) fn redirect(port: u16) -> Value {
    statement(Statement::Redirect(Some(NAT {
        addr: None,
        family: None,
        port: Some(number(u32::from(port))),
        flags: None,
    })))
}

pub(super) fn masquerade() -> Value {
    statement(Statement::Masquerade(None))
}

/// Puts an element into a set, or keeps it there, for so many seconds from now.
pub(super) fn remember(set: &str, element: &Word, seconds: u32) -> Value {
    json!({"set": {"op": "update", "elem": {"elem": {"val": element, "timeout": seconds}}, "set": format!("@{set}")}})
}
