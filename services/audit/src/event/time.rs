//! Moments in events: microseconds since 1970, written as RFC 3339 in UTC with six digits, always of one length.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub i64);

#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no time; write one as in 2026-01-31T08:30:00Z")]
pub struct BadTime(String);

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400;
/// 0001-01-01 and 9999-12-31: outside of them the text would have another length.
const LEAST: i64 = -62_135_596_800 * SECOND;
const MOST: i64 = 253_402_300_799 * SECOND + 999_999;

impl Micros {
    pub fn parse(text: &str) -> Result<Self, BadTime> {
        let time: jiff::Timestamp = text.parse().map_err(|_| BadTime(text.to_owned()))?;
        Ok(Self(time.as_microsecond()))
    }

    pub fn of(time: std::time::SystemTime) -> Self {
        let micros =
            |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(MOST);
        Self(match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => micros(after),
            Err(before) => -micros(before.duration()),
        })
    }

    pub fn now() -> Self {
        Self::of(std::time::SystemTime::now())
    }

    fn text(self) -> [u8; 27] {
        let at = self.0.clamp(LEAST, MOST);
        let (seconds, micros) = (at.div_euclid(SECOND), at.rem_euclid(SECOND));
        let (year, month, day) = date(seconds.div_euclid(DAY));
        let second = seconds.rem_euclid(DAY);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        put(&mut text[0..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], second / 3600);
        put(&mut text[14..16], second / 60 % 60);
        put(&mut text[17..19], second % 60);
        put(&mut text[20..26], micros);
        text
    }
}

fn put(digits: &mut [u8], mut value: i64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789"[value.rem_euclid(10).unsigned_abs() as usize];
        value /= 10;
    }
}

/// Year, month and day of a day counted from 1970-01-01, by the Gregorian rule: eras of 400 years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    // From 0000-03-01, so that a leap day is the last day of its year.
    let days = days + 719_468;
    let day_of_era = days.rem_euclid(ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + days.div_euclid(ERA) * 400 + i64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Micros;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as in 2026-01-31T08:30:00Z")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Micros, E> {
                Micros::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_is_written_as_the_calendar_has_it() {
        for day in (-719_162..2_932_896).step_by(13) {
            let at = Micros(day * DAY * SECOND + 3_723_000_001);
            let ours = at.to_string();
            assert_eq!(Micros::parse(&ours).unwrap(), at, "{ours}");
            assert!(ours.ends_with("T01:02:03.000001Z"), "{ours}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_the_nearest_that_is_not() {
        assert_eq!(Micros(i64::MIN).to_string(), "0001-01-01T00:00:00.000000Z");
        assert_eq!(Micros(i64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
        assert!(Micros::parse("yesterday").is_err());
    }
}
