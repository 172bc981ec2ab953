//! The small objects of policy.json, each of which is one value of the policy: a window, a cap, a port, keys.

use std::collections::{BTreeMap, BTreeSet};

use crate::cidr::Wrong;
use crate::policy::json::fields::{Read, Reader, Step};
use crate::policy::json::lists::{list, unique};
use crate::policy::json::scan::Type;
use crate::policy::model::{Cap, Day, Mtls, Period, PortRule, Protocol, TimeOfDay, TimeWindow};
use crate::policy::parts;

const WINDOW: &str = r#"{"days": ["mon"], "start": "09:00", "end": "17:00"}"#;

/// The first port with a protocol: whether that is right the version says, which may stand behind it.
pub(super) type FirstProtocol = Option<(usize, String)>;

pub(super) fn port(
    reader: &mut Reader<'_>,
    protocol: &mut FirstProtocol,
) -> Read<Option<PortRule>> {
    const LIKE: &str = "a number from 1 to 65535";
    let number = |number: u64| match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Wrong::new(
            format!("{number} is not a port"),
            format!("write {LIKE}"),
        )),
    };
    let (found, at) = reader.scanner.peek()?;
    if found != Type::Object {
        let port = reader.whole(LIKE, number)?;
        return Ok(port.map(|(port, _)| PortRule {
            port,
            protocol: Protocol::Tcp,
        }));
    }
    if protocol.is_none() {
        *protocol = Some((at, reader.path()));
    }
    let (mut port, mut by) = (None, None);
    let (mut has_port, mut has_protocol) = (false, false);
    let like = r#"{"port": 443, "protocol": "udp"}"#;
    reader.fields(&["port", "protocol"], like, |reader, field| {
        if field == "port" {
            has_port = true;
            port = reader.whole(LIKE, number)?;
        } else {
            has_protocol = true;
            by = reader.text(r#""tcp" or "udp""#, Protocol::parse)?;
        }
        Ok(())
    })?;
    if !has_port {
        reader.report(
            at,
            Wrong::new("the port is missing", format!("write {like}")),
        )?;
    }
    if !has_protocol {
        reader.report(
            at,
            Wrong::new("the protocol is missing", format!("write {like}")),
        )?;
    }
    Ok(port
        .zip(by)
        .map(|((port, _), (protocol, _))| PortRule { port, protocol }))
}

pub(super) fn mtls(reader: &mut Reader<'_>) -> Read<Option<Mtls>> {
    const FILES: &[&str] = &["ca", "certificate", "key"];
    let (_, at) = reader.scanner.peek()?;
    let mut files: BTreeMap<&str, Option<String>> = BTreeMap::new();
    let like = r#"{"ca": "/config/keys/ca.pem", "certificate": "…", "key": "…"}"#;
    let is_object = reader.fields(FILES, like, |reader, field| {
        let file = reader.text(
            r#"a file in quotes, such as "/config/keys/ca.pem""#,
            |text| parts::file(text).map(|()| text.to_owned()),
        )?;
        files.insert(field, file.map(|(file, _)| file));
        Ok(())
    })?;
    missing(reader, is_object, at, FILES, |field| {
        files.contains_key(field)
    })?;
    let mut take = |field| files.remove(field).flatten();
    let (ca, certificate, key) = (take("ca"), take("certificate"), take("key"));
    Ok(ca
        .zip(certificate)
        .zip(key)
        .map(|((ca, certificate), key)| Mtls {
            ca,
            certificate,
            key,
        }))
}

/// Reports each field that an object at `at` must have and has not.
fn missing(
    reader: &mut Reader<'_>,
    is_object: bool,
    at: usize,
    needed: &[&'static str],
    has: impl Fn(&str) -> bool,
) -> Read<()> {
    for field in needed.iter().filter(|field| is_object && !has(field)) {
        let wrong = Wrong::new("this field is missing", format!("add \"{field}\""));
        reader.report_below(Step::Field(field), at, wrong)?;
    }
    Ok(())
}

pub(super) fn window(reader: &mut Reader<'_>) -> Read<Option<TimeWindow>> {
    const FIELDS: &[&str] = &["days", "start", "end"];
    let (_, at) = reader.scanner.peek()?;
    let mut seen = BTreeSet::new();
    let mut days: Option<BTreeSet<Day>> = None;
    let (mut start, mut end) = (None, None);
    let before = reader.found.len();
    let is_object = reader.fields(FIELDS, WINDOW, |reader, field| {
        seen.insert(field);
        let like = r#"a time of day in quotes, such as "09:00""#;
        match field {
            "days" => {
                let read = list(reader, r#"a list such as ["mon", "tue"]"#, |reader| {
                    let day = reader.text(r#"a day in quotes, such as "mon""#, Day::parse)?;
                    Ok(day.map(|(day, _)| day))
                })?;
                days = Some(
                    unique(reader, read)?
                        .into_iter()
                        .map(|(day, _)| day)
                        .collect(),
                );
            }
            "start" => start = reader.text(like, TimeOfDay::parse)?,
            _ => end = reader.text(like, TimeOfDay::parse)?,
        }
        Ok(())
    })?;
    missing(reader, is_object, at, FIELDS, |field| seen.contains(field))?;
    let (Some(days), Some((start, _)), Some((end, _))) = (days, start, end) else {
        return Ok(None);
    };
    // Days that were misspelt have been reported; that none is left then says nothing new.
    if reader.found.len() > before {
        return Ok(None);
    }
    reader.accept(at, TimeWindow::of(days, start, end))
}

pub(super) fn cap(reader: &mut Reader<'_>) -> Read<Option<Cap>> {
    const FIELDS: &[&str] = &["bytes", "period"];
    let (_, at) = reader.scanner.peek()?;
    let mut seen = BTreeSet::new();
    let (mut bytes, mut period) = (None, None);
    let is_object = reader.fields(
        FIELDS,
        r#"{"bytes": 1048576, "period": "hour"}"#,
        |reader, field| {
            seen.insert(field);
            if field == "bytes" {
                bytes =
                    reader.whole("a whole number of bytes, such as 1048576", parts::cap_bytes)?;
            } else {
                period = reader.text(r#""second", "minute", "hour" or "day""#, Period::parse)?;
            }
            Ok(())
        },
    )?;
    missing(reader, is_object, at, FIELDS, |field| seen.contains(field))?;
    Ok(bytes
        .zip(period)
        .map(|((bytes, _), (period, _))| Cap { bytes, period }))
}
