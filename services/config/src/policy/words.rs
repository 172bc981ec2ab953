//! The vocabularies of a policy: days, periods, protocols, modes. Each has its words in one place.

use crate::cidr::Wrong;
use crate::nearest::nearest;
use crate::policy::model::{Day, Period, Protocol, ProxyMode};
use crate::policy::name::shown;

pub(crate) const DAYS: &[&str] = &["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
pub(crate) const PROTOCOLS: &[&str] = &["tcp", "udp"];
pub(crate) const MODES: &[&str] = &["sni-allowlist"];
pub(crate) const PERIODS: &[&str] = &["second", "minute", "hour", "day"];

/// One of a vocabulary's words.
fn word<T: Copy>(
    text: &str,
    words: &'static [&'static str],
    all: &[T],
    what: &str,
) -> Result<T, Wrong> {
    let known = words.iter().zip(all).find(|(word, _)| **word == text);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let fix = nearest(text, words.iter().copied()).map_or_else(
            || format!("write one of: {}", words.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        Wrong::new(format!("`{}` is not {what}", shown(text)), fix)
    })
}

impl Day {
    pub const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        word(text, DAYS, &Self::ALL, "a day")
    }
}

impl Period {
    pub const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    pub fn word(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        word(text, PERIODS, &Self::ALL, "a period")
    }
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        word(text, PROTOCOLS, &Self::ALL, "a protocol with ports")
    }
}

impl ProxyMode {
    pub fn word(self) -> &'static str {
        match self {
            Self::SniAllowlist => "sni-allowlist",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        word(text, MODES, &[Self::SniAllowlist], "a proxy mode")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_match_their_words() {
        assert!(
            Day::ALL
                .iter()
                .map(|day| day.word())
                .eq(DAYS.iter().copied())
        );
        assert!(
            Period::ALL
                .iter()
                .map(|p| p.word())
                .eq(PERIODS.iter().copied())
        );
        assert!(
            Protocol::ALL
                .iter()
                .map(|p| p.word())
                .eq(PROTOCOLS.iter().copied())
        );
        assert_eq!(
            ProxyMode::parse("sni-allowlist"),
            Ok(ProxyMode::SniAllowlist)
        );
        assert!(
            Day::parse("monday")
                .unwrap_err()
                .to_string()
                .contains("mon")
        );
        assert!(Day::parse("Tue").is_err());
    }
}
