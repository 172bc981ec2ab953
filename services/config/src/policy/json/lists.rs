//! Lists and maps of policy.json, sorted, with the place of each value; what is there twice is reported.

use std::collections::{BTreeMap, BTreeSet};

use crate::cidr::{Cidr, Wrong};
use crate::policy::domain::DomainPattern;
use crate::policy::json::fields::{Read, Reader, Step};
use crate::policy::json::origins::Spot;

const DOMAINS: &str = r#"a list such as ["api.example.com"]"#;
const DOMAIN: &str = r#"a domain in quotes, such as "api.example.com""#;
const NETWORKS: &str = r#"a list such as ["192.0.2.0/24"]"#;
const NETWORK: &str = r#"a network in quotes, such as "192.0.2.0/24""#;

/// Where a place of at most 64 MiB fits.
pub(super) fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

pub(super) fn networks(
    reader: &mut Reader<'_>,
    parse: fn(&str) -> Result<Cidr, Wrong>,
) -> Read<BTreeMap<Cidr, Spot>> {
    let read = list(reader, NETWORKS, |reader| {
        Ok(reader.text(NETWORK, parse)?.map(|(network, _)| network))
    })?;
    Ok(unique(reader, read)?.into_iter().collect())
}

pub(super) fn domains(reader: &mut Reader<'_>) -> Read<(BTreeSet<DomainPattern>, Vec<Spot>)> {
    let read = list(reader, DOMAINS, |reader| {
        Ok(reader
            .text(DOMAIN, DomainPattern::parse)?
            .map(|(name, _)| name))
    })?;
    let read = unique(reader, read)?;
    let spots = read.iter().map(|(_, spot)| *spot).collect();
    Ok((read.into_iter().map(|(name, _)| name).collect(), spots))
}

/// The values of an array, each with its spot.
pub(super) fn list<T>(
    reader: &mut Reader<'_>,
    like: &str,
    mut each: impl FnMut(&mut Reader<'_>) -> Read<Option<T>>,
) -> Read<Vec<(T, Spot)>> {
    let mut values = Vec::new();
    reader.items(like, |reader, index| {
        let at = place(reader.scanner.peek()?.1);
        if let Some(value) = each(reader)? {
            values.push((value, (at, index)));
        }
        Ok(())
    })?;
    Ok(values)
}

/// Sorted; a value that is there twice, in whichever writing, is reported where it stands the second time.
pub(super) fn unique<T: Ord>(
    reader: &mut Reader<'_>,
    mut values: Vec<(T, Spot)>,
) -> Read<Vec<(T, Spot)>> {
    values.sort_unstable();
    let mut again = Vec::new();
    values.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            again.push((later.1, first.1.1));
        }
        same
    });
    again.sort_unstable();
    for ((at, index), first) in again {
        let wrong = Wrong::new(
            format!("this is in the list already, at [{first}]"),
            "keep one of them",
        );
        reader.report_below(Step::Index(index), at as usize, wrong)?;
    }
    Ok(values)
}

/// An object whose names are domains, and where each name stands, in the order of the map.
pub(super) fn by_domain<T>(
    reader: &mut Reader<'_>,
    like: &str,
    mut each: impl FnMut(&mut Reader<'_>) -> Read<Option<T>>,
) -> Read<(BTreeMap<DomainPattern, T>, Vec<u32>)> {
    let mut values: Vec<(DomainPattern, u32, T)> = Vec::new();
    reader.entries(like, |reader, key, at| {
        let (name, value) = reader.below(key, |reader| {
            let name = reader.accept(at, DomainPattern::parse(key))?;
            Ok((name, each(reader)?))
        })?;
        if let (Some(name), Some(value)) = (name, value) {
            values.push((name, place(at), value));
        }
        Ok(())
    })?;
    values.sort_unstable_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let mut again = Vec::new();
    values.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            again.push((later.1, first.0.clone()));
        }
        same
    });
    again.sort_unstable();
    for (at, name) in again {
        let wrong = Wrong::new(
            "this domain is there twice, in one writing or another",
            "keep one of them",
        );
        reader.report_below(Step::Key(name.to_string()), at as usize, wrong)?;
    }
    let places = values.iter().map(|(_, at, _)| *at).collect();
    let values = values.into_iter().map(|(name, _, value)| (name, value));
    Ok((values.collect(), places))
}
